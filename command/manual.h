/* manual.h: manual pages for man(1), made from the same rows as the help. */
#ifndef GEUL_MANUAL_H
#define GEUL_MANUAL_H

#include "command/option_rows.h"

/* Prints the page of one subcommand: `geul SUBCOMMAND --help=man`. settings hold the defaults. */
void geul_manual_print(const struct geul_command_help *help, const void *settings);
/* Prints the page's title and first two sections; name is "geul-complete", usage what follows `geul`. */
void geul_manual_begin(const char *name, const char *summary, const char *usage);
/* Prints text, escaped so that roff prints every character of it literally. */
void geul_manual_text(const char *text);

#endif

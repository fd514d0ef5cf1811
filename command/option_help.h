/* option_help.h: the help of a subcommand, and settings with their values. */
#ifndef GEUL_OPTION_HELP_H
#define GEUL_OPTION_HELP_H

#include "command/option_rows.h"

enum { GEUL_OPTION_HELP_MAX = 512 };

/* -h, --help: what every subcommand has besides its own rows. */
extern const struct geul_option geul_option_help_rows[];
/* Prints what `geul SUBCOMMAND --help` shows. settings hold the defaults. */
void geul_option_print_help(const struct geul_command_help *help, const void *settings);
/* The row's help with its value in settings, its default, into line. */
void geul_option_help(const struct geul_option *row, const char *settings, char line[GEUL_OPTION_HELP_MAX]);
/* Prints what is explained and, from a column on, its help, within the terminal's width. */
void geul_option_print_row(const char *what, const char *help, int column);
/* Prints every row of a table with its current value. */
void geul_option_list(const struct geul_option *rows, const void *settings);

#endif

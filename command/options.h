/* options.h: parses the command line by a subcommand's table of options. */
#ifndef GEUL_OPTIONS_H
#define GEUL_OPTIONS_H

#include "command/option_rows.h"

enum { GEUL_ARGS_MAX = 1024 };

/* Fills settings, which hold the defaults, from argv[1..]; words that are not options go to args. true: run. false:
 * the help was printed or the usage is wrong, and *code is the exit code. */
bool geul_options_parse(const struct geul_command_help *help, int argc, char **argv, void *settings,
                        const char *args[GEUL_ARGS_MAX], int *n_args, int *code);
/* One setting by a name of its row, without the dashes. false after a message. */
bool geul_option_set(const struct geul_option *rows, void *settings, const char *name, const char *value);
/* Calls on_name for the first long name of every row, without the dashes. */
void geul_option_each_setting(const struct geul_option *rows, void (*on_name)(void *user, const char *name, size_t n),
                              void *user);
/* The name most like word, NULL when none is near. */
const char *geul_option_nearest(const char *word, const char *const *names, int n);

#endif

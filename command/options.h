/* options.h: one table of options per subcommand; it parses the command line and prints the help. */
#ifndef GEUL_OPTIONS_H
#define GEUL_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum geul_option_kind {
    GEUL_OPTION_END,    /* after the last row */
    GEUL_OPTION_FLAG,   /* bool: present or not */
    GEUL_OPTION_INT,    /* int in [low, high] */
    GEUL_OPTION_REAL,   /* float in [low, high] */
    GEUL_OPTION_SEED,   /* struct geul_seed: 0 to 2^63 - 1 */
    GEUL_OPTION_TEXT,   /* const char * */
    GEUL_OPTION_CHOICE, /* const char *, one of choices */
    GEUL_OPTION_LIST,   /* struct geul_text_list: may be given several times */
    GEUL_OPTION_GROUP,  /* the rows of another table, whose settings lie at offset */
};

struct geul_seed {
    uint64_t value;
    bool given;
};

enum { GEUL_TEXT_LIST_MAX = 32 };
struct geul_text_list {
    const char *items[GEUL_TEXT_LIST_MAX];
    int n;
};

struct geul_option {
    enum geul_option_kind kind;
    const char *names; /* "-m, --model" */
    const char *value; /* what the help calls the value: "FILE" */
    size_t offset;     /* of the field in the settings */
    const char *help;
    double low, high;
    const char *const *choices; /* NULL at the end */
    const struct geul_option *group;
    bool required;
};

struct geul_command_help {
    const char *name;
    const char *usage;   /* "DIR -o FILE [options]" */
    const char *summary; /* one line, no full stop */
    const char *about;   /* more to know, or NULL */
    const char *example; /* whole lines; each is printed with two spaces before it */
    const struct geul_option *options;
    int min_args, max_args; /* words that are no options */
    const char *arg_name;   /* what such a word is: "a directory" */
};

enum { GEUL_ARGS_MAX = 1024 };

/* Fills settings, which hold the defaults, from argv[1..]; words that are no options go to args. true: go on. false:
 * the help was printed or the usage is wrong, and *code is the exit code. */
bool geul_options_parse(const struct geul_command_help *help, int argc, char **argv, void *settings,
                        const char *args[GEUL_ARGS_MAX], int *n_args, int *code);
/* One setting by the long name of its row, without the dashes. false after a message. */
bool geul_option_set(const struct geul_option *rows, void *settings, const char *name, const char *value);
/* Prints every row of a table with its present value. */
void geul_option_list(const struct geul_option *rows, const void *settings);
/* The name most like word, NULL when none is near. */
const char *geul_option_nearest(const char *word, const char *const *names, int n);

#endif

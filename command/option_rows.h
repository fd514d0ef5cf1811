/* option_rows.h: the options of a subcommand as rows of a table, which the command line is parsed by (options.h), and
 * help (option_help.h) and manual pages (manual.h) are printed from. */
#ifndef GEUL_OPTION_ROWS_H
#define GEUL_OPTION_ROWS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum geul_option_kind {
    GEUL_OPTION_END,    /* after the last row */
    GEUL_OPTION_FLAG,   /* bool: present or not */
    GEUL_OPTION_INT,    /* int in [low, high] */
    GEUL_OPTION_REAL,   /* float in [low, high] */
    GEUL_OPTION_SEED,   /* struct geul_seed: 0 to 2^63 - 1 */
    GEUL_OPTION_LAYERS, /* int, as n_gpu_layers of geul_model_options: a number, all, or auto */
    GEUL_OPTION_TEXT,   /* const char * */
    GEUL_OPTION_WORD,   /* struct geul_word: a copy, for settings that outlive the text they came from */
    GEUL_OPTION_CHOICE, /* const char *, one of choices */
    GEUL_OPTION_LIST,   /* struct geul_text_list: may be given several times */
    GEUL_OPTION_GROUP,  /* the rows of another table, whose settings are at offset */
};

struct geul_seed {
    uint64_t value;
    bool given;
};

enum { GEUL_WORD_SIZE = 96 };
struct geul_word {
    char text[GEUL_WORD_SIZE];
};

enum { GEUL_TEXT_LIST_MAX = 32 };
struct geul_text_list {
    const char *items[GEUL_TEXT_LIST_MAX];
    int n;
};

/* What a value names on disk, if anything. */
enum geul_option_path {
    GEUL_PATH_NONE,
    GEUL_PATH_FILE,
    GEUL_PATH_DIR,
    GEUL_PATH_FILE_OR_DIR,
    GEUL_PATH_NAME_OR_FILE, /* a name that geul knows, or a file */
};

struct geul_option {
    enum geul_option_kind kind;
    enum geul_option_path path;
    bool required;
    const char *names; /* "-m, --model" */
    const char *value; /* what the help calls the value: "FILE"; NULL for flags */
    const char *help;
    size_t offset; /* of the field in the settings */
    double low, high;
    const char *const *choices; /* NULL at the end */
    const struct geul_option *group;
};

/* The rows of tables. Before a table, `#define SETTINGS struct ...` names the struct of its fields; a row whose field
 * has the wrong type does not compile. (Of a group's field only the place is taken.) */
/* clang-format off */
#define OPTION_FIELD(type, field) _Generic(((SETTINGS *)0)->field, type: offsetof(SETTINGS, field))
#define OPTION_FLAG(words, field, text) \
    {.kind = GEUL_OPTION_FLAG, .names = words, .help = text, .offset = OPTION_FIELD(bool, field)}
#define OPTION_INT(words, field, least, most, text) \
    {.kind = GEUL_OPTION_INT, .names = words, .value = "N", .help = text, .offset = OPTION_FIELD(int, field), \
     .low = least, .high = most}
#define OPTION_REAL(words, field, least, most, text) \
    {.kind = GEUL_OPTION_REAL, .names = words, .value = "X", .help = text, .offset = OPTION_FIELD(float, field), \
     .low = least, .high = most}
#define OPTION_SEED(words, field, text) \
    {.kind = GEUL_OPTION_SEED, .names = words, .value = "N", .help = text, \
     .offset = OPTION_FIELD(struct geul_seed, field)}
#define OPTION_CHOICE(words, field, word, list, text) \
    {.kind = GEUL_OPTION_CHOICE, .names = words, .value = word, .help = text, \
     .offset = OPTION_FIELD(const char *, field), .choices = list}
#define OPTION_LAYERS(words, field, text) \
    {.kind = GEUL_OPTION_LAYERS, .names = words, .value = "N|all|auto", .help = text, \
     .offset = OPTION_FIELD(int, field), .high = 100000}
#define OPTION_TEXT(words, field, word, text) \
    {.kind = GEUL_OPTION_TEXT, .names = words, .value = word, .help = text, \
     .offset = OPTION_FIELD(const char *, field)}
#define OPTION_WORD(words, field, word, text) \
    {.kind = GEUL_OPTION_WORD, .names = words, .value = word, .help = text, \
     .offset = OPTION_FIELD(struct geul_word, field)}
#define OPTION_PATH(words, field, word, what, text) \
    {.kind = GEUL_OPTION_TEXT, .path = GEUL_PATH_##what, .names = words, .value = word, .help = text, \
     .offset = OPTION_FIELD(const char *, field)}
#define REQUIRED_PATH(words, field, word, what, text) \
    {.kind = GEUL_OPTION_TEXT, .path = GEUL_PATH_##what, .required = true, .names = words, .value = word, \
     .help = text, .offset = OPTION_FIELD(const char *, field)}
/* These may be given several times. */
#define OPTION_LIST(words, field, word, text) \
    {.kind = GEUL_OPTION_LIST, .names = words, .value = word, .help = text, \
     .offset = OPTION_FIELD(struct geul_text_list, field)}
#define OPTION_PATHS(words, field, word, what, text) \
    {.kind = GEUL_OPTION_LIST, .path = GEUL_PATH_##what, .names = words, .value = word, .help = text, \
     .offset = OPTION_FIELD(struct geul_text_list, field)}
/* The rows of another table, whose settings are the field. */
#define OPTION_GROUP(field, rows) {.kind = GEUL_OPTION_GROUP, .offset = offsetof(SETTINGS, field), .group = rows}
#define OPTION_END {.kind = GEUL_OPTION_END}
/* clang-format on */

struct geul_command_help {
    const char *name;
    const char *usage;   /* "DIR -o FILE [options]" */
    const char *summary; /* one line, no full stop */
    const char *about;   /* more to know, or NULL */
    const char *example; /* whole lines; each is printed with two spaces before it */
    const struct geul_option *options;
    int min_args, max_args; /* words that are not options */
    const char *arg_name;   /* what such a word is: "a directory" */
};

#endif

/* options.c: see options.h.
 *
 * Values are parsed straight into a struct of settings, whose fields the rows name by offset; a group adds the offset
 * of its own struct, so tables nest as their structs do. Texts are not copied: they stay pointers into argv (or into
 * the text of a settings file), which must outlive the settings. */
#include "command/options.h"

#include "command/habits.h"
#include "command/manual.h"
#include "command/option_help.h"
#include "command/report.h"

#include "geul.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { NAMES_MAX = 128 };

/* The next name of a row ("-m" of "-m, --model"); *at starts at names. NULL at the end. */
static const char *next_name(const char **at, size_t *length)
{
    const char *name = *at + strspn(*at, ", ");
    *length = strcspn(name, ", ");
    *at = name + *length;
    return *length ? name : NULL;
}

/* The row with that name and the address of its settings; NULL when there is none. */
static const struct geul_option *find(const struct geul_option *rows, char *base, const char *name, size_t length,
                                      char **field)
{
    for (; rows->kind != GEUL_OPTION_END; rows++) {
        if (rows->kind == GEUL_OPTION_GROUP) {
            const struct geul_option *found = find(rows->group, base + rows->offset, name, length, field);
            if (found)
                return found;
            continue;
        }
        size_t n;
        for (const char *at = rows->names, *known; (known = next_name(&at, &n));)
            if (n == length && memcmp(known, name, n) == 0) {
                *field = base + rows->offset;
                return rows;
            }
    }
    return NULL;
}

/* Appends the names of all rows to list; they live in pool. */
static int all_names(const struct geul_option *rows, const char **list, int n, char (*pool)[32])
{
    for (; rows->kind != GEUL_OPTION_END; rows++) {
        if (rows->kind == GEUL_OPTION_GROUP) {
            n = all_names(rows->group, list, n, pool);
            continue;
        }
        size_t length;
        for (const char *at = rows->names, *name; n < NAMES_MAX && (name = next_name(&at, &length)); n++) {
            snprintf(pool[n], sizeof pool[n], "%.*s", (int)length, name);
            list[n] = pool[n];
        }
    }
    return n;
}

/* Number of single-character changes from a to b (Levenshtein); words longer than 31 bytes count as far away. row[j] is
 * the distance from the first i characters of a to the first j of b; diagonal is row[j - 1] of the row before. */
static int distance(const char *a, const char *b)
{
    size_t na = strlen(a), nb = strlen(b);
    int row[32];
    if (na > 31 || nb > 31)
        return 99;
    for (size_t j = 0; j <= nb; j++)
        row[j] = (int)j;
    for (size_t i = 1; i <= na; i++) {
        int diagonal = row[0];
        row[0] = (int)i;
        for (size_t j = 1; j <= nb; j++) {
            int change = diagonal + (a[i - 1] != b[j - 1]);
            diagonal = row[j];
            int other = (row[j] < row[j - 1] ? row[j] : row[j - 1]) + 1;
            row[j] = change < other ? change : other;
        }
    }
    return row[nb];
}

const char *geul_option_nearest(const char *word, const char *const *names, int n)
{
    const char *best = NULL;
    int least = (int)strlen(word) / 3 + 1; /* changes at most: about one in three characters */
    for (int i = 0; i < n; i++) {
        int d = distance(word, names[i]);
        if (d <= least && (!best || d < least)) {
            least = d;
            best = names[i];
        }
    }
    return best;
}

static int unknown_option(const struct geul_command_help *help, const char *word, size_t length)
{
    char name[64], pool[NAMES_MAX][32];
    const char *names[NAMES_MAX];
    snprintf(name, sizeof name, "%.*s", (int)length, word);
    const char *nearest = geul_option_nearest(name, names, all_names(help->options, names, 0, pool));
    if (nearest)
        return geul_report_usage("there is no option %s; did you mean %s?", name, nearest);
    return geul_report_usage("there is no option %s", name);
}

/* A whole number into *out. Returns 0, or 2 after a message. */
static int parse_int(const struct geul_option *o, const char *name, const char *text, int *out)
{
    char *end;
    errno = 0;
    long long v = strtoll(text, &end, 10);
    if (end == text || *end)
        return geul_report_usage("%s: \"%s\" is not a whole number", name, text);
    if (errno || (double)v < o->low || (double)v > o->high)
        return geul_report_usage("%s: %s is outside %.0f to %.0f", name, text, o->low, o->high);
    *out = (int)v;
    return 0;
}

static int parse_real(const struct geul_option *o, const char *name, const char *text, float *out)
{
    char *end;
    double v = strtod(text, &end);
    if (end == text || *end || !isfinite(v))
        return geul_report_usage("%s: \"%s\" is not a number", name, text);
    if (v < o->low || v > o->high)
        return geul_report_usage("%s: %s is outside %g to %g", name, text, o->low, o->high);
    *out = (float)v;
    return 0;
}

static int parse_seed(const char *name, const char *text, struct geul_seed *out)
{
    char *end;
    errno = 0;
    if (strcmp(text, "-1") == 0) { /* llama.cpp's word for a new one each time */
        *out = (struct geul_seed){0, false};
        return 0;
    }
    unsigned long long v = strtoull(text, &end, 10);
    if (end == text || *end || errno || text[0] == '-' || v > INT64_MAX) /* JSON libraries know signed numbers only */
        return geul_report_usage("%s: \"%s\" is not a whole number from 0 to 2^63 - 1, nor -1", name, text);
    *out = (struct geul_seed){v, true};
    return 0;
}

/* The range is that of the numbers. */
static int parse_layers(const struct geul_option *o, const char *name, const char *text, int *out)
{
    int n;
    if (strcmp(text, "all") == 0 || strcmp(text, "auto") == 0) {
        *out = text[1] == 'l' ? GEUL_LAYERS_ALL : GEUL_LAYERS_AUTO;
        return 0;
    }
    if (text[strspn(text, "+-0123456789")])
        return geul_report_usage("%s: \"%s\" is neither a whole number nor all nor auto", name, text);
    int code = parse_int(o, name, text, &n);
    if (code == 0)
        *out = n ? n : GEUL_LAYERS_NONE;
    return code;
}

static int parse_word(const char *name, const char *text, struct geul_word *out)
{
    if (strlen(text) >= sizeof out->text)
        return geul_report_usage("%s: \"%.40s...\" is too long", name, text);
    strcpy(out->text, text);
    return 0;
}

static int parse_choice(const struct geul_option *o, const char *name, const char *text, const char **out)
{
    char all[256] = "";
    for (int i = 0; o->choices[i]; i++) {
        if (strcmp(o->choices[i], text) == 0) {
            *out = o->choices[i];
            return 0;
        }
        size_t n = strlen(all);
        snprintf(all + n, sizeof all - n, "%s%s", i ? ", " : "", o->choices[i]);
    }
    return geul_report_usage("%s: \"%s\" is not one of %s", name, text, all);
}

/* Stores the value of one option. Returns 0, or 2 after a message. */
static int store(const struct geul_option *o, const char *name, const char *text, char *field)
{
    struct geul_text_list *list;
    text = geul_habit_value(o->names, text);
    switch (o->kind) {
    case GEUL_OPTION_INT:
        return parse_int(o, name, text, (int *)(void *)field);
    case GEUL_OPTION_REAL:
        return parse_real(o, name, text, (float *)(void *)field);
    case GEUL_OPTION_SEED:
        return parse_seed(name, text, (struct geul_seed *)(void *)field);
    case GEUL_OPTION_LAYERS:
        return parse_layers(o, name, text, (int *)(void *)field);
    case GEUL_OPTION_CHOICE:
        return parse_choice(o, name, text, (const char **)(void *)field);
    case GEUL_OPTION_WORD:
        return parse_word(name, text, (struct geul_word *)(void *)field);
    case GEUL_OPTION_FLAG: /* only in a settings file: on the command line a flag has no value */
        if (strcmp(text, "on") != 0 && strcmp(text, "off") != 0)
            return geul_report_usage("%s: \"%s\" is neither on nor off", name, text);
        *(bool *)(void *)field = strcmp(text, "on") == 0;
        return 0;
    case GEUL_OPTION_LIST:
        list = (struct geul_text_list *)(void *)field;
        if (list->n == GEUL_TEXT_LIST_MAX)
            return geul_report_usage("%s can be given at most %d times", name, GEUL_TEXT_LIST_MAX);
        list->items[list->n++] = text;
        return 0;
    default:
        *(const char **)(void *)field = text;
        return 0;
    }
}

/* The row that a name means to users of other programs in this subcommand; NULL when there is none. */
static const struct geul_habit *find_habit(const struct geul_option *rows, void *settings, const char *name)
{
    const struct geul_habit *h;
    char *field;
    for (size_t i = 0; (h = geul_habit_at(i)); i++)
        if (strcmp(h->name, name) == 0 && find(rows, settings, h->with, strlen(h->with), &field))
            return h;
    return NULL;
}

/* The option of that name, with '_' for '-' as Python's programs spell it, or by another program's name for it; *habit:
 * the row that says so, or what else is said of the name, NULL without one. NULL when there is no such option here. */
static const struct geul_option *find_any(const struct geul_option *rows, char *settings, const char *name,
                                          char **field, const struct geul_habit **habit)
{
    char dashed[64];
    *habit = NULL;
    const struct geul_option *o = find(rows, settings, name, strlen(name), field);
    if (o)
        return o;
    snprintf(dashed, sizeof dashed, "%s", name);
    for (char *c = dashed; *c; c++)
        *c = *c == '_' ? '-' : *c;
    o = find(rows, settings, dashed, strlen(dashed), field);
    if (o)
        return o;
    *habit = find_habit(rows, settings, dashed);
    if (!*habit || (*habit)->kind != GEUL_HABIT_SAME)
        return NULL;
    const char *same = (*habit)->same ? (*habit)->same : (*habit)->with;
    return find(rows, settings, same, strlen(same), field);
}

/* Another program's option without an equal here. Returns 0, or 2 after a message. */
static int answer_habit(const struct geul_habit *h, const char *name, bool equals, int argc, char **argv, int *i)
{
    if (h->kind == GEUL_HABIT_REFUSE)
        return geul_report_usage("%s: %s", name, h->text);
    if (h->kind == GEUL_HABIT_NOTE)
        geul_report_note("%s: %s", name, h->text);
    bool more = *i + 1 < argc;
    if (!equals && more &&
        (h->takes == GEUL_HABIT_VALUE || (h->takes == GEUL_HABIT_SWITCH && geul_habit_is_switch(argv[*i + 1]))))
        ++*i;
    return 0;
}

/* Parses the option at argv[*i]; its value is after "=" (long names only) or in the next word, which *i then moves to.
 * The next word is the value even when it begins with "-": `--lr-floor -1` has to be refused as a number, not as an
 * unknown option. Returns 0, or 2 after a message. */
static int parse_option(const struct geul_command_help *help, int argc, char **argv, int *i, char *settings)
{
    const char *word = argv[*i], *equals = strncmp(word, "--", 2) == 0 ? strchr(word, '=') : NULL;
    size_t length = equals ? (size_t)(equals - word) : strlen(word);
    char *field, name[64];
    const struct geul_habit *habit;
    snprintf(name, sizeof name, "%.*s", (int)length, word);
    const struct geul_option *o = find_any(help->options, settings, name, &field, &habit);
    if (!o && habit)
        return answer_habit(habit, name, equals, argc, argv, i);
    if (!o)
        return unknown_option(help, word, length);
    if (o->kind == GEUL_OPTION_FLAG) {
        if (equals)
            return geul_report_usage("%s takes no value", name);
        *(bool *)(void *)field = true;
        return 0;
    }
    if (!equals && *i + 1 >= argc)
        return geul_report_usage("%s needs a value (%s)", name, o->value);
    return store(o, name, equals ? equals + 1 : argv[++*i], field);
}

void geul_option_each_setting(const struct geul_option *rows, void (*on_name)(void *user, const char *name, size_t n),
                              void *user)
{
    for (; rows->kind != GEUL_OPTION_END; rows++) {
        const char *name = rows->kind == GEUL_OPTION_GROUP ? NULL : strstr(rows->names, "--");
        if (rows->kind == GEUL_OPTION_GROUP)
            geul_option_each_setting(rows->group, on_name, user);
        else if (name)
            on_name(user, name + 2, strcspn(name + 2, ", "));
    }
}

/* The names of settings as texts. */
struct setting_names {
    char pool[NAMES_MAX][32];
    const char *list[NAMES_MAX];
    int n;
};

static void add_setting_name(void *user, const char *name, size_t n)
{
    struct setting_names *names = user;
    if (names->n == NAMES_MAX)
        return;
    snprintf(names->pool[names->n], sizeof *names->pool, "%.*s", (int)n, name);
    names->list[names->n] = names->pool[names->n];
    names->n++;
}

bool geul_option_set(const struct geul_option *rows, void *settings, const char *name, const char *value)
{
    char full[64], *field;
    snprintf(full, sizeof full, "--%s", name);
    const struct geul_habit *habit;
    const struct geul_option *o = find_any(rows, settings, full, &field, &habit);
    if (!o) /* "n" for -n */
        o = find(rows, settings, full + 1, strlen(full + 1), &field);
    if (!o) {
        struct setting_names names = {.n = 0};
        geul_option_each_setting(rows, add_setting_name, &names);
        const char *nearest = geul_option_nearest(name, names.list, names.n);
        if (nearest)
            geul_report_error("there is no setting \"%s\"; did you mean \"%s\"?", name, nearest);
        else
            geul_report_error("there is no setting \"%s\"", name);
        return false;
    }
    return store(o, name, value, field) == 0;
}

/* The first required option without a value; NULL when all are there. */
static const struct geul_option *missing(const struct geul_option *rows, const char *settings)
{
    for (; rows->kind != GEUL_OPTION_END; rows++) {
        const struct geul_option *inner =
            rows->kind == GEUL_OPTION_GROUP ? missing(rows->group, settings + rows->offset) : NULL;
        if (inner)
            return inner;
        if (rows->required && !*(const char *const *)(const void *)(settings + rows->offset))
            return rows;
    }
    return NULL;
}

/* Prints the help when one of the words (before any "--") is -h or --help, and the manual page for --help=man. */
static bool gave_help(const struct geul_command_help *help, int argc, char **argv, const void *settings)
{
    for (int i = 1; i < argc && strcmp(argv[i], "--") != 0; i++) {
        bool manual = strcmp(argv[i], "--help=man") == 0;
        if (manual)
            geul_manual_print(help, settings);
        else if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0)
            geul_option_print_help(help, settings);
        else
            continue;
        return true;
    }
    return false;
}

bool geul_options_parse(const struct geul_command_help *help, int argc, char **argv, void *settings,
                        const char *args[GEUL_ARGS_MAX], int *n_args, int *code)
{
    *code = 0;
    *n_args = 0;
    /* Before anything is parsed: help shows the defaults, and helps against a wrong command line. */
    if (gave_help(help, argc, argv, settings))
        return false;
    bool options = true;
    for (int i = 1; i < argc && *code == 0; i++) {
        if (options && strcmp(argv[i], "--") == 0)
            options = false;
        else if (options && argv[i][0] == '-' && argv[i][1])
            *code = parse_option(help, argc, argv, &i, settings);
        else if (*n_args < help->max_args)
            args[(*n_args)++] = argv[i];
        else
            *code = geul_report_usage("\"%s\" is one argument too many", argv[i]);
    }
    const struct geul_option *gap = *code == 0 ? missing(help->options, settings) : NULL;
    if (gap)
        *code = geul_report_usage("%s %s is missing", gap->names, gap->value);
    else if (*code == 0 && *n_args < help->min_args)
        *code = geul_report_usage("%s is missing", help->arg_name);
    return *code == 0;
}

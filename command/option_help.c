/* option_help.c: see option_help.h. */
#include "command/option_help.h"

#include "command/terminal.h"

#include "geul.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* On a narrow terminal help stands below what it explains. */
enum { HELP_COLUMN = 28, LIST_COLUMN = 33, HELP_WIDTH = 79, NARROW = 60, NARROW_COLUMN = 6 };

const struct geul_option geul_option_help_rows[] = {
    {.kind = GEUL_OPTION_FLAG, .names = "-h, --help", .help = "show this help"},
    OPTION_END,
};

/* The value of a row as text; "" when it has none or is a list. */
static void value_text(const struct geul_option *o, const char *field, char *text, size_t size)
{
    const char *s;
    const struct geul_seed *seed;
    int n;
    text[0] = '\0';
    switch (o->kind) {
    case GEUL_OPTION_INT:
        snprintf(text, size, "%d", *(const int *)(const void *)field);
        break;
    case GEUL_OPTION_LAYERS:
        n = *(const int *)(const void *)field;
        snprintf(text, size, "%d", n > 0 ? n : 0);
        if (n == GEUL_LAYERS_ALL || n == GEUL_LAYERS_AUTO)
            snprintf(text, size, "%s", n == GEUL_LAYERS_ALL ? "all" : "auto");
        break;
    case GEUL_OPTION_REAL:
        snprintf(text, size, "%g", (double)*(const float *)(const void *)field);
        break;
    case GEUL_OPTION_SEED:
        seed = (const struct geul_seed *)(const void *)field;
        if (seed->given)
            snprintf(text, size, "%llu", (unsigned long long)seed->value);
        break;
    case GEUL_OPTION_WORD:
        snprintf(text, size, "%s", ((const struct geul_word *)(const void *)field)->text);
        break;
    case GEUL_OPTION_TEXT:
    case GEUL_OPTION_CHOICE:
        s = *(const char *const *)(const void *)field;
        snprintf(text, size, "%s", s ? s : "");
        break;
    default:
        break;
    }
}

/* The most columns of a line: HELP_WIDTH, less where the terminal has less. */
static int help_width(void)
{
    int width = geul_terminal_width(STDOUT_FILENO) - 1;
    return width < HELP_WIDTH ? width : HELP_WIDTH;
}

/* Prints text in lines of at most help_width() that begin at column `indent`; the first one continues at column `at`.
 */
static void print_wrapped(const char *text, int at, int indent)
{
    int width = help_width();
    printf("%*s", indent > at ? indent - at : 0, "");
    int first = at > indent ? at : indent;
    at = first;
    while (*text) {
        int n = (int)strcspn(text, " ");
        if (at + 1 + n > width && at > first) {
            printf("\n%*s", indent, "");
            at = first = indent;
        }
        printf("%s%.*s", at > first ? " " : "", n, text);
        at += n + (at > first);
        text += n + (text[n] == ' ');
    }
    putchar('\n');
}

void geul_option_print_row(const char *what, const char *help, int column)
{
    bool narrow = help_width() < NARROW;
    int at = printf("  %s", what);
    if (narrow)
        column = NARROW_COLUMN;
    if (at > column - 2) {
        putchar('\n');
        at = 0;
    }
    print_wrapped(help, at, column);
}

void geul_option_list(const struct geul_option *rows, const void *settings)
{
    for (; rows->kind != GEUL_OPTION_END; rows++) {
        char value[GEUL_WORD_SIZE], what[32 + GEUL_WORD_SIZE];
        if (rows->kind == GEUL_OPTION_GROUP) {
            geul_option_list(rows->group, (const char *)settings + rows->offset);
            continue;
        }
        const char *name = strstr(rows->names, "--");
        value_text(rows, (const char *)settings + rows->offset, value, sizeof value);
        int length = name ? (int)strcspn(name + 2, ",") : 0;
        snprintf(what, sizeof what, "%-18.*s %s", length, name ? name + 2 : "", value);
        geul_option_print_row(what, rows->help, LIST_COLUMN);
    }
}

void geul_option_help(const struct geul_option *row, const char *settings, char line[GEUL_OPTION_HELP_MAX])
{
    char value[GEUL_WORD_SIZE];
    value_text(row, settings + row->offset, value, sizeof value);
    snprintf(line, GEUL_OPTION_HELP_MAX, "%s%s%s%s", row->help, *value ? " (default " : "", value, *value ? ")" : "");
}

static void print_rows(const struct geul_option *rows, const char *settings)
{
    for (; rows->kind != GEUL_OPTION_END; rows++) {
        if (rows->kind == GEUL_OPTION_GROUP) {
            print_rows(rows->group, settings + rows->offset);
            continue;
        }
        char line[GEUL_OPTION_HELP_MAX], what[256];
        snprintf(what, sizeof what, "%s%s%s", rows->names, rows->value ? " " : "", rows->value ? rows->value : "");
        geul_option_help(rows, settings, line);
        geul_option_print_row(what, line, HELP_COLUMN);
    }
}

/* Prints every line of text with two spaces before it. */
static void print_indented(const char *text)
{
    while (*text) {
        int n = (int)strcspn(text, "\n");
        printf("  %.*s\n", n, text);
        text += n + (text[n] == '\n');
    }
}

void geul_option_print_help(const struct geul_command_help *help, const void *settings)
{
    print_wrapped(help->summary, printf("geul %s: ", help->name), 0);
    printf("\n  geul %s %s\n\n", help->name, help->usage);
    if (help->about) {
        print_wrapped(help->about, 0, 0);
        putchar('\n');
    }
    printf("Options:\n");
    print_rows(help->options, settings);
    print_rows(geul_option_help_rows, settings);
    printf("\nExample:\n");
    print_indented(help->example);
}

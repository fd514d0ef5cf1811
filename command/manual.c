/* manual.c: see manual.h. Lines that begin with a point are requests of man(7); text never begins a line of its own
 * with one, because geul_manual_text() writes an invisible character before it. */
#include "command/manual.h"

#include "command/option_help.h"

#include "geul.h"

#include <stdio.h>
#include <string.h>

/* The roff escapes of the characters that would otherwise not be printed as themselves. */
static const char *escaped(char c)
{
    switch (c) {
    case '\\':
        return "\\e";
    case '-':
        return "\\-";
    case '\'':
        return "\\(aq";
    case '`':
        return "\\(ga";
    case '^':
        return "\\(ha";
    case '~':
        return "\\(ti";
    default:
        return NULL;
    }
}

void geul_manual_text(const char *text)
{
    char before = '\n';
    for (; *text; before = *text++) {
        const char *s = escaped(*text);
        if (before == '\n' && (*text == '.' || *text == '\''))
            printf("\\&");
        if (s)
            printf("%s", s);
        else
            putchar(*text);
    }
}

void geul_manual_begin(const char *name, const char *summary, const char *usage)
{
    printf(".TH \"%s\" 1 \"\" \"geul %s\"\n.SH NAME\n", name, geul_version());
    geul_manual_text(name);
    printf(" \\- ");
    geul_manual_text(summary);
    printf("\n.SH SYNOPSIS\n");
    geul_manual_text(usage);
    putchar('\n');
}

/* "-m, --model" with every name in bold. */
static void print_names(const char *names)
{
    for (size_t n; *names; names += n) {
        char name[64];
        n = strcspn(names, ", ");
        snprintf(name, sizeof name, "%.*s", (int)n, names);
        printf("\\fB");
        geul_manual_text(name);
        printf("\\fR");
        size_t gap = strspn(names + n, ", ");
        printf("%.*s", (int)gap, names + n);
        n += gap;
    }
}

/* Prints which values a row takes; nothing where its help says so already. */
static void print_allowed(const struct geul_option *o)
{
    static const char *const paths[] = {
        [GEUL_PATH_FILE] = "A file.",
        [GEUL_PATH_DIR] = "A directory.",
        [GEUL_PATH_FILE_OR_DIR] = "A file or a directory.",
        [GEUL_PATH_NAME_OR_FILE] = "A name or a file.",
    };
    char text[512] = "";
    if (o->kind == GEUL_OPTION_INT)
        snprintf(text, sizeof text, "A whole number from %.0f to %.0f.", o->low, o->high);
    else if (o->kind == GEUL_OPTION_REAL)
        snprintf(text, sizeof text, "A number from %g to %g.", o->low, o->high);
    else if (o->kind == GEUL_OPTION_LAYERS)
        snprintf(text, sizeof text, "A whole number, all, or auto.");
    else if (o->kind == GEUL_OPTION_SEED)
        snprintf(text, sizeof text, "A whole number from 0 to 2^63 - 1.");
    else if (o->path != GEUL_PATH_NONE)
        snprintf(text, sizeof text, "%s", paths[o->path]);
    for (int i = 0; o->choices && o->choices[i]; i++) {
        size_t n = strlen(text);
        snprintf(text + n, sizeof text - n, "%s%s%s", i ? ", " : "One of ", o->choices[i],
                 o->choices[i + 1] ? "" : ".");
    }
    if (!*text && !o->required)
        return;
    printf(".br\n");
    geul_manual_text(text);
    printf("%s\n", o->required ? " Required." : "");
}

static void print_rows(const struct geul_option *rows, const char *settings)
{
    for (; rows->kind != GEUL_OPTION_END; rows++) {
        char line[GEUL_OPTION_HELP_MAX];
        if (rows->kind == GEUL_OPTION_GROUP) {
            print_rows(rows->group, settings + rows->offset);
            continue;
        }
        printf(".TP\n");
        print_names(rows->names);
        if (rows->value) {
            printf(" \\fI");
            geul_manual_text(rows->value);
            printf("\\fR");
        }
        putchar('\n');
        geul_option_help(rows, settings, line);
        geul_manual_text(line);
        putchar('\n');
        print_allowed(rows);
    }
}

void geul_manual_print(const struct geul_command_help *help, const void *settings)
{
    char name[64], usage[256];
    snprintf(name, sizeof name, "geul-%s", help->name);
    snprintf(usage, sizeof usage, "geul %s %s", help->name, help->usage);
    geul_manual_begin(name, help->summary, usage);
    if (help->about) {
        printf(".SH DESCRIPTION\n");
        geul_manual_text(help->about);
        putchar('\n');
    }
    printf(".SH OPTIONS\n");
    print_rows(help->options, settings);
    print_rows(geul_option_help_rows, settings);
    printf(".SH EXAMPLE\n.EX\n");
    geul_manual_text(help->example);
    printf("\n.EE\n.SH \"SEE ALSO\"\ngeul(1)\n");
}

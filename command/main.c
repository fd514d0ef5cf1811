/* main.c: picks the subcommand. */
#include "command/command.h"
#include "command/manual.h"
#include "command/options.h"
#include "command/report.h"
#include "command/terminal.h"

#include "geul.h"

#include <stdio.h>
#include <string.h>

static const struct {
    const char *name, *summary;
    int (*run)(int argc, char **argv);
} commands[] = {
#define COMMAND(id, summary) {#id, summary, geul_cmd_##id},
#include "command/commands.def"
#undef COMMAND
};

enum { N_COMMANDS = sizeof commands / sizeof *commands };

static void print_help(void)
{
    printf("geul %s: runs Polyglot-Ko and other GPT-NeoX models\n\n", geul_version());
    printf("  geul SUBCOMMAND [options]\n\n");
    for (int i = 0; i < N_COMMANDS; i++)
        printf("  %-10s %s\n", commands[i].name, commands[i].summary);
    printf("\n`geul SUBCOMMAND --help` shows its options and an example.\n\nExample:\n"
           "  geul convert polyglot-ko-1.3b -o polyglot.gguf --type q8_0\n"
           "  geul complete -m polyglot.gguf -p \"한국의 수도는\" -n 64\n");
}

static void print_manual(void)
{
    geul_manual_begin("geul", "runs Polyglot-Ko and other GPT-NeoX models", "geul SUBCOMMAND [options]");
    printf(".SH SUBCOMMANDS\n");
    for (int i = 0; i < N_COMMANDS; i++) {
        printf(".TP\n\\fBgeul\\-%s\\fR(1)\n", commands[i].name);
        geul_manual_text(commands[i].summary);
        putchar('\n');
    }
}

/* Row of the subcommand, -1 when there is none. */
static int find_command(const char *name)
{
    for (int i = 0; i < N_COMMANDS; i++)
        if (strcmp(commands[i].name, name) == 0)
            return i;
    return -1;
}

static int unknown_command(const char *name)
{
    const char *names[N_COMMANDS];
    for (int i = 0; i < N_COMMANDS; i++)
        names[i] = commands[i].name;
    const char *nearest = geul_option_nearest(name, names, N_COMMANDS);
    if (nearest)
        return geul_report_usage("there is no subcommand \"%s\"; did you mean \"%s\"?", name, nearest);
    return geul_report_usage("there is no subcommand \"%s\"", name);
}

int main(int argc, char **argv)
{
    geul_terminal_start();
    if (argc > 0)
        geul_report_set_program(argv[0]);
    geul_report_set_command(NULL);
    int code;
    const char *word = argc > 1 ? argv[1] : "--help";
    /* `geul help NAME` is `geul NAME --help`; the cast is safe, since no subcommand changes its arguments then. */
    char *help[2] = {argc > 2 ? argv[2] : NULL, (char *)(uintptr_t) "--help"};
    if (strcmp(word, "--version") == 0 || strcmp(word, "version") == 0) {
        printf("geul %s\n", geul_version());
        code = 0;
    } else if (strcmp(word, "help") == 0 && argc > 2 && argv[2][0] != '-' && find_command(argv[2]) < 0) {
        code = unknown_command(argv[2]);
    } else if (strcmp(word, "help") == 0 && argc > 2 && argv[2][0] != '-') {
        geul_report_set_command(argv[2]);
        code = commands[find_command(argv[2])].run(2, help);
    } else if (strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0 || strcmp(word, "help") == 0) {
        print_help();
        code = 0;
    } else if (strcmp(word, "--help=man") == 0) {
        print_manual();
        code = 0;
    } else if (find_command(word) >= 0) {
        geul_report_set_command(word);
        code = commands[find_command(word)].run(argc - 1, argv + 1);
    } else if (word[0] == '-') {
        code = geul_report_usage("there is no option %s before the subcommand", word);
    } else {
        code = unknown_command(word);
    }
    return geul_report_end(code);
}

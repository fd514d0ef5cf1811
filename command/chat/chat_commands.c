/* chat_commands.c: the lines that begin with "/". */
#include "command/chat/chat.h"

#include "command/option_help.h"
#include "command/options.h"
#include "command/report.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SETTINGS struct geul_chat_settings
/* clang-format off */
const struct geul_option geul_chat_options[] = {
    OPTION_INT("-n, --predict, --n-predict", n_predict, -1, 1 << 30,
               "most tokens of an answer, -1: until it ends or the context is full"),
    OPTION_GROUP(sampling, geul_sampling_options),
    OPTION_END,
};
/* clang-format on */

static void do_help(struct geul_chat *c, const char *rest);

static void do_exit(struct geul_chat *c, const char *rest)
{
    (void)rest;
    c->done = true;
}

static void do_reset(struct geul_chat *c, const char *rest)
{
    (void)rest;
    geul_chat_drop_all(c);
    printf("The conversation is empty.\n");
}

/* Whether the template has a place for the system text. */
static bool takes_system_text(struct geul_chat *c)
{
    if (!geul_chat_push(c, ""))
        return true;
    char *prompt = geul_chat_prompt(c, c->n_turns - 1);
    bool found = !prompt || strstr(prompt, c->system);
    free(prompt);
    geul_chat_drop_last(c);
    return found;
}

static void do_system(struct geul_chat *c, const char *rest)
{
    if (!*rest) {
        const char *text = c->system ? c->system : "There is no system text; /system TEXT sets one.";
        geul_report_clean(stdout, text, strlen(text));
        putchar('\n');
        return;
    }
    free(c->system);
    c->system = strcmp(rest, "-") == 0 ? NULL : geul_chat_text(c, rest);
    if (c->system && !takes_system_text(c)) {
        geul_report_error("the template %s has no place for a system text", geul_template_name(c->form));
        free(c->system);
        c->system = NULL;
    } else {
        printf(c->system ? "The system text precedes the conversation from now on.\n"
                         : "The system text has been removed.\n");
    }
}

static void do_retry(struct geul_chat *c, const char *rest)
{
    (void)rest;
    if (c->n_turns == 0) {
        geul_report_error("there is no answer yet");
        return;
    }
    free(c->turns[c->n_turns - 1].answer);
    c->turns[c->n_turns - 1].answer = NULL;
    geul_chat_answer(c);
}

static void do_undo(struct geul_chat *c, const char *rest)
{
    (void)rest;
    if (c->n_turns == 0) {
        geul_report_error("there is nothing to undo");
        return;
    }
    geul_chat_drop_last(c);
    printf("The last turn has been removed; %d left.\n", c->n_turns);
}

static void do_save(struct geul_chat *c, const char *rest)
{
    if (!*rest)
        geul_report_error("/save needs a file name");
    else if (geul_chat_save(c, rest))
        printf("%d turn%s saved to %s.\n", c->n_turns, c->n_turns == 1 ? "" : "s", rest);
}

static void do_load(struct geul_chat *c, const char *rest)
{
    if (!*rest)
        geul_report_error("/load needs a file name");
    else if (geul_chat_load(c, rest))
        printf("%d turn%s loaded from %s.\n", c->n_turns, c->n_turns == 1 ? "" : "s", rest);
}

static void do_set(struct geul_chat *c, const char *rest)
{
    char name[32];
    size_t n = strcspn(rest, " \t=");
    const char *value = rest + n + strspn(rest + n, " \t=");
    if (!*rest) {
        geul_option_list(geul_chat_options, &c->settings);
        return;
    }
    if (!*value) {
        geul_report_error("/set needs a name and a value, for instance /set temp 0.2; /set alone lists all");
        return;
    }
    snprintf(name, sizeof name, "%.*s", (int)(n < sizeof name ? n : sizeof name - 1), rest);
    struct geul_chat_settings before = c->settings;
    if (!geul_option_set(geul_chat_options, &c->settings, name, value))
        return;
    if (geul_sampling_args_order(&c->settings.sampling) != 0) {
        c->settings = before;
        return;
    }
    if (c->settings.n_predict == 0)
        c->settings.n_predict = -1;
    printf("%s is %s.\n", name, value);
}

static const struct {
    const char *name, *argument, *help;
    void (*run)(struct geul_chat *c, const char *rest);
} commands[] = {
    {"/help", "", "shows this list", do_help},
    {"/reset", "", "clears the conversation", do_reset},
    {"/system", "[TEXT]", "shows or sets the text before the conversation, - for none", do_system},
    {"/retry", "", "answers the last question again", do_retry},
    {"/undo", "", "removes the last question and its answer", do_undo},
    {"/save", "FILE", "writes the conversation as JSON", do_save},
    {"/load", "FILE", "continues a saved conversation", do_load},
    {"/set", "[NAME VALUE]", "lists or changes settings, for instance /set temp 0.2", do_set},
    {"/exit", "", "leaves, as Ctrl-D does", do_exit},
};
enum { N_COMMANDS = sizeof commands / sizeof *commands };

static void do_help(struct geul_chat *c, const char *rest)
{
    (void)c, (void)rest;
    for (int i = 0; i < N_COMMANDS; i++)
        printf("  %-8s %-13s %s\n", commands[i].name, commands[i].argument, commands[i].help);
    printf("Ctrl-C stops an answer. Type \"//\" to begin a question with \"/\".\n");
}

void geul_chat_command(struct geul_chat *c, const char *line)
{
    char name[32];
    size_t n = strcspn(line, " \t");
    const char *names[N_COMMANDS], *rest = line + n + strspn(line + n, " \t");
    snprintf(name, sizeof name, "%.*s", (int)(n < sizeof name ? n : sizeof name - 1), line);
    for (int i = 0; i < N_COMMANDS; i++) {
        names[i] = commands[i].name;
        if (strcmp(name, names[i]) == 0) {
            commands[i].run(c, rest);
            geul_report_text("", 0);
            return;
        }
    }
    const char *nearest = geul_option_nearest(name, names, N_COMMANDS);
    geul_report_error("there is no %s; %s%s", name, nearest ? "did you mean " : "/help lists the commands",
                      nearest ? nearest : "");
}

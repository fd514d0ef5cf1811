/* cmd_chat.c: `geul chat`, a conversation with a model. */
#include "command/chat/chat.h"
#include "command/command.h"
#include "command/fit_report.h"
#include "command/report.h"
#include "command/terminal.h"
#include "command/text_input.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct settings {
    struct geul_model_args model;
    struct geul_chat_settings chat;
    struct geul_draft_args draft;
    const char *template_name, *system, *nfc;
    bool ignore_eos, json;
};

#define SETTINGS struct settings
/* clang-format off */
static const struct geul_option options[] = {
    OPTION_PATH("--template",     template_name, "NAME", NAME_OR_FILE,
                "koalpaca, kullm, kgoat, a file with {instruction} and {output}, none, or auto for the model's own"),
    OPTION_TEXT("-sys, --system", system,        "TEXT", "text before the conversation, as /system sets it"),
    OPTION_FLAG("--ignore-eos",   ignore_eos,    "does not stop an answer at <|endoftext|>"),
    GEUL_NFC_OPTION("questions and the system text"),
    OPTION_FLAG("--json",         json,          "prints each answer as a line of JSON with token ids and timings"),
    OPTION_FLAG("--fit",          model.fit,     GEUL_FIT_HELP),
    OPTION_GROUP(model, geul_any_model_options),
    OPTION_GROUP(chat, geul_chat_options),
    OPTION_GROUP(draft, geul_draft_options),
    OPTION_END,
};
/* clang-format on */

static const struct geul_command_help help = {
    .name = "chat",
    .usage = "[-m FILE] [options]",
    .summary = "talk with a model",
    .about = "Questions come from the terminal, or one per line from standard input; three quotes begin and end one of "
             "several lines, and a line with \\ at its end goes on in the next. /help lists the commands that can be "
             "typed. Without -m the small model that comes with geul answers.",
    .example = "geul chat -m koalpaca.gguf --temp 0.7 --top-p 0.9\n"
               "echo 안녕 | geul chat -m koalpaca.gguf",
    .options = options,
};

enum { BASE_TOKENS = 128 }; /* a base model has no reason to stop */

/* Chooses the template and prints which. false after a message. */
static bool choose_template(struct geul_chat *c, const char *name)
{
    bool automatic = strcmp(name, "auto") == 0;
    if (strcmp(name, "none") != 0 && !geul_template_open(c->loaded.ctx, c->loaded.model, name, &c->form))
        return false;
    if (c->form)
        fprintf(stderr, "template: %s%s\n", automatic ? geul_template_name(c->form) : name,
                automatic ? " (from the file)" : "");
    else
        fprintf(stderr, "template: none%s; the model continues what you write\n", automatic ? " (a base model)" : "");
    if (!c->form && c->settings.n_predict < 0)
        c->settings.n_predict = BASE_TOKENS;
    return true;
}

/* Reads and answers until the end. */
static void converse(struct geul_chat *c, struct geul_chat_line *lines)
{
    struct geul_chat_input input;
    while (!c->done && geul_chat_line_read(lines, &input)) {
        if (input.text[strspn(input.text, " \t\r\n")] == '\0')
            continue;
        if (input.is_command) {
            geul_chat_command(c, input.text);
            continue;
        }
        if (!geul_chat_push(c, input.text)) {
            c->code = geul_report_error("out of memory");
            return;
        }
        if (!geul_chat_answer(c))
            geul_chat_drop_last(c);
        if (!geul_report_text("", 0))
            return; /* nobody reads the output any more */
        if (geul_interrupted() && !geul_chat_line_terminal(lines)) {
            c->code = 130; /* there is nobody to write the next question */
            return;
        }
    }
}

/* Tells who is in the terminal which model answers; named: by the path -m, NULL when that was said already. */
static void greet(const struct geul_chat *c, const char *named)
{
    const char *name = geul_model_get_name(c->loaded.model);
    char text[256];
    if (named)
        fprintf(stderr, "model: %s\n", geul_printable(*name ? name : named, text, sizeof text));
    fprintf(stderr, "/help lists the commands, Ctrl-C stops an answer, Ctrl-D leaves\n");
}

int geul_cmd_chat(int argc, char **argv)
{
    struct settings s = {.model = GEUL_MODEL_ARGS_DEFAULT,
                         .chat = {.sampling = geul_sampling_args_default(), .n_predict = -1},
                         .draft = geul_draft_args_default(),
                         .template_name = "auto",
                         .nfc = "auto"};
    const char *args[GEUL_ARGS_MAX];
    int n_args, code;
    if (!geul_options_parse(&help, argc, argv, &s, args, &n_args, &code))
        return code;
    if (s.chat.n_predict == 0)
        return geul_report_usage("-n 0 leaves no room for an answer");
    const char *named = s.model.path;
    if ((code = geul_model_args_choose(&s.model)) != 0)
        return code;
    if (s.model.fit)
        return geul_fit_print(&s.model, s.json);
    if ((code = geul_sampling_args_order(&s.chat.sampling)) != 0)
        return code;
    struct geul_chat c = {.settings = s.chat,
                          .ignore_eos = s.ignore_eos,
                          .verbose = s.model.verbose,
                          .json = s.json,
                          .nfc = geul_nfc_of(s.nfc)};
    geul_interrupt_catch(5); /* Ctrl-C stops an answer; only many in a row end the program */
    geul_sampling_args_seed(&c.settings.sampling);
    code = geul_loaded_open(&s.model, true, &c.loaded);
    if (code != 0)
        return code;
    code = geul_drafter_open(&s.draft, &s.model, &c.loaded, &c.drafter);
    if (code != 0) {
        geul_loaded_close(&c.loaded);
        return code;
    }
    if (choose_template(&c, s.template_name)) {
        c.system = s.system ? geul_chat_text(&c, s.system) : NULL;
        struct geul_chat_line *lines = geul_chat_line_new(c.loaded.ctx);
        if (geul_chat_line_terminal(lines))
            greet(&c, named);
        converse(&c, lines);
        c.code = geul_chat_line_failed(lines) ? 1 : c.code;
        geul_chat_line_free(lines);
    } else {
        c.code = 1;
    }
    geul_chat_drop_all(&c);
    free(c.turns);
    free(c.system);
    geul_template_free(c.form);
    geul_drafter_close(&c.drafter);
    geul_loaded_close(&c.loaded);
    return c.code;
}

/* cmd_complete.c: `geul complete` continues a text. */
#include "command/command.h"
#include "command/chat/draft_args.h"
#include "command/fit_report.h"
#include "command/generation.h"
#include "command/model_args.h"
#include "command/progress.h"
#include "command/report.h"
#include "command/terminal.h"
#include "command/text_input.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct settings {
    struct geul_model_args model;
    struct geul_sampling_args sampling;
    struct geul_draft_args draft;
    const char *prompt, *file, *encoding, *template_name, *nfc;
    struct geul_text_list stop;
    int n_predict;
    bool echo, json, ignore_eos;
};

#define SETTINGS struct settings
/* clang-format off */
static const struct geul_option options[] = {
    OPTION_TEXT("-p, --prompt",             prompt,        "TEXT",
                "the text to continue; - reads standard input, without its last newline"),
    OPTION_PATH("-f, --file",               file,          "FILE", FILE,
                "reads the text from a file, without its last newline"),
    GEUL_ENCODING_OPTION,
    GEUL_NFC_OPTION("the text"),
    OPTION_INT( "-n, --predict, --n-predict", n_predict,     -1, 1 << 30,
                "most tokens to write, -1: until the text ends or the context is full"),
    OPTION_LIST("--stop, -r, --reverse-prompt", stop,          "TEXT",
                "stops before this text; may be given several times"),
    OPTION_FLAG("--ignore-eos",             ignore_eos,    "does not stop at <|endoftext|>"),
    OPTION_PATH("--template",               template_name, "NAME", NAME_OR_FILE,
                "puts the text into a prompt template: koalpaca, kullm, kgoat, a file with {instruction}, or auto "
                "for the model's own"),
    OPTION_FLAG("--echo",                   echo,          "prints the prompt too"),
    OPTION_FLAG("--json",                   json,          "prints text, token ids, stop reason and timings as JSON"),
    OPTION_FLAG("--fit",                    model.fit,     GEUL_FIT_HELP),
    OPTION_GROUP(model, geul_any_model_options),
    OPTION_GROUP(sampling, geul_sampling_options),
    OPTION_GROUP(draft, geul_draft_options),
    OPTION_END,
};
/* clang-format on */

static const struct geul_command_help help = {
    .name = "complete",
    .usage = "[-m FILE] -p TEXT [options]",
    .summary = "continue a text",
    .about = "Without -m the small model that comes with geul continues it.",
    .example = "geul complete -m polyglot.gguf -p \"한국의 수도는\" -n 64\n"
               "echo 오늘의 날씨는 | geul complete -m polyglot.gguf -p - --temp 0 --json\n"
               "geul complete -m polyglot-12.8b.gguf -md polyglot-1.3b.gguf -f article.txt",
    .options = options,
};

/* Replaces *prompt by itself in its template; adds the template's stop strings to stops. false after a message. */
static bool apply_template(struct geul_loaded *l, const struct settings *s, struct geul_text_list *stops,
                           struct geul_template **used, char **prompt, size_t *length)
{
    if (!s->template_name)
        return true;
    if (memchr(*prompt, '\0', *length)) {
        geul_report_error("the prompt holds a NUL byte, which a template cannot take");
        return false;
    }
    if (!geul_template_open(l->ctx, l->model, s->template_name, used))
        return false;
    if (!*used)
        return true;
    struct geul_turn turn = {.question = *prompt};
    char *text = geul_template_apply(l->ctx, *used, &turn, 1, NULL);
    char *copy = text ? strdup(text) : NULL;
    geul_text_free(l->ctx, text);
    if (!copy) {
        geul_report_error("out of memory");
        return false;
    }
    free(*prompt);
    *prompt = copy;
    *length = strlen(copy);
    int n;
    const char *const *more = geul_template_stops(*used, &n);
    for (int i = 0; i < n && stops->n < GEUL_TEXT_LIST_MAX; i++)
        stops->items[stops->n++] = more[i];
    return true;
}

static bool print_text(void *user, const char *text, size_t length)
{
    (void)user;
    geul_progress_hide();
    return geul_report_text(text, length) && !geul_interrupted();
}

/* With --json nothing is printed before the end. */
static bool collect_text(void *user, const char *text, size_t length)
{
    (void)user, (void)text, (void)length;
    geul_progress_hide();
    return !geul_interrupted();
}

static int print_json(const struct settings *s, const struct geul_loaded *l, const struct geul_ids *ids,
                      const struct geul_generation_result *r)
{
    json_t *json =
        json_pack("{s:o, s:o, s:o, s:s, s:I, s:o}", "text", geul_report_json_text(r->text, r->text_length), "tokens",
                  geul_report_json_ids(r->tokens, (size_t)r->n_generated), "prompt_tokens",
                  geul_report_json_ids(ids->data, ids->n), "stop_reason", geul_stop_reason_name(r->reason), "seed",
                  (json_int_t)s->sampling.sampling.seed, "timings", geul_generation_timings(l->load_seconds, r));
    return geul_report_json_line(json);
}

/* Generates and prints. Returns the exit code. */
static int complete(const struct settings *s, struct geul_loaded *l, struct geul_speculator *speculator,
                    const struct geul_text_list *stops, const char *prompt, size_t length)
{
    struct geul_ids ids;
    if (!geul_ids_of_text(l, prompt, length, &ids))
        return geul_report_failure(l->ctx);
    struct geul_generation how = {.sampling = &s->sampling.sampling,
                                  .max_tokens = s->n_predict,
                                  .stop = stops->items,
                                  .n_stop = stops->n,
                                  .ignore_end_token = s->ignore_eos,
                                  .on_text = s->json ? collect_text : print_text,
                                  .on_prompt = geul_generation_prompt,
                                  .speculator = speculator};
    if (s->echo && !s->json)
        geul_report_text(prompt, length);
    struct geul_generation_result r;
    geul_progress_start("reading the prompt", "tokens");
    enum geul_status status = geul_ids_generate(l, &ids, &how, &r);
    geul_progress_hide();
    if (status != GEUL_OK) {
        geul_ids_free(l, &ids);
        return geul_report_failure(l->ctx);
    }
    if (s->json)
        print_json(s, l, &ids, &r);
    else if (isatty(STDOUT_FILENO))
        geul_report_text("\n", 1); /* otherwise the shell's prompt would stick to the text */
    if (s->model.verbose)
        geul_generation_print_timings(l->load_seconds, &r);
    if (r.reason == GEUL_STOP_CONTEXT)
        geul_report_note("the context of %d tokens is full (-c makes it larger)", geul_session_capacity(l->session));
    geul_tokens_free(l->ctx, r.tokens);
    geul_text_free(l->ctx, r.text);
    geul_ids_free(l, &ids);
    return geul_interrupted() ? 130 : 0;
}

int geul_cmd_complete(int argc, char **argv)
{
    struct settings s = {.model = GEUL_MODEL_ARGS_DEFAULT,
                         .sampling = geul_sampling_args_default(),
                         .draft = geul_draft_args_default(),
                         .nfc = "auto",
                         .n_predict = 128};
    const char *args[GEUL_ARGS_MAX];
    int n_args, code;
    size_t length;
    if (!geul_options_parse(&help, argc, argv, &s, args, &n_args, &code))
        return code;
    if (s.model.fit)
        return (code = geul_model_args_choose(&s.model)) != 0 ? code : geul_fit_print(&s.model, s.json);
    if (s.n_predict == 0)
        return geul_report_usage("-n 0 would print nothing");
    if ((code = geul_sampling_args_order(&s.sampling)) != 0)
        return code;
    char *prompt = geul_text_input_prompt(s.prompt, s.file, s.encoding, &length, &code);
    if (!prompt)
        return code;
    if ((code = geul_model_args_choose(&s.model)) != 0) {
        free(prompt);
        return code;
    }
    geul_interrupt_catch(1);
    geul_sampling_args_seed(&s.sampling);
    struct geul_loaded l;
    struct geul_drafter drafter;
    struct geul_template *used = NULL;
    struct geul_text_list stops = s.stop;
    code = geul_loaded_open(&s.model, true, &l);
    if (code == 0) {
        code = geul_drafter_open(&s.draft, &s.model, &l, &drafter);
        if (code == 0)
            code = geul_nfc_prompt(&l, geul_nfc_of(s.nfc), &prompt, &length) ? 0 : 1;
        if (code == 0)
            code = apply_template(&l, &s, &stops, &used, &prompt, &length) ? 0 : 1;
        if (code == 0)
            code = complete(&s, &l, drafter.speculator, &stops, prompt, length);
        geul_template_free(used);
        geul_drafter_close(&drafter);
        geul_loaded_close(&l);
    }
    free(prompt);
    return code;
}

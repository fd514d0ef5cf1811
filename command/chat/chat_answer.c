/* chat_answer.c: one answer: makes room in the context, generates, prints, keeps. */
#include "command/chat/chat.h"

#include "command/progress.h"
#include "command/report.h"
#include "command/terminal.h"

#include "models/template.h"

#include <stdlib.h>
#include <string.h>

/* White space at the beginning and end of an answer is not printed: it is held back until more text comes. */
struct printer {
    bool trim, begun;
    bool silent; /* with --json the whole answer is printed at its end */
    char held[64];
    size_t n_held;
};

static bool is_space(char c)
{
    return c == ' ' || c == '\n' || c == '\t' || c == '\r';
}

/* Prints text but not the white space at its end, which is printed before the next text, if any comes. More white space
 * than held has room for is cut: a run of it that long is only layout. */
static bool print_trimmed(struct printer *p, const char *text, size_t length)
{
    while (!p->begun && length > 0 && is_space(*text)) {
        text++;
        length--;
    }
    size_t end = length;
    while (end > 0 && is_space(text[end - 1]))
        end--;
    bool ok = true;
    if (end > 0) {
        ok = geul_report_text(p->held, p->n_held) && geul_report_text(text, end);
        p->begun = true;
        p->n_held = 0;
    }
    for (size_t i = end; i < length && p->n_held < sizeof p->held; i++)
        p->held[p->n_held++] = text[i];
    return ok;
}

static bool on_text(void *user, const char *text, size_t length)
{
    struct printer *p = user;
    geul_progress_hide();
    bool ok = p->silent || (p->trim ? print_trimmed(p, text, length) : geul_report_text(text, length));
    return ok && !geul_interrupted();
}

/* The ids of the prompt; the oldest turns are dropped until it and an answer fit. false after a message. */
static bool fit_prompt(struct geul_chat *c, struct geul_ids *ids)
{
    /* A quarter of the context is kept free for the answer, or less when -n is smaller. A dropped turn changes the
     * prompt from its start, so the session has to read it all again: dropping is left until it is needed. */
    size_t capacity = (size_t)geul_session_capacity(c->loaded.session), room = capacity / 4;
    if (c->settings.n_predict > 0 && (size_t)c->settings.n_predict < room)
        room = (size_t)c->settings.n_predict;
    int dropped = 0;
    for (;; dropped++) {
        char *prompt = geul_chat_prompt(c, 0);
        bool ok = prompt && geul_ids_of_text(&c->loaded, prompt, strlen(prompt), ids);
        free(prompt);
        if (!ok) {
            geul_report_failure(c->loaded.ctx);
            return false;
        }
        /* The last turn is the question: alone it is tried even if too long, and generating reports that. */
        if (ids->n + room <= capacity || c->n_turns == 1)
            break;
        geul_ids_free(&c->loaded, ids);
        geul_chat_drop_first(c);
    }
    if (dropped)
        geul_report_note("the context of %zu tokens is full; dropped the oldest %d turn%s", capacity, dropped,
                         dropped == 1 ? "" : "s");
    return true;
}

/* Keeps text as the answer of the last turn, without the white space around it when the template sets its own. Without
 * memory for it the turn is dropped: false. */
static bool set_answer(struct geul_chat *c, const char *text, size_t length, bool trim)
{
    if (trim)
        text = geul_template_trim(text, &length);
    char *answer = malloc(length + 1);
    if (!answer) {
        geul_chat_drop_last(c);
        return false;
    }
    memcpy(answer, text, length);
    answer[length] = '\0';
    for (char *nul = memchr(answer, '\0', length); nul; nul = memchr(nul, '\0', (size_t)(answer + length - nul)))
        *nul = ' '; /* conversations are C strings */
    c->turns[c->n_turns - 1].answer = answer;
    return true;
}

static enum geul_status generate(struct geul_chat *c, const struct geul_ids *ids, struct printer *printer,
                                 struct geul_generation_result *r)
{
    int n_stop = 0;
    const char *const *stop = c->form ? geul_template_stops(c->form, &n_stop) : NULL;
    struct geul_sampling sampling = c->settings.sampling.sampling;
    sampling.seed = c->settings.sampling.seed.value + c->n_answers++;
    struct geul_generation how = {.sampling = &sampling,
                                  .max_tokens = c->settings.n_predict,
                                  .stop = stop,
                                  .n_stop = n_stop,
                                  .ignore_end_token = c->ignore_eos,
                                  .on_text = on_text,
                                  .on_prompt = geul_generation_prompt,
                                  .user = printer,
                                  .speculator = c->drafter.speculator};
    geul_progress_start("reading", "tokens");
    enum geul_status status = geul_ids_generate(&c->loaded, ids, &how, r);
    geul_progress_hide();
    return status;
}

/* Prints the last turn, now answered, as a line of JSON. */
static void print_json(const struct geul_chat *c, const struct geul_ids *ids, const struct geul_generation_result *r)
{
    const struct geul_chat_turn *turn = &c->turns[c->n_turns - 1];
    json_t *json = json_pack("{s:o, s:o, s:o, s:o, s:s, s:o}", "question",
                             geul_report_json_text(turn->question, strlen(turn->question)), "answer",
                             geul_report_json_text(turn->answer, strlen(turn->answer)), "tokens",
                             geul_report_json_ids(r->tokens, (size_t)r->n_generated), "prompt_tokens",
                             geul_report_json_ids(ids->data, ids->n), "stop_reason", geul_stop_reason_name(r->reason),
                             "timings", geul_generation_timings(c->loaded.load_seconds, r));
    geul_report_json_line(json);
}

void geul_chat_answer(struct geul_chat *c)
{
    struct geul_ids ids;
    struct geul_generation_result r;
    /* From here on the last turn either gets its answer or is dropped: a conversation holds no unanswered turn. */
    struct printer printer = {.trim = c->form != NULL, .silent = c->json};
    geul_interrupt_clear();
    if (!fit_prompt(c, &ids)) {
        geul_chat_drop_last(c);
        c->code = 1;
        return;
    }
    enum geul_status status = generate(c, &ids, &printer, &r);
    if (status != GEUL_OK) {
        geul_ids_free(&c->loaded, &ids);
        if (geul_interrupted()) {
            geul_report_note("stopped");
        } else {
            geul_report_failure(c->loaded.ctx);
            c->code = 1;
        }
        geul_chat_drop_last(c);
        return;
    }
    if (!c->json)
        geul_report_text("\n", 1);
    if (r.reason == GEUL_STOP_CALLER)
        geul_report_note("stopped");
    else if (r.reason == GEUL_STOP_CONTEXT)
        geul_report_note("the context is full; the answer ends here");
    if (set_answer(c, r.text, r.text_length, printer.trim) && c->json)
        print_json(c, &ids, &r);
    geul_ids_free(&c->loaded, &ids);
    geul_tokens_free(c->loaded.ctx, r.tokens);
    geul_text_free(c->loaded.ctx, r.text);
}

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

/* The ids of the prompt for turns first to last. false after a message. */
static bool prompt_ids(struct geul_chat *c, int first, struct geul_ids *ids)
{
    char *prompt = geul_chat_prompt(c, first);
    bool ok = prompt && geul_ids_of_text(&c->loaded, prompt, strlen(prompt), ids);
    if (!prompt)
        geul_report_error("out of memory");
    else if (!ok)
        geul_report_failure(c->loaded.ctx);
    free(prompt);
    return ok;
}

/* The ids of the prompt, which begins with turn *first: with the oldest that leaves room for an answer. A question for
 * which no other turn has to go is too long by itself. false after a message. */
static bool fit_prompt(struct geul_chat *c, struct geul_ids *ids, int *first)
{
    /* A quarter of the context is kept free for the answer, or less when -n is smaller; at least one token. A dropped
     * turn changes the prompt from its start, so the session has to read it all again: dropping is put off until it is
     * needed. */
    size_t capacity = (size_t)geul_session_capacity(c->loaded.session), room = capacity / 4;
    if (c->settings.n_predict > 0 && (size_t)c->settings.n_predict < room)
        room = (size_t)c->settings.n_predict;
    for (*first = 0;; ++*first) {
        if (!prompt_ids(c, *first, ids))
            return false;
        if (ids->n + room <= capacity)
            return true;
        if (*first == c->n_turns - 1)
            break;
        geul_ids_free(&c->loaded, ids);
    }
    if (ids->n < capacity)
        return true;
    geul_report_error("the question has %zu tokens with its template, and %zu fit: the context holds %zu, one for the "
                      "answer; shorten it or raise -c. The conversation is as before",
                      ids->n, capacity - 1, capacity);
    geul_ids_free(&c->loaded, ids);
    return false;
}

/* Drops the turns before the first that fits. */
static void drop_turns(struct geul_chat *c, int first)
{
    for (int i = 0; i < first; i++)
        geul_chat_drop_first(c);
    if (first > 0)
        geul_report_note("the context of %d tokens is full; dropped the oldest %d turn%s",
                         geul_session_capacity(c->loaded.session), first, first == 1 ? "" : "s");
}

/* Keeps text as the answer of the last turn, without the white space around it when the template sets its own. false
 * after a message: there is no memory for it. */
static bool set_answer(struct geul_chat *c, const char *text, size_t length, bool trim)
{
    if (trim)
        text = geul_template_trim(text, &length);
    char *answer = malloc(length + 1);
    if (!answer) {
        geul_report_error("out of memory");
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

bool geul_chat_answer(struct geul_chat *c)
{
    struct geul_ids ids;
    struct geul_generation_result r;
    struct printer printer = {.trim = c->form != NULL, .silent = c->json};
    int first;
    geul_interrupt_clear();
    if (!fit_prompt(c, &ids, &first)) {
        c->code = 1;
        return false;
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
        return false;
    }
    if (!c->json)
        geul_report_text("\n", 1);
    if (r.reason == GEUL_STOP_CALLER)
        geul_report_note("stopped");
    else if (r.reason == GEUL_STOP_CONTEXT)
        geul_report_note("the context is full; the answer ends here");
    drop_turns(c, first);
    bool kept = set_answer(c, r.text, r.text_length, printer.trim);
    if (kept && c->json)
        print_json(c, &ids, &r);
    if (c->verbose)
        geul_generation_print_timings(c->loaded.load_seconds, &r);
    geul_ids_free(&c->loaded, &ids);
    geul_tokens_free(c->loaded.ctx, r.tokens);
    geul_text_free(c->loaded.ctx, r.text);
    return kept;
}

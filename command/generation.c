/* generation.c: what complete and chat share. */
#include "command/generation.h"

#include "command/progress.h"
#include "command/report.h"
#include "command/terminal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

bool geul_ids_of_text(struct geul_loaded *l, const char *text, size_t length, struct geul_ids *ids)
{
    const struct geul_tokenizer *tok = geul_model_get_tokenizer(l->model);
    geul_error_clear(l->ctx);
    if (geul_tokenize_whole(l->ctx, tok, text, length, true, true, &ids->data, &ids->n) != GEUL_OK)
        return false;
    if (ids->n > 0)
        return true;
    geul_tokens_free(l->ctx, ids->data);
    ids->data = geul_alloc(l->ctx, 1, sizeof *ids->data);
    if (!ids->data)
        return false;
    ids->data[0] = geul_token_end(tok);
    ids->n = ids->data[0] >= 0; /* without an end token an empty prompt has no ids */
    return true;
}

void geul_ids_free(struct geul_loaded *l, struct geul_ids *ids)
{
    geul_tokens_free(l->ctx, ids->data);
    *ids = (struct geul_ids){NULL, 0};
}

bool geul_nfc_prompt(struct geul_loaded *l, enum geul_nfc nfc, char **text, size_t *length)
{
    size_t n;
    if (!geul_nfc_applies(geul_model_get_tokenizer(l->model), nfc))
        return true;
    char *composed = geul_text_nfc(l->ctx, *text, *length, &n);
    char *copy = composed ? malloc(n + 1) : NULL;
    if (copy) {
        memcpy(copy, composed, n + 1);
        free(*text);
        *text = copy;
        *length = n;
    } else {
        geul_report_error("out of memory");
    }
    geul_text_free(l->ctx, composed);
    return copy != NULL;
}

enum geul_status geul_ids_generate(struct geul_loaded *l, const struct geul_ids *ids, const struct geul_generation *how,
                                   struct geul_generation_result *r)
{
    geul_error_clear(l->ctx);
    int capacity = geul_session_capacity(l->session);
    if (ids->n > (size_t)capacity)
        return geul_fail(l->ctx, GEUL_ERROR_ARGUMENT,
                         "the prompt has %zu tokens, the context holds %d; shorten it or raise -c", ids->n, capacity);
    return geul_generate_ids(l->session, ids->data, (int)ids->n, how, r);
}

bool geul_generation_prompt(void *user, int done, int total)
{
    return geul_progress_callback(user, (uint64_t)done, (uint64_t)total);
}

const char *geul_stop_reason_name(enum geul_stop_reason reason)
{
    static const char *const names[] = {
        [GEUL_STOP_LENGTH] = "length",   [GEUL_STOP_END_TOKEN] = "end_token", [GEUL_STOP_STRING] = "stop_string",
        [GEUL_STOP_CONTEXT] = "context", [GEUL_STOP_CALLER] = "interrupted",
    };
    return names[reason];
}

/* Tokens per second; 0 when no time passed. */
static double rate(int tokens, double seconds)
{
    return seconds > 0 ? tokens / seconds : 0;
}

json_t *geul_generation_timings(double load_seconds, const struct geul_generation_result *r)
{
    int computed = r->n_prompt - r->n_reused;
    return json_pack("{s:f, s:i, s:f, s:f, s:i, s:f, s:f, s:i, s:i}", "load_seconds", load_seconds, "prompt_n",
                     r->n_prompt, "prompt_seconds", r->prompt_seconds, "prompt_tps", rate(computed, r->prompt_seconds),
                     "generation_n", r->n_generated, "generation_seconds", r->generation_seconds, "generation_tps",
                     rate(r->n_generated, r->generation_seconds), "draft_n", r->n_drafted, "draft_n_accepted",
                     r->n_accepted);
}

void geul_generation_print_timings(double load_seconds, const struct geul_generation_result *r)
{
    int computed = r->n_prompt - r->n_reused;
    char drafts[64] = "";
    if (r->n_drafted > 0)
        snprintf(drafts, sizeof drafts, ", %d of %d guesses accepted", r->n_accepted, r->n_drafted);
    geul_report_note("load %.2f s; prompt %d tokens (%d reused) in %.2f s, %.1f tokens/s; text %d tokens in %.2f s, "
                     "%.1f tokens/s%s; end: %s",
                     load_seconds, r->n_prompt, r->n_reused, r->prompt_seconds, rate(computed, r->prompt_seconds),
                     r->n_generated, r->generation_seconds, rate(r->n_generated, r->generation_seconds), drafts,
                     geul_stop_reason_name(r->reason));
}

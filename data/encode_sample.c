/* encode_sample.c: see encode_sample.h. */
#include "data/encode_sample.h"

#include "models/template.h"
#include "tokenizer/tokenizer.h"

#include <string.h>

/* A sample being encoded: the text since the last flush, and which spans of it are the template's. A flush is a border
 * that no token crosses; out gets the ids up to it. */
struct encoding {
    struct geul_context *ctx;
    const struct geul_tokenizer *tok;
    int32_t end;
    bool nfc; /* users' texts are brought into NFC */
    struct geul_sample *out;
    char *text;
    size_t used, capacity;
    struct geul_tok_span *own;
    size_t n_own, own_capacity;
};

/* Appends n bytes to the text. */
static bool put_bytes(struct encoding *e, const char *s, size_t n, bool own)
{
    size_t begin = e->used, end;
    if (!geul_add_size(begin, n, &end) || !geul_reserve(e->ctx, &e->text, &e->capacity, end, 1))
        return false;
    if (n == 0)
        return true;
    memcpy(e->text + begin, s, n);
    e->used = end;
    /* own spans stay ascending and apart; adjacent ones are one, as a special token may cross their border */
    bool joins = own && e->n_own && e->own[e->n_own - 1].end == begin;
    if (joins)
        e->own[e->n_own - 1].end = end;
    if (!own || joins)
        return true;
    if (!geul_reserve(e->ctx, &e->own, &e->own_capacity, e->n_own + 1, sizeof *e->own))
        return false;
    e->own[e->n_own++] = (struct geul_tok_span){begin, end};
    return true;
}

/* Appends n bytes of the template or, in NFC, of a user; a geul_template_sink. */
static bool put(void *user, const char *s, size_t n, bool own)
{
    struct encoding *e = user;
    size_t length;
    if (own)
        return put_bytes(e, s, n, true);
    char *nfc = geul_text_nfc(e->ctx, s, n, &length);
    if (!nfc)
        return false;
    bool same = length == n && memcmp(nfc, s, n) == 0;
    e->out->not_nfc |= !same;
    bool ok = e->nfc && !same ? put_bytes(e, nfc, length, false) : put_bytes(e, s, n, false);
    geul_text_free(e->ctx, nfc);
    return ok;
}

/* Appends n ids to the sample. */
static bool push(struct encoding *e, const int32_t *ids, size_t n, bool target)
{
    struct geul_sample *s = e->out;
    if (!geul_reserve(e->ctx, &s->ids, &s->id_capacity, s->n + n, sizeof *s->ids) ||
        !geul_reserve(e->ctx, &s->target, &s->target_capacity, s->n + n, sizeof *s->target))
        return false;
    memcpy(s->ids + s->n, ids, n * sizeof *ids);
    for (size_t i = 0; i < n; i++)
        s->target[s->n++] = target;
    return true;
}

/* Tokenizes the text that was put, appends its ids and empties it. sealed: an end token among its ids is a failure. */
static bool flush(struct encoding *e, bool target, bool sealed)
{
    int32_t *ids;
    size_t n;
    if (geul_tokenize_spans(e->ctx, e->tok, e->text, e->used, e->own, e->n_own, &ids, &n) != GEUL_OK)
        return false;
    e->used = e->n_own = 0;
    bool ok = true;
    for (size_t i = 0; sealed && ok && i < n; i++)
        ok = !geul_token_is_end(e->tok, ids[i]);
    if (!ok)
        geul_fail(e->ctx, GEUL_ERROR_ARGUMENT,
                  "an ordinary text contains an end token's text, which the tokenizer does not mark as special: the "
                  "text would end there");
    ok = ok && push(e, ids, n, target);
    geul_tokens_free(e->ctx, ids);
    return ok;
}

/* Begins the sample with the tokens that the tokenizer puts before every text. */
static enum geul_status init_encoding(struct encoding *e)
{
    const struct geul_tok_ids *before = &geul_tokenizer_get_spec(e->tok)->before;
    *e->out = (struct geul_sample){0};
    geul_error_clear(e->ctx);
    e->end = geul_token_end(e->tok);
    if (e->end < 0)
        return geul_fail(
            e->ctx, GEUL_ERROR_ARGUMENT,
            "the tokenizer names no end token and has no <|endoftext|>, which every sample has to end with");
    return push(e, before->id, (size_t)before->n, false) ? GEUL_OK : geul_error_status(e->ctx);
}

static enum geul_status finish(struct encoding *e, bool ok)
{
    geul_free(e->ctx, e->text);
    geul_free(e->ctx, e->own);
    return ok ? GEUL_OK : geul_error_status(e->ctx);
}

/* Bytes of the template's end that are learned as a part of the answer: up to its own end token, which is added as an
 * id. White space alone does not count: it is how template files end. */
static size_t end_length(const struct encoding *e, const char *end)
{
    static const char end_of_text[] = "<|endoftext|>";
    size_t n;
    const char *own = geul_token_text(e->tok, e->end, &n);
    for (const char *at = end; *at; at++)
        if (strncmp(at, own, n) == 0 || strncmp(at, end_of_text, sizeof end_of_text - 1) == 0)
            return (size_t)(at - end);
    return end[strspn(end, " \t\r\n")] ? strlen(end) : 0;
}

/* first, a blank line and second; NULL when memory is short. Free with geul_free(). */
static char *join(struct geul_context *ctx, const char *first, const char *second)
{
    size_t n = strlen(first), more = strlen(second), size;
    if (!geul_add_size(n, more, &size) || !geul_add_size(size, 3, &size))
        return geul_fail_memory(ctx, SIZE_MAX);
    char *both = geul_alloc(ctx, size, 1);
    if (!both)
        return NULL;
    memcpy(both, first, n);
    memcpy(both + n, "\n\n", 2);
    memcpy(both + n + 2, second, more);
    return both;
}

/* Puts the prompt of a question with the system's text and an input, which may be NULL or empty. */
static bool put_question(struct encoding *e, const struct geul_template *t, const char *question, const char *system,
                         const char *input)
{
    bool placed = t && geul_template_takes_input(t);
    system = system && *system ? system : NULL;
    input = input && *input ? input : NULL;
    const char *slot = !placed ? NULL : input ? input : system;
    char *before = NULL, *both = NULL;
    bool ok = true;
    if (system && slot != system) {
        before = join(e->ctx, system, question);
        ok = before != NULL;
        question = before;
    }
    if (ok && input && !slot) {
        both = join(e->ctx, question, input);
        ok = both != NULL;
        question = both;
    }
    e->out->joined |= before || both;
    if (ok)
        ok = t ? geul_template_put_prompt(t, question, slot, put, e) : put(e, question, strlen(question), false);
    geul_free(e->ctx, before);
    geul_free(e->ctx, both);
    return ok;
}

/* Encodes turn i. */
static bool add_turn(struct encoding *e, const struct geul_template *t, const struct geul_conversation *c, int i)
{
    const struct geul_turn *turn = &c->turns[i];
    const char *answer = turn->answer ? turn->answer : "";
    bool learned = !c->learned || c->learned[i];
    if (!answer[strspn(answer, " \t\r\n")]) {
        geul_fail(e->ctx, GEUL_ERROR_ARGUMENT, "the answer is empty: there is nothing to learn");
        return false;
    }
    /* The prompt is tokenized by itself, as it is when a model is asked; then the answer with its end. */
    if (!put_question(e, t, turn->question, i == 0 ? c->system : NULL, i == c->input_turn ? c->input : NULL) ||
        !flush(e, c->whole, false))
        return false;
    const char *gap = t ? geul_template_gap(t) : "", *end = t ? geul_template_end(t) : "";
    return put(e, gap, strlen(gap), true) && put(e, answer, strlen(answer), false) &&
           put(e, end, end_length(e, end), true) && flush(e, learned, true) && push(e, &e->end, 1, learned);
}

enum geul_status geul_sample_of_turns(struct geul_context *ctx, const struct geul_tokenizer *tok,
                                      const struct geul_template *t, const struct geul_conversation *c,
                                      struct geul_sample *out)
{
    struct encoding e = {.ctx = ctx, .tok = tok, .out = out, .nfc = c->nfc};
    bool ok = init_encoding(&e) == GEUL_OK;
    for (int i = 0; ok && i < c->n; i++)
        ok = add_turn(&e, t, c, i);
    return finish(&e, ok);
}

enum geul_status geul_sample_of_text(struct geul_context *ctx, const struct geul_tokenizer *tok, const char *text,
                                     size_t length, bool nfc, struct geul_sample *out)
{
    struct encoding e = {.ctx = ctx, .tok = tok, .out = out, .nfc = nfc};
    bool ok = init_encoding(&e) == GEUL_OK && put(&e, text, length, false) && flush(&e, true, true) &&
              push(&e, &e.end, 1, true);
    return finish(&e, ok);
}

void geul_sample_free(struct geul_context *ctx, struct geul_sample *s)
{
    geul_free(ctx, s->ids);
    geul_free(ctx, s->target);
    *s = (struct geul_sample){0};
}

/* speculate.c: drafts tokens, from the text itself or with a smaller model. Whatever is guessed, generate.c accepts
 * only what the sampler chooses from the large model's own logits: a guess affects speed alone.
 *
 * The sources are not told what was accepted. For each draft they go by what the session holds: the lookup's text is
 * that or its beginning, as guesses never enter it; the draft session, which has evaluated its own guesses, is
 * truncated to the common prefix. */
#include "models/speculate.h"

#include "models/lookup.h"
#include "models/sampler.h"

#include "core/os.h"

#include <string.h>

struct geul_speculator {
    struct geul_session *s; /* it drafts for this one */
    struct geul_speculation how;
    struct geul_lookup *lookup;       /* NULL: off */
    const struct geul_tokenizer *tok; /* nothing is drafted behind its end tokens; NULL: none are known */
    bool unknown;                     /* the text holds ids that the draft model does not have */
    int32_t *piece;                   /* tokens for the draft session, room for one batch */
    struct geul_pace pace;
    enum geul_draft_source source; /* of the last draft */
};

struct geul_speculation geul_speculation_default(void)
{
    return (struct geul_speculation){.n_max = 16, .n_min = 1, .p_min = 0.75f};
}

/* ---------------------------------------------------------------------------------- lifetime -- */

/* Whether ids mean the same to both models. Rows behind the tokenizer's ids are padding and may differ in number. */
static enum geul_status check_vocabulary(struct geul_context *ctx, const struct geul_model *m,
                                         const struct geul_model *draft)
{
    const struct geul_tokenizer *a = geul_model_get_tokenizer(m), *b = geul_model_get_tokenizer(draft);
    int usable = geul_model_usable_vocab(m), rows = geul_model_get_shape(draft)->n_vocab;
    if (rows < usable || (a && b && geul_tokenizer_size(b) != usable))
        return geul_fail(ctx, GEUL_ERROR_ARGUMENT,
                         "the draft model has %d token ids, the model %d; both must have the same tokenizer",
                         a && b ? geul_tokenizer_size(b) : rows, usable);
    for (int32_t id = 0; a && b && id < usable; id++) {
        size_t n_a, n_b;
        const char *text_a = geul_token_text(a, id, &n_a), *text_b = geul_token_text(b, id, &n_b);
        if (n_a != n_b || (n_a > 0 && memcmp(text_a, text_b, n_a) != 0) ||
            geul_token_is_special(a, id) != geul_token_is_special(b, id))
            return geul_fail(
                ctx, GEUL_ERROR_ARGUMENT,
                "token %d stands for another text in the draft model than in the model; both must have the same "
                "tokenizer",
                id);
    }
    return GEUL_OK;
}

static enum geul_status check_speculation(const struct geul_session *s, const struct geul_speculation *how)
{
    struct geul_context *ctx = geul_session_context(s);
    const struct geul_session *d = how->draft;
    if (!d && !how->lookup)
        return geul_fail(ctx, GEUL_ERROR_ARGUMENT, "speculation needs lookup, a draft session, or both");
    if (how->n_max < 1 || how->n_max > GEUL_DRAFT_MAX || how->n_min < 0 || how->n_min > how->n_max ||
        !(how->p_min >= 0 && how->p_min <= 1))
        return geul_fail(
            ctx, GEUL_ERROR_ARGUMENT,
            "drafts of %d to %d tokens with p_min %g are not possible; lengths go up to %d, p_min from 0 to 1",
            how->n_min, how->n_max, (double)how->p_min, GEUL_DRAFT_MAX);
    if (!d)
        return GEUL_OK;
    if (d == s)
        return geul_fail(ctx, GEUL_ERROR_ARGUMENT, "a session cannot draft for itself; make a second one");
    if (geul_session_capacity(d) < geul_session_capacity(s) || geul_session_sequences(d) < geul_session_sequences(s))
        return geul_fail(
            ctx, GEUL_ERROR_ARGUMENT,
            "the draft session holds %d sequences of %d positions, the session %d of %d; make it at least as large",
            geul_session_sequences(d), geul_session_capacity(d), geul_session_sequences(s), geul_session_capacity(s));
    return check_vocabulary(ctx, geul_session_model(s), geul_session_model(d));
}

struct geul_speculator *geul_speculator_new(struct geul_session *s, const struct geul_speculation *how)
{
    struct geul_context *ctx = geul_session_context(s);
    geul_error_clear(ctx);
    if (check_speculation(s, how) != GEUL_OK)
        return NULL;
    struct geul_speculator *p = geul_alloc(ctx, 1, sizeof *p);
    if (!p)
        return NULL;
    *p = (struct geul_speculator){.s = s, .how = *how, .tok = geul_model_get_tokenizer(geul_session_model(s))};
    geul_pace_init(&p->pace);
    if (how->lookup)
        p->lookup = geul_lookup_new(ctx, geul_session_capacity(s) + 1);
    if (how->draft)
        p->piece = geul_alloc(ctx, (size_t)geul_session_batch(how->draft), sizeof *p->piece);
    if ((how->lookup && !p->lookup) || (how->draft && !p->piece)) {
        geul_speculator_free(p);
        return NULL;
    }
    return p;
}

void geul_speculator_free(struct geul_speculator *p)
{
    if (!p)
        return;
    struct geul_context *ctx = geul_session_context(p->s);
    geul_lookup_free(p->lookup);
    geul_free(ctx, p->piece);
    geul_free(ctx, p);
}

const struct geul_session *geul_speculator_session(const struct geul_speculator *p)
{
    return p->s;
}

/* ------------------------------------------------------------------------------- draft model -- */

/* Appends n tokens to the draft session; its failures go to the context of the session it drafts for. */
static enum geul_status append(struct geul_speculator *p, int seq, const int32_t *tokens, int n, const float **logits)
{
    struct geul_context *from = geul_session_context(p->how.draft), *ctx = geul_session_context(p->s);
    if (geul_context_take_cancel(ctx)) /* the draft's context has a flag of its own */
        return geul_fail(ctx, GEUL_ERROR_CANCELLED, "cancelled");
    enum geul_status status = geul_session_append(p->how.draft, seq, tokens, n, logits);
    return status == GEUL_OK || from == ctx ? status : geul_fail_from(ctx, from);
}

/* Truncates the draft session to what it has in common with tokens (n); returns how many that are. */
static int truncate_to_common_prefix(struct geul_speculator *p, int seq, const int32_t *tokens, int n)
{
    const int32_t *held = geul_session_tokens(p->how.draft, seq);
    int most = geul_session_length(p->how.draft, seq), same = 0;
    while (same < most && same < n && held[same] == tokens[same])
        same++;
    geul_session_truncate(p->how.draft, seq, same);
    return same;
}

/* The draft session, which holds the first of tokens (n), evaluates more of them until at most rest are left. */
static enum geul_status read_on(struct geul_speculator *p, int seq, const int32_t *tokens, int n, int rest,
                                bool (*on_piece)(void *user), void *user)
{
    int batch = geul_session_batch(p->how.draft), held = geul_session_length(p->how.draft, seq);
    while (n - held > rest) {
        int m = n - held < batch ? n - held : batch;
        enum geul_status status = append(p, seq, tokens + held, m, NULL);
        if (status != GEUL_OK)
            return status;
        held += m;
        if (on_piece && !on_piece(user))
            return geul_fail(geul_session_context(p->s), GEUL_ERROR_CANCELLED, "stopped by the caller");
    }
    return GEUL_OK;
}

/* The draft session evaluates what it lacks of the text, *behind tokens; *logits are those after token last. */
static enum geul_status read_text(struct geul_speculator *p, int seq, int32_t last, int *behind, const float **logits)
{
    const int32_t *text = geul_session_tokens(p->s, seq);
    int n = geul_session_length(p->s, seq);
    *behind = n - truncate_to_common_prefix(p, seq, text, n);
    enum geul_status status = read_on(p, seq, text, n, geul_session_batch(p->how.draft) - 1, NULL, NULL);
    if (status != GEUL_OK)
        return status;
    /* The rest of the text and last go together, in one batch: one or two tokens when the last draft was this model's
     * too. */
    int held = geul_session_length(p->how.draft, seq), rest = n - held;
    memcpy(p->piece, text + held, (size_t)rest * sizeof *p->piece);
    p->piece[rest] = last;
    return append(p, seq, p->piece, rest + 1, logits);
}

/* Lets the draft model guess up to k tokens with the random numbers that the sampler will use for them, and stops where
 * the choice is not clear. The sampler is left as it was, so that it draws the same numbers when it chooses. */
static enum geul_status guess(struct geul_speculator *p, int seq, const float *logits, struct geul_sampler *sampler,
                              int k, int32_t *draft, int *n)
{
    enum geul_status status = GEUL_OK;
    int chosen = 0;
    while (*n < k && status == GEUL_OK) {
        int32_t token = geul_sampler_next(sampler, logits);
        if (token < 0)
            break;
        chosen++;
        if (geul_sampler_confidence(sampler) < (double)p->how.p_min)
            break;
        draft[(*n)++] = token;
        if (p->tok && geul_token_is_end(p->tok, token))
            break;
        if (*n < k) /* the last guess is not evaluated: its logits would not be used */
            status = append(p, seq, &token, 1, &logits);
    }
    geul_sampler_undo(sampler, chosen);
    return status;
}

/* A draft of up to k tokens by the draft model. Reading much text at once, as after a time without drafts, is not
 * counted as time of the draft; nor is then the first token, whose logits came with the text. */
static enum geul_status draft_by_model(struct geul_speculator *p, int seq, int32_t last, struct geul_sampler *sampler,
                                       int k, int32_t *draft, int *n)
{
    const float *logits;
    int behind = 0;
    double start = geul_os_seconds();
    enum geul_status status = read_text(p, seq, last, &behind, &logits);
    bool much = behind > GEUL_DRAFT_MAX;
    if (much)
        start = geul_os_seconds();
    if (status == GEUL_OK)
        status = guess(p, seq, logits, sampler, k, draft, n);
    if (!much || *n > 1)
        geul_pace_drafted(&p->pace, GEUL_DRAFT_MODEL, *n - much, geul_os_seconds() - start);
    return status;
}

/* ---------------------------------------------------------------------------------- drafting -- */

/* How many tokens to draft from source. */
static int choose_length(struct geul_speculator *p, enum geul_draft_source source, int most)
{
    if (most > p->how.n_max)
        most = p->how.n_max;
    int k = p->how.always ? most : geul_pace_choose(&p->pace, source, most);
    return k >= p->how.n_min ? k : 0;
}

/* The source that a match of so many tokens is. */
static enum geul_draft_source lookup_source(int match)
{
    return match >= 8 ? GEUL_DRAFT_LOOKUP_SURE : match >= 3 ? GEUL_DRAFT_LOOKUP_LONG : GEUL_DRAFT_LOOKUP_SHORT;
}

/* A draft of up to most tokens from the text itself; returns its length. */
static int draft_by_lookup(struct geul_speculator *p, int seq, int32_t last, int most, int32_t *draft)
{
    const int32_t *text = geul_session_tokens(p->s, seq);
    int length = geul_session_length(p->s, seq), next = 0;
    /* The lookup holds the text as of the last draft; what was accepted since is appended, nothing is ever removed. */
    for (int i = geul_lookup_length(p->lookup); i < length; i++)
        geul_lookup_push(p->lookup, text[i]);
    geul_lookup_push(p->lookup, last);
    int match = geul_lookup_find(p->lookup, &next);
    if (match == 0)
        return 0;
    p->source = lookup_source(match);
    int n = choose_length(p, p->source, most);
    geul_lookup_copy(p->lookup, next, n, draft);
    return n;
}

enum geul_status geul_speculator_start(struct geul_speculator *p, int seq, const int32_t *ids, int n,
                                       bool (*on_piece)(void *user), void *user)
{
    if (p->lookup)
        geul_lookup_set(p->lookup, ids, n);
    if (!p->how.draft)
        return GEUL_OK;
    int known = geul_model_get_shape(geul_session_model(p->how.draft))->n_vocab;
    p->unknown = false;
    for (int i = 0; i < n; i++) /* a prompt may hold padding ids that only the model has; the sampler chooses none */
        p->unknown = p->unknown || ids[i] >= known;
    if (p->unknown || !(p->how.always || geul_pace_pays(&p->pace, GEUL_DRAFT_MODEL, p->how.n_max)))
        return GEUL_OK;
    truncate_to_common_prefix(p, seq, ids, n);
    return read_on(p, seq, ids, n, 0, on_piece, user);
}

enum geul_status geul_speculator_draft(struct geul_speculator *p, int seq, int32_t last, struct geul_sampler *sampler,
                                       int most, int32_t *draft, int *n)
{
    *n = p->lookup ? draft_by_lookup(p, seq, last, most, draft) : 0;
    if (*n > 0 || !p->how.draft || p->unknown)
        return GEUL_OK;
    p->source = GEUL_DRAFT_MODEL;
    int k = choose_length(p, p->source, most);
    enum geul_status status = k > 0 ? draft_by_model(p, seq, last, sampler, k, draft, n) : GEUL_OK;
    if (*n < p->how.n_min)
        *n = 0;
    return status;
}

void geul_speculator_learn(struct geul_speculator *p, int n, int right, double seconds)
{
    geul_pace_evaluated(&p->pace, p->source, n, right, seconds);
}

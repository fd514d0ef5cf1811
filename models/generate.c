/* generate.c: from a prompt to text: reuses what the session holds, samples, streams whole code points, and never
 * prints a stop string, not even a part of one. A step evaluates the last token and those that a speculator guesses
 * after it; without one, the last token alone.
 *
 * Between steps the session holds the prompt and all generated tokens but the last, which was chosen and not yet
 * evaluated:
 *
 *     prompt .............. | generated ........... | last | draft ...
 *     <--------------- in the session --------------> <-- items of a step -->
 */
#include "models/speculate.h"

#include "core/os.h"

#include <string.h>

/* ------------------------------------------------------------------------------------ output -- */

/* The text generated so far, always valid UTF-8: bytes of a code point that is not complete wait in stream. [0, shown)
 * was handed out and cannot be taken back, so show() stops where a stop string may have begun. */
struct output {
    struct geul_context *ctx;
    const struct geul_generation *how;
    char *text;
    size_t length, size, shown;
    struct geul_utf8_stream stream;
    bool stopped_by_caller;
};

/* Makes room for more bytes and a NUL. */
static bool reserve(struct output *o, size_t more)
{
    return geul_reserve(o->ctx, &o->text, &o->size, o->length + more + 1, 1);
}

/* Hands out text up to end. */
static void show(struct output *o, size_t end)
{
    if (end <= o->shown || o->stopped_by_caller)
        return;
    if (o->how->on_text && !o->how->on_text(o->how->user, o->text + o->shown, end - o->shown))
        o->stopped_by_caller = true;
    o->shown = end;
}

/* Where a stop string begins in text; length when there is none. from: where new text began. */
static size_t find_stop(const struct output *o, size_t from)
{
    size_t first = o->length;
    for (int i = 0; i < o->how->n_stop; i++) {
        size_t n = strlen(o->how->stop[i]);
        /* A match needs at least one new byte; of several the earliest ends the text, whichever string it is. */
        for (size_t at = from > n ? from - n : 0; n > 0 && at + n <= o->length && at < first; at++)
            if (memcmp(o->text + at, o->how->stop[i], n) == 0)
                first = at;
    }
    return first;
}

/* The end of what can be shown already. What is held back is the longest end of the text that some stop string begins
 * with; so no stop string that is completed later begins before what this returns. */
static size_t certain_end(const struct output *o)
{
    size_t end = o->length;
    for (int i = 0; i < o->how->n_stop; i++) {
        size_t n = strlen(o->how->stop[i]);
        for (size_t held = n > 1 ? n - 1 : 0; held > 0; held--)
            if (held <= o->length && memcmp(o->text + o->length - held, o->how->stop[i], held) == 0) {
                end = o->length - held < end ? o->length - held : end;
                break;
            }
    }
    return end;
}

/* Adds the n bytes that were written behind the text to it; true when a stop string is complete: the text then ends
 * before it. */
static bool take(struct output *o, size_t n)
{
    size_t from = o->length;
    o->length += n;
    o->text[o->length] = '\0';
    size_t stop = find_stop(o, from);
    bool found = stop < o->length;
    o->length = stop;
    o->text[o->length] = '\0';
    show(o, found ? o->length : certain_end(o));
    return found;
}

/* Appends the bytes of a token. false when memory is short. */
static bool output_token(struct output *o, const struct geul_tokenizer *tok, int32_t id, bool *stop)
{
    *stop = false;
    if (!tok || geul_token_is_special(tok, id))
        return true;
    size_t n;
    const char *bytes = geul_token_text(tok, id, &n);
    if (!reserve(o, 3 * (n + 4))) /* geul_utf8_push(): every byte may become U+FFFD, 3 bytes */
        return false;
    *stop = take(o, geul_utf8_push(&o->stream, bytes, n, o->text + o->length));
    return true;
}

/* The end of generation: nothing can follow that would complete a stop string, so what was held back goes out. stopped:
 * a stop string has ended the text, and an incomplete code point behind it is not a part of it. */
static bool output_finish(struct output *o, bool stopped)
{
    if (!reserve(o, 16))
        return false;
    if (!stopped)
        take(o, geul_utf8_finish(&o->stream, o->text + o->length));
    show(o, o->length);
    return true;
}

/* -------------------------------------------------------------------------------- generation -- */

/* One call of geul_generate(). */
struct job {
    struct geul_session *s;
    const struct geul_generation *how;
    const struct geul_tokenizer *tok;
    struct geul_sampler *sampler;
    struct output out;
    struct geul_generation_result r;
    size_t tokens_size; /* of r.tokens */
    int32_t draft[GEUL_DRAFT_MAX], chosen[GEUL_DRAFT_MAX + 1];
    int n_draft, n_chosen; /* chosen: by the sampler, in the text's order */
    /* Of the prompt: where the piece that is being evaluated begins and its length, the tokens that on_prompt last
     * heard of, and whether it wants to stop. */
    int piece_at, piece, told;
    bool stopped;
};

/* How many of ids the sequence already holds. At least one is left to compute, since the last one's logits are needed
 * and the session keeps none. */
static int common_prefix(const struct geul_session *s, int seq, const int32_t *ids, int n)
{
    const int32_t *held = geul_session_tokens(s, seq);
    int most = geul_session_length(s, seq), i = 0;
    while (i < most && i < n - 1 && held[i] == ids[i])
        i++;
    return i;
}

/* Calls on_prompt; false stops. */
static bool tell_prompt(struct job *j, int done)
{
    j->told = done;
    j->stopped = j->stopped || (j->how->on_prompt && !j->how->on_prompt(j->how->user, done, j->r.n_prompt));
    return !j->stopped;
}

/* While a piece of the prompt is evaluated. Its nodes take about as long as each other where it matters: all layers are
 * alike. */
static void on_nodes(void *user, int done, int total)
{
    struct job *j = user;
    int tokens = j->piece_at + (int)((int64_t)j->piece * done / total);
    if (tokens > j->told && !j->stopped && !tell_prompt(j, tokens))
        geul_context_cancel(geul_session_context(j->s));
}

/* While the draft model reads the prompt too. */
static bool on_draft_piece(void *user)
{
    struct job *j = user;
    return tell_prompt(j, j->r.n_prompt);
}

/* Evaluates n tokens of the prompt from `at` on; logits may be NULL. */
static enum geul_status run_piece(struct job *j, const int32_t *ids, int at, int n, const float **logits)
{
    struct geul_context *ctx = geul_session_context(j->s);
    j->piece_at = at;
    j->piece = n;
    if (j->how->on_prompt)
        geul_session_watch(j->s, on_nodes, j);
    enum geul_status status = geul_session_append(j->s, j->how->seq, ids + at, n, logits);
    geul_session_watch(j->s, NULL, NULL);
    if (status == GEUL_OK && !j->stopped && (j->told >= at + n || tell_prompt(j, at + n)))
        return GEUL_OK;
    if (status == GEUL_OK && j->stopped) { /* it was too late to cancel this piece */
        geul_context_uncancel(ctx);
        status = geul_fail(ctx, GEUL_ERROR_CANCELLED, "stopped by the caller");
    }
    return status;
}

/* Chooses a token by logits. A model whose weights were lost on the way computes NaN, of which no choice follows: that
 * is said, rather than an empty answer. false then. What rows of padding hold does not matter: they are not chosen. */
static bool choose_token(struct job *j, const float *logits)
{
    int n = geul_model_usable_vocab(geul_session_model(j->s));
    uint32_t odd = 0;
    for (int i = 0; i < n; i++) {
        uint32_t bits;
        memcpy(&bits, &logits[i], sizeof bits);
        odd |= (bits & 0x7f800000u) == 0x7f800000u; /* infinity and NaN alone have all bits of the exponent */
    }
    int32_t token = odd ? -1 : geul_sampler_next(j->sampler, logits); /* -1 too where penalties leave none finite */
    if (token < 0) {
        geul_fail(
            geul_session_context(j->s), GEUL_ERROR_FORMAT,
            "the model's logits after token %d are not finite: its file is damaged, or holds values that were too "
            "large for their type",
            j->r.n_prompt + j->r.n_generated);
        return false;
    }
    j->chosen[j->n_chosen++] = token;
    return true;
}

/* Computes what is new of the prompt and chooses the first token. When it fails or is stopped, the session keeps the
 * pieces that were evaluated, and the next call with this prompt continues behind them. */
static enum geul_status run_prompt(struct job *j, const int32_t *ids, int n)
{
    struct geul_context *ctx = geul_session_context(j->s);
    int seq = j->how->seq, batch = geul_session_batch(j->s);
    if (n > geul_session_capacity(j->s))
        return geul_fail(ctx, GEUL_ERROR_ARGUMENT, "the prompt has %d tokens; the session holds %d", n,
                         geul_session_capacity(j->s));
    const float *logits = NULL;
    double start = geul_os_seconds();
    j->r.n_prompt = n;
    j->r.n_reused = common_prefix(j->s, seq, ids, n);
    geul_session_truncate(j->s, seq, j->r.n_reused);
    j->told = j->r.n_reused;
    for (int done = j->r.n_reused; done < n;) {
        int m = n - done < batch ? n - done : batch;
        enum geul_status status = run_piece(j, ids, done, m, done + m == n ? &logits : NULL);
        if (status != GEUL_OK)
            return status;
        done += m;
    }
    for (int i = 0; i < n; i++) /* also what was reused: penalties count the whole prompt */
        geul_sampler_accept(j->sampler, ids[i]);
    if (!choose_token(j, logits))
        return GEUL_ERROR_FORMAT;
    enum geul_status status = GEUL_OK;
    if (j->how->speculator)
        status = geul_speculator_start(j->how->speculator, seq, ids, n, on_draft_piece, j);
    j->r.prompt_seconds = geul_os_seconds() - start;
    return status;
}

static bool remember_token(struct job *j, int32_t token)
{
    size_t n = (size_t)j->r.n_generated;
    if (n == j->tokens_size) {
        size_t size = 2 * n + 64;
        int32_t *grown = geul_realloc(j->out.ctx, j->r.tokens, size, sizeof *grown);
        if (!grown)
            return false;
        j->r.tokens = grown;
        j->tokens_size = size;
    }
    j->r.tokens[j->r.n_generated++] = token;
    return true;
}

/* Whether a stop string is the text of this special token, which gives no text that take() could find it in. */
static bool is_special_stop(const struct job *j, int32_t token)
{
    if (!j->tok || !geul_token_is_special(j->tok, token))
        return false;
    size_t n;
    const char *text = geul_token_text(j->tok, token, &n);
    for (int i = 0; i < j->how->n_stop; i++)
        if (n > 0 && strlen(j->how->stop[i]) == n && memcmp(j->how->stop[i], text, n) == 0)
            return true;
    return false;
}

/* Adds a chosen token to the text. *ended: it was the last one, and r.reason says why. */
static enum geul_status emit(struct job *j, int32_t token, bool *ended)
{
    bool stop;
    *ended = true;
    if (!remember_token(j, token))
        return GEUL_ERROR_MEMORY;
    bool ends = j->tok && !j->how->ignore_end_token && geul_token_is_end(j->tok, token);
    if (ends || is_special_stop(j, token)) {
        j->r.reason = ends ? GEUL_STOP_END_TOKEN : GEUL_STOP_STRING;
        return GEUL_OK;
    }
    if (!output_token(&j->out, j->tok, token, &stop))
        return GEUL_ERROR_MEMORY;
    if (stop)
        j->r.reason = GEUL_STOP_STRING;
    else if (j->out.stopped_by_caller)
        j->r.reason = GEUL_STOP_CALLER;
    else if (j->r.n_prompt + j->r.n_generated > geul_session_capacity(j->s)) /* token has no position any more */
        j->r.reason = GEUL_STOP_CONTEXT;
    else if (j->how->max_tokens > 0 && j->r.n_generated == j->how->max_tokens)
        j->r.reason = GEUL_STOP_LENGTH;
    else
        *ended = false;
    return GEUL_OK;
}

/* The choice at item number item of a step, whose logits follow draft[item - 1]. They are the model's own only while
 * every guess before has been chosen; behind the first that was not, logits continue a text that does not exist. */
static bool choose(void *user, int item, const float *logits, int n_vocab)
{
    struct job *j = user;
    (void)n_vocab;
    if (item == 0 || (item == j->n_chosen && j->chosen[item - 1] == j->draft[item - 1]))
        return choose_token(j, logits);
    return true;
}

/* How many tokens a step may guess. A step adds up to one token more than it guesses to the text, and evaluates one
 * more than it guesses: the batch, the session's free positions and max_tokens limit it. */
static int most_guesses(const struct job *j)
{
    const int limits[] = {GEUL_DRAFT_MAX, geul_session_batch(j->s) - 1,
                          geul_session_capacity(j->s) - geul_session_length(j->s, j->how->seq) - 1,
                          j->how->max_tokens > 0 ? j->how->max_tokens - j->r.n_generated - 1 : GEUL_DRAFT_MAX};
    int most = limits[0];
    for (size_t i = 1; i < sizeof limits / sizeof *limits; i++)
        most = limits[i] < most ? limits[i] : most;
    return most;
}

/* Evaluates the last token and guesses after it; the session keeps those that were right, and chosen holds them and the
 * token that comes next. When it fails, the session is as before. */
static enum geul_status step(struct job *j)
{
    struct geul_speculator *p = j->how->speculator;
    struct geul_batch_item items[GEUL_DRAFT_MAX + 1];
    int seq = j->how->seq, length = geul_session_length(j->s, seq), most = p ? most_guesses(j) : 0;
    int32_t last = j->r.tokens[j->r.n_generated - 1];
    j->n_draft = j->n_chosen = 0;
    if (most > 0) {
        enum geul_status status = geul_speculator_draft(p, seq, last, j->sampler, most, j->draft, &j->n_draft);
        if (status != GEUL_OK)
            return status;
    }
    for (int i = 0; i <= j->n_draft; i++)
        items[i] = (struct geul_batch_item){i == 0 ? last : j->draft[i - 1], seq, true};
    double start = geul_os_seconds();
    enum geul_status status = geul_session_eval(j->s, items, j->n_draft + 1, choose, j);
    if (status != GEUL_OK) /* what choose() recorded, if it was that */
        return geul_error_status(geul_session_context(j->s));
    /* Stays: last and the guesses that were chosen, n_chosen - 1 of them. The final choice is not evaluated yet. */
    geul_session_truncate(j->s, seq, length + j->n_chosen);
    if (p)
        geul_speculator_learn(p, j->n_draft, j->n_chosen - 1, geul_os_seconds() - start);
    j->r.n_drafted += j->n_draft;
    j->r.n_accepted += j->n_chosen - 1;
    return GEUL_OK;
}

/* Continues from the first chosen token until something ends the text. */
static enum geul_status run_generation(struct job *j)
{
    double start = geul_os_seconds();
    enum geul_status status = GEUL_OK;
    for (bool ended = false; !ended && status == GEUL_OK;) {
        for (int i = 0; i < j->n_chosen && !ended && status == GEUL_OK; i++)
            status = emit(j, j->chosen[i], &ended);
        if (!ended && status == GEUL_OK)
            status = step(j);
        if (status == GEUL_ERROR_CANCELLED) { /* the text so far is a result */
            geul_error_clear(j->out.ctx);
            j->r.reason = GEUL_STOP_CALLER;
            status = GEUL_OK;
            break;
        }
    }
    /* Guesses that were accepted behind the end leave again: the session then holds the text but for its last token, as
     * between steps. */
    geul_session_truncate(j->s, j->how->seq, j->r.n_prompt + j->r.n_generated - 1);
    if (status != GEUL_OK)
        return status;
    j->r.generation_seconds = geul_os_seconds() - start;
    return output_finish(&j->out, j->r.reason == GEUL_STOP_STRING) ? GEUL_OK : GEUL_ERROR_MEMORY;
}

enum geul_status geul_generate_ids(struct geul_session *s, const int32_t *ids, int n, const struct geul_generation *how,
                                   struct geul_generation_result *result)
{
    struct geul_context *ctx = geul_session_context(s);
    const struct geul_model *m = geul_session_model(s);
    geul_error_clear(ctx);
    if (result)
        *result = (struct geul_generation_result){0};
    if (n < 1 || how->seq < 0 || how->seq >= geul_session_sequences(s))
        return geul_fail(ctx, GEUL_ERROR_ARGUMENT,
                         "generation needs a prompt of at least one token and a sequence "
                         "below %d",
                         geul_session_sequences(s));
    if (how->speculator && geul_speculator_session(how->speculator) != s)
        return geul_fail(ctx, GEUL_ERROR_ARGUMENT, "the speculator was made for another session");
    struct job j = {.s = s, .how = how, .tok = geul_model_get_tokenizer(m), .out = {.ctx = ctx, .how = how}};
    j.sampler = geul_sampler_new(ctx, how->sampling, geul_model_get_shape(m)->n_vocab, geul_model_usable_vocab(m));
    enum geul_status status = j.sampler ? run_prompt(&j, ids, n) : geul_error_status(ctx);
    if (status == GEUL_OK)
        status = run_generation(&j);
    geul_sampler_free(j.sampler);
    if (status == GEUL_OK && result) {
        *result = j.r;
        result->text = j.out.text;
        result->text_length = j.out.length;
    } else {
        geul_free(ctx, j.r.tokens);
        geul_free(ctx, j.out.text);
    }
    return status;
}

enum geul_status geul_generate(struct geul_session *s, const char *prompt, const struct geul_generation *how,
                               struct geul_generation_result *result)
{
    struct geul_context *ctx = geul_session_context(s);
    const struct geul_tokenizer *tok = geul_model_get_tokenizer(geul_session_model(s));
    geul_error_clear(ctx);
    if (result)
        *result = (struct geul_generation_result){0};
    if (!tok)
        return geul_fail(ctx, GEUL_ERROR_UNSUPPORTED, "the model has no tokenizer: give it token ids");
    int32_t *ids;
    size_t n;
    enum geul_status status = geul_tokenize_whole(ctx, tok, prompt, strlen(prompt), true, true, &ids, &n);
    if (status != GEUL_OK)
        return status;
    int32_t end = geul_token_end(tok);
    if (n == 0 && end >= 0) /* documents are separated by the end token, so a text begins after one */
        status = geul_generate_ids(s, &end, 1, how, result);
    else if (n > (size_t)geul_session_capacity(s))
        status = geul_fail(ctx, GEUL_ERROR_ARGUMENT, "the prompt has %zu tokens; the session holds %d", n,
                           geul_session_capacity(s));
    else
        status = geul_generate_ids(s, ids, (int)n, how, result);
    geul_tokens_free(ctx, ids);
    return status;
}

/* generate.c: from a prompt to text: reuses what the session holds, samples, streams whole code points and keeps stop
 * strings from ever being printed. */
#include "models/session.h"

#include "core/os.h"

#include <string.h>

/* ------------------------------------------------------------------------------------------------------- output -- */

/* The text generated so far; [0, shown) was handed out. */
struct output {
    struct geul_context *ctx;
    const struct geul_generation *how;
    char *text;
    size_t length, size, shown;
    struct geul_utf8_stream stream;
    bool stopped_by_caller;
};

static bool reserve(struct output *o, size_t more)
{
    if (o->size - o->length > more)
        return true;
    size_t size = 2 * o->size + more + 256;
    char *grown = geul_realloc(o->ctx, o->text, size, 1);
    if (!grown)
        return false;
    o->text = grown;
    o->size = size;
    return true;
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
        for (size_t at = from > n ? from - n : 0; n > 0 && at + n <= o->length && at < first; at++)
            if (memcmp(o->text + at, o->how->stop[i], n) == 0)
                first = at;
    }
    return first;
}

/* The end of what can be shown already: nothing behind it may be the beginning of a stop string. */
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

/* Takes n new bytes at the end of the text; true when a stop string is complete (the text then ends before it). */
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
    if (!reserve(o, 3 * (n + 4)))
        return false;
    *stop = take(o, geul_utf8_push(&o->stream, bytes, n, o->text + o->length));
    return true;
}

/* The end of generation: what was held back goes out, unless it is the beginning of a stopped text. */
static bool output_finish(struct output *o, bool stopped)
{
    if (!reserve(o, 16))
        return false;
    if (!stopped)
        take(o, geul_utf8_finish(&o->stream, o->text + o->length));
    show(o, o->length);
    return true;
}

/* --------------------------------------------------------------------------------------------------- generation -- */

/* One call of geul_generate(). */
struct job {
    struct geul_session *s;
    const struct geul_generation *how;
    const struct geul_tokenizer *tok;
    struct geul_sampler *sampler;
    struct output out;
    struct geul_generation_result r;
    size_t tokens_size; /* of r.tokens */
};

/* How many of ids the sequence already holds; at least one is left to compute, since its logits are needed. */
static int common_prefix(const struct geul_session *s, int seq, const int32_t *ids, int n)
{
    const int32_t *held = geul_session_tokens(s, seq);
    int most = geul_session_length(s, seq), i = 0;
    while (i < most && i < n - 1 && held[i] == ids[i])
        i++;
    return i;
}

/* Computes what is new of the prompt; *logits are those of its last token. */
static enum geul_status run_prompt(struct job *j, const int32_t *ids, int n, const float **logits)
{
    struct geul_context *ctx = geul_session_context(j->s);
    int seq = j->how->seq, batch = geul_session_batch(j->s);
    if (n > geul_session_capacity(j->s))
        return geul_fail(ctx, GEUL_ERROR_ARGUMENT, "the prompt has %d tokens; the session holds %d", n,
                         geul_session_capacity(j->s));
    double start = geul_os_seconds();
    j->r.n_prompt = n;
    j->r.n_reused = common_prefix(j->s, seq, ids, n);
    geul_session_truncate(j->s, seq, j->r.n_reused);
    for (int done = j->r.n_reused; done < n;) {
        int m = n - done < batch ? n - done : batch;
        enum geul_status status = geul_session_append(j->s, seq, ids + done, m, done + m == n ? logits : NULL);
        if (status != GEUL_OK)
            return status;
        done += m;
        if (j->how->on_prompt && !j->how->on_prompt(j->how->user, done, n))
            return geul_fail(ctx, GEUL_ERROR_CANCELLED, "stopped by the caller");
    }
    for (int i = 0; i < n; i++)
        geul_sampler_accept(j->sampler, ids[i]);
    j->r.prompt_seconds = geul_os_seconds() - start;
    return GEUL_OK;
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

/* Samples until something ends the text. */
static enum geul_status run_generation(struct job *j, const float *logits)
{
    double start = geul_os_seconds();
    int32_t end = j->tok && !j->how->ignore_end_token ? geul_token_end(j->tok) : -1;
    bool stop = false;
    j->r.reason = GEUL_STOP_LENGTH;
    while (j->how->max_tokens <= 0 || j->r.n_generated < j->how->max_tokens) {
        int32_t token = geul_sampler_next(j->sampler, logits);
        if (token < 0)
            return geul_fail(j->out.ctx, GEUL_ERROR_FORMAT,
                             "no logit is a finite number: the weights or the prompt's activations are broken");
        if (!remember_token(j, token))
            return GEUL_ERROR_MEMORY;
        if (token == end) {
            j->r.reason = GEUL_STOP_END_TOKEN;
            break;
        }
        if (!output_token(&j->out, j->tok, token, &stop))
            return GEUL_ERROR_MEMORY;
        if (stop || j->out.stopped_by_caller) {
            j->r.reason = stop ? GEUL_STOP_STRING : GEUL_STOP_CALLER;
            break;
        }
        if (geul_session_length(j->s, j->how->seq) == geul_session_capacity(j->s)) {
            j->r.reason = GEUL_STOP_CONTEXT;
            break;
        }
        if (j->how->max_tokens > 0 && j->r.n_generated == j->how->max_tokens)
            break;
        enum geul_status status = geul_session_append(j->s, j->how->seq, &token, 1, &logits);
        if (status != GEUL_OK)
            return status;
    }
    j->r.generation_seconds = geul_os_seconds() - start;
    return output_finish(&j->out, stop) ? GEUL_OK : GEUL_ERROR_MEMORY;
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
    struct job j = {.s = s, .how = how, .tok = geul_model_get_tokenizer(m), .out = {.ctx = ctx, .how = how}};
    j.sampler = geul_sampler_new(ctx, how->sampling, geul_model_get_shape(m)->n_vocab, geul_model_usable_vocab(m));
    const float *logits = NULL;
    enum geul_status status = j.sampler ? run_prompt(&j, ids, n, &logits) : geul_error_status(ctx);
    if (status == GEUL_OK)
        status = run_generation(&j, logits);
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
    enum geul_status status = geul_tokenize(ctx, tok, prompt, strlen(prompt), true, &ids, &n);
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

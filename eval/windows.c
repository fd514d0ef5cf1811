/* windows.c: see windows.h. */
#include "eval/windows.h"

#include "models/session.h"

static size_t smaller(size_t a, size_t b)
{
    return a < b ? a : b;
}

const char *geul_windows_method_name(enum geul_windows_method method)
{
    static const char *const names[] = {[GEUL_WINDOWS_STRIDE] = "stride", [GEUL_WINDOWS_LLAMA] = "llama"};
    return names[method];
}

/* A text of 14 tokens, n_context 8; s: scored, -: context only.
 *
 *   token             0  1  2  3  4  5  6  7  8  9 10 11 12 13
 *   stride 4    0     -  s  s  s  s  s  s  s                      what no earlier window has scored, so first is the
 *               1                 -  -  -  -  s  s  s  s          end of the window before: begin - step + context
 *               2                             -  -  -  -  s  s
 *   llama       0     -  -  -  -  -  s  s  s                      the second half less one; 8 to 13 fill no window
 *
 * Token t is scored by the logits of t - 1 in the same window, so the last token of a window is never computed. */
struct geul_window geul_windows_at(const struct geul_windows *w, size_t i)
{
    size_t context = (size_t)w->n_context, step = w->method == GEUL_WINDOWS_LLAMA ? context : (size_t)w->stride;
    struct geul_window window = {.begin = i * step};
    window.end = smaller(window.begin + context, w->n_tokens);
    if (w->method == GEUL_WINDOWS_LLAMA)
        window.first = window.begin + context / 2 + 1;
    else
        window.first = i == 0 ? 1 : window.begin - step + context;
    return window;
}

enum geul_status geul_windows_make(struct geul_context *ctx, enum geul_windows_method method, size_t n_tokens,
                                   int n_context, int stride, size_t most, struct geul_windows *out)
{
    bool llama = method == GEUL_WINDOWS_LLAMA;
    if (n_context < GEUL_WINDOWS_LEAST_CONTEXT)
        return geul_fail(ctx, GEUL_ERROR_ARGUMENT, "a context of %d tokens is too short; at least %d are needed",
                         n_context, GEUL_WINDOWS_LEAST_CONTEXT);
    if (llama && stride != 0)
        return geul_fail(ctx, GEUL_ERROR_ARGUMENT,
                         "a stride applies only to the method stride; llama's windows do not overlap");
    if (stride < 0 || stride >= n_context)
        return geul_fail(ctx, GEUL_ERROR_ARGUMENT,
                         "a stride of %d does not fit a context of %d tokens; 1 to %d is possible", stride, n_context,
                         n_context - 1);
    size_t context = (size_t)n_context, least = llama ? context : 2;
    if (n_tokens < least)
        return geul_fail(ctx, GEUL_ERROR_ARGUMENT, "the text has %zu tokens; the method %s needs at least %zu%s",
                         n_tokens, geul_windows_method_name(method), least, llama ? ", one context" : "");
    struct geul_windows w = {.method = method, .n_context = n_context, .n_tokens = n_tokens};
    w.stride = llama ? 0 : stride ? stride : n_context / 2;
    if (llama)
        w.n_windows = n_tokens / context;
    else
        w.n_windows = n_tokens <= context ? 1 : 1 + (n_tokens - context - 1) / (size_t)w.stride + 1;
    if (most)
        w.n_windows = smaller(w.n_windows, most);
    /* by stride every token but the first, up to the end of the last window */
    w.n_scored = llama ? w.n_windows * (context - context / 2 - 1) : geul_windows_at(&w, w.n_windows - 1).end - 1;
    *out = w;
    return GEUL_OK;
}

uint64_t geul_windows_work(const struct geul_windows *w)
{
    uint64_t total = 0;
    for (size_t i = 0; i < w->n_windows; i++) {
        struct geul_window window = geul_windows_at(w, i);
        total += window.end - window.begin - 1;
    }
    return total;
}

int geul_windows_sequences(const struct geul_windows *w, int n_batch)
{
    size_t length = smaller((size_t)w->n_context, w->n_tokens) - 1;
    size_t fit = (size_t)(n_batch > 0 ? n_batch : 1) / length;
    return (int)smaller(fit ? fit : 1, w->n_windows);
}

/* The windows that are computed together, one per sequence of the session: their tokens, and what each predicts. */
struct round {
    const struct geul_windows_callbacks *callbacks;
    struct geul_batch_item *items;
    size_t *targets; /* per item */
    size_t n_items;
    size_t offset; /* of the current batch */
};

static bool pass_row(void *user, int item, const float *logits, int n_vocab)
{
    const struct round *r = user;
    return r->callbacks->on_row(r->callbacks->user, r->targets[r->offset + (size_t)item], logits, n_vocab);
}

/* Appends a window for sequence seq: all of its tokens but the last, with logits where they predict a scored one. */
static void add_window(struct round *r, const struct geul_window *w, const int32_t *ids, int seq)
{
    for (size_t t = w->begin; t + 1 < w->end; t++) {
        r->items[r->n_items] = (struct geul_batch_item){ids[t], seq, t + 1 >= w->first};
        r->targets[r->n_items++] = t + 1;
    }
}

/* Computes the round batch by batch, from empty sequences. Batches may end within a window: the cache has what came
 * before. */
static enum geul_status compute_round(struct geul_session *s, struct round *r, uint64_t *done, uint64_t total)
{
    size_t batch = (size_t)geul_session_batch(s);
    for (int seq = 0; seq < geul_session_sequences(s); seq++)
        geul_session_truncate(s, seq, 0);
    for (r->offset = 0; r->offset < r->n_items; r->offset += batch) {
        size_t n = smaller(batch, r->n_items - r->offset);
        enum geul_status status = geul_session_eval(s, r->items + r->offset, (int)n, pass_row, r);
        if (status != GEUL_OK)
            return geul_error_status(geul_session_context(s)); /* a callback's own reason comes first */
        *done += n;
        if (r->callbacks->on_batch && !r->callbacks->on_batch(r->callbacks->user, *done, total))
            return geul_fail(geul_session_context(s), GEUL_ERROR_CANCELLED, "stopped by the caller");
    }
    return GEUL_OK;
}

enum geul_status geul_windows_run(struct geul_session *s, const struct geul_windows *w, const int32_t *ids,
                                  const struct geul_windows_callbacks *callbacks)
{
    struct geul_context *ctx = geul_session_context(s);
    size_t longest = smaller((size_t)w->n_context, w->n_tokens) - 1, at_once = (size_t)geul_session_sequences(s);
    geul_error_clear(ctx);
    if (longest > (size_t)geul_session_capacity(s))
        return geul_fail(ctx, GEUL_ERROR_ARGUMENT, "windows of %zu tokens do not fit a session of %d positions",
                         longest, geul_session_capacity(s));
    uint64_t done = 0, total = geul_windows_work(w);
    struct round r = {.callbacks = callbacks};
    r.items = geul_alloc(ctx, at_once * longest, sizeof *r.items);
    r.targets = geul_alloc(ctx, at_once * longest, sizeof *r.targets);
    enum geul_status status = r.items && r.targets ? GEUL_OK : GEUL_ERROR_MEMORY;
    /* rounds of at_once windows: in the order of the windows, so targets ascend */
    for (size_t i = 0; i < w->n_windows && status == GEUL_OK; i += at_once) {
        r.n_items = 0;
        for (size_t k = 0; k < at_once && i + k < w->n_windows; k++) {
            struct geul_window window = geul_windows_at(w, i + k);
            add_window(&r, &window, ids, (int)k);
        }
        status = compute_round(s, &r, &done, total);
    }
    geul_free(ctx, r.items);
    geul_free(ctx, r.targets);
    return status;
}

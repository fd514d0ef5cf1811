/* evaluate.c: see evaluate.h. */
#include "eval/evaluate.h"

#include "core/context.h"

#include <math.h>

struct pass {
    struct geul_context *ctx;
    struct geul_evaluation *e;
    size_t row;
};

/* Compares a row with the base model's. */
static enum geul_status compare(struct pass *p, size_t target, const float *logits, double nats)
{
    struct geul_evaluation *e = p->e;
    struct geul_divergence_pair pair = {
        .logits = logits, .n = e->base->n_vocab, .target = e->ids[target], .nats = nats, .length = e->lengths[target]};
    pair.base = geul_base_logits_row(e->base, p->row, &pair.base_nats);
    return geul_divergence_add(p->ctx, &e->divergence, &pair);
}

/* A scored token: rows come in the order of the base file's, so p->row counts both. */
static bool take_row(void *user, size_t target, const float *logits, int n_vocab)
{
    struct pass *p = user;
    struct geul_evaluation *e = p->e;
    double nats = geul_nats(logits, n_vocab, e->ids[target]);
    if (!isfinite(nats)) {
        geul_fail(p->ctx, GEUL_ERROR_FORMAT, "the model's logits for token %zu of the text are not finite", target);
        return false;
    }
    geul_perplexity_add(&e->perplexity, nats, e->lengths[target]);
    bool ok = (!e->save || geul_base_writer_add(e->save, nats, logits) == GEUL_OK) &&
              (!e->base || compare(p, target, logits, nats) == GEUL_OK);
    p->row++;
    return ok;
}

static bool pass_batch(void *user, uint64_t done, uint64_t total)
{
    const struct pass *p = user;
    return !p->e->on_batch || p->e->on_batch(p->e->user, done, total);
}

enum geul_status geul_evaluate(struct geul_session *s, struct geul_evaluation *e)
{
    struct geul_context *ctx = geul_session_context(s);
    int n_vocab = geul_model_get_shape(geul_session_model(s))->n_vocab;
    geul_error_clear(ctx);
    if (e->base && e->base->n_vocab > n_vocab)
        return geul_fail(ctx, GEUL_ERROR_ARGUMENT, "the base model has %d ids, this one only %d", e->base->n_vocab,
                         n_vocab);
    struct pass pass = {ctx, e, 0};
    struct geul_windows_callbacks callbacks = {take_row, pass_batch, &pass};
    return geul_windows_run(s, &e->windows, e->ids, &callbacks);
}

/* divergence.h: how far a model's predictions are from those of a base model: Kullback-Leibler divergence and related
 * figures, token by token over the same text. */
#ifndef GEUL_DIVERGENCE_H
#define GEUL_DIVERGENCE_H

#include "eval/perplexity.h"

/* Sums over scored tokens. Zero it to start; values and context are set by geul_divergence_add(). */
struct geul_divergence {
    double *values; /* the divergence of every token, in nats */
    size_t n, capacity;
    size_t same_top;
    struct geul_moments kl, probability; /* probability: difference and its square */
    struct geul_moments log_ratio;       /* nats above the base model's */
    struct geul_perplexity base;
};

/* What one token contributes: the logits of both models over the same n ids, the scored token, and its nats. */
struct geul_divergence_pair {
    const float *base, *logits;
    int n;
    int32_t target;
    double base_nats, nats;
    struct geul_text_length length;
};
/* Distributions are compared over the n ids alone. GEUL_ERROR_FORMAT when the divergence is not finite. */
enum geul_status geul_divergence_add(struct geul_context *ctx, struct geul_divergence *d,
                                     const struct geul_divergence_pair *pair);
void geul_divergence_free(struct geul_context *ctx, struct geul_divergence *d);

/* The figures; sorts d->values. At least one token must have been added. */
struct geul_divergence_report geul_divergence_get(struct geul_divergence *d);

#endif

/* divergence.c: see divergence.h. */
#include "eval/divergence.h"

#include "core/context.h"

#include <math.h>
#include <stdlib.h>

static const double quantiles[GEUL_DIVERGENCE_QUANTILES] = {0.5, 0.9, 0.95, 0.99, 0.999};

/* A distribution: its largest logit with the first id that has it, and the log of the sum of all exponentials. */
struct softmax {
    double most, log_sum;
    int top;
};

static struct softmax softmax_of(const float *logits, int n)
{
    struct softmax s = {.most = -INFINITY};
    double sum = 0;
    for (int i = 0; i < n; i++)
        if (logits[i] > s.most) {
            s.most = logits[i];
            s.top = i;
        }
    for (int i = 0; i < n; i++)
        sum += exp((double)logits[i] - s.most);
    s.log_sum = s.most + log(sum);
    return s;
}

/* KL(p || q) in double precision, with log p = p[i] - log_sum and shift = log_sum of p minus that of q: log p - log q
 * is p[i] - q[i] - shift. Exactly 0 when both rows are equal. */
static double divergence(const float *p, const float *q, int n, double shift, double log_sum)
{
    double kl = 0;
    for (int i = 0; i < n; i++) {
        double a = p[i];
        kl += exp(a - log_sum) * (a - (double)q[i] - shift);
    }
    return kl > 0 ? kl : isnan(kl) ? kl : 0; /* rounding alone can go below 0 */
}

/* Appends to d->values. */
static bool append_value(struct geul_context *ctx, struct geul_divergence *d, double kl)
{
    if (!geul_reserve(ctx, &d->values, &d->capacity, d->n + 1, sizeof *d->values))
        return false;
    d->values[d->n++] = kl;
    return true;
}

enum geul_status geul_divergence_add(struct geul_context *ctx, struct geul_divergence *d,
                                     const struct geul_divergence_pair *pair)
{
    /* moved: change of the target's probability */
    struct softmax base = softmax_of(pair->base, pair->n), own = softmax_of(pair->logits, pair->n);
    double kl = divergence(pair->base, pair->logits, pair->n, base.log_sum - own.log_sum, base.log_sum);
    double moved =
        exp((double)pair->logits[pair->target] - own.log_sum) - exp((double)pair->base[pair->target] - base.log_sum);
    if (!isfinite(kl) || !isfinite(moved) || !isfinite(pair->base_nats))
        return geul_fail(ctx, GEUL_ERROR_FORMAT, "scored token %zu: the logits of one of the two models are not finite",
                         d->n);
    if (!append_value(ctx, d, kl))
        return GEUL_ERROR_MEMORY;
    d->same_top += base.top == own.top;
    geul_moments_add(&d->kl, kl, 0);
    geul_moments_add(&d->probability, moved, moved * moved);
    geul_moments_add(&d->log_ratio, pair->nats - pair->base_nats, 0);
    geul_perplexity_add(&d->base, pair->base_nats, pair->length);
    return GEUL_OK;
}

void geul_divergence_free(struct geul_context *ctx, struct geul_divergence *d)
{
    geul_free(ctx, d->values);
    *d = (struct geul_divergence){.values = NULL};
}

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* The root of the mean square (of y, which holds squares); its error by the delta method. */
static struct geul_estimate root_mean_square(const struct geul_moments *m)
{
    struct geul_moments squares = {.n = m->n, .mean_x = m->mean_y, .xx = m->yy};
    struct geul_estimate mean = geul_moments_mean(&squares);
    double root = sqrt(mean.value);
    return (struct geul_estimate){root, root > 0 ? mean.error / (2 * root) : mean.error};
}

struct geul_divergence_report geul_divergence_get(struct geul_divergence *d)
{
    double n = (double)d->n, share = (double)d->same_top / n;
    qsort(d->values, d->n, sizeof *d->values, ascending);
    struct geul_divergence_report r = {
        .mean = geul_moments_mean(&d->kl),
        .max = d->values[d->n - 1],
        .same_top = {share, d->n < 2 ? NAN : sqrt(share * (1 - share) / (n - 1))},
        .probability_mean = geul_moments_mean(&d->probability),
        .probability_rms = root_mean_square(&d->probability),
        .base_perplexity = geul_perplexity_get(&d->base).perplexity,
        .perplexity_ratio = geul_estimate_exp(geul_moments_mean(&d->log_ratio)),
    };
    for (int i = 0; i < GEUL_DIVERGENCE_QUANTILES; i++)
        r.quantiles[i] = geul_quantile(d->values, d->n, quantiles[i]);
    return r;
}

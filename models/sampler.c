/* sampler.c: from logits to a token, the same one on every machine for the same seed and logits.
 *
 * Therefore only operations occur that IEEE 754 defines to the last bit: sums, products, quotients, comparisons,
 * scaling by powers of two. exp and log are made of them below, since those of C libraries differ. Sums go in the order
 * of the sorted candidates, and that order is total (by_p), so that it does not matter how qsort() works. Random
 * numbers are a function of the seed, the number of the choice and the token's id, not of a state.
 *
 * Which candidates are left depends on the order of the steps (geul_sampling.order): a filter behind the temperature
 * sees the probabilities that the temperature made. It divides no logit, but is a factor for all that follow. */
#include "models/sampler.h"

#include "core/context.h"
#include "core/random.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

struct candidate {
    int32_t id;
    float logit;
    double p; /* probability, or whatever the present filter sorts by */
};

struct geul_sampler {
    struct geul_context *ctx;
    struct geul_sampling how;
    int n_vocab, n_allowed;
    uint64_t seed, n_chosen; /* the random numbers of a choice follow from these two and the ids */
    double confidence;       /* of the last choice */
    double sharpness;        /* 1 / temperature from that step on, 1 before; within a choice */
    struct candidate *candidates;
    /* The tokens that count as seen are the last n_window of n_history. The ring holds GEUL_SAMPLER_UNDO_MAX more, so
     * that what left the window can come back. */
    int32_t *history;
    uint64_t n_history, n_window, n_ring;
    int *counts; /* per id, how often it occurs in the window */
};

struct geul_sampling geul_sampling_default(void)
{
    return (struct geul_sampling){.temperature = 0.8f,
                                  .top_k = 40,
                                  .top_p = 0.95f,
                                  .min_p = 0.05f,
                                  .typical_p = 1,
                                  .repeat_penalty = 1,
                                  .penalty_last_n = 64};
}

/* ------------------------------------------------------------------------------------- order -- */

static const enum geul_sampling_step llama_cpp[] = {GEUL_SAMPLING_TOP_K, GEUL_SAMPLING_TYPICAL,     GEUL_SAMPLING_TOP_P,
                                                    GEUL_SAMPLING_MIN_P, GEUL_SAMPLING_TEMPERATURE, GEUL_SAMPLING_END},
                                     transformers[] = {GEUL_SAMPLING_TEMPERATURE, GEUL_SAMPLING_TOP_K,
                                                       GEUL_SAMPLING_TOP_P,       GEUL_SAMPLING_MIN_P,
                                                       GEUL_SAMPLING_TYPICAL,     GEUL_SAMPLING_END};

/* The names of steps: llama.cpp's, and those of transformers' options. */
static const struct {
    const char *name;
    enum geul_sampling_step step;
} step_names[] = {
    {"top_k", GEUL_SAMPLING_TOP_K},       {"typ_p", GEUL_SAMPLING_TYPICAL},
    {"typical_p", GEUL_SAMPLING_TYPICAL}, {"typical", GEUL_SAMPLING_TYPICAL},
    {"top_p", GEUL_SAMPLING_TOP_P},       {"min_p", GEUL_SAMPLING_MIN_P},
    {"temp", GEUL_SAMPLING_TEMPERATURE},  {"temperature", GEUL_SAMPLING_TEMPERATURE},
};

/* The step of that name, n bytes long, with - for _ too; GEUL_SAMPLING_END: none. */
static enum geul_sampling_step step_named(const char *name, size_t n)
{
    for (size_t i = 0; i < sizeof step_names / sizeof *step_names; i++) {
        const char *known = step_names[i].name;
        size_t k = 0;
        while (k < n && known[k] && (name[k] == known[k] || (name[k] == '-' && known[k] == '_')))
            k++;
        if (k == n && !known[k])
            return step_names[i].step;
    }
    return GEUL_SAMPLING_END;
}

/* Whether a name has its place in llama.cpp's orders and stands for nothing here: the penalties, which come first in
 * any case, and steps that do nothing there either without options that geul does not have. */
static bool is_idle(const char *name, size_t n, bool first)
{
    static const char *const names[] = {"penalties", "dry", "top_n_sigma", "xtc"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (n == strlen(names[i]) && memcmp(name, names[i], n) == 0)
            return i > 0 || first;
    return false;
}

/* Whether no step comes twice, all are known, and there is an end. */
static bool is_order(const enum geul_sampling_step *order)
{
    unsigned seen = 0;
    int i = 0;
    for (; i < GEUL_SAMPLING_STEPS && order[i] != GEUL_SAMPLING_END; i++) {
        if ((unsigned)order[i] >= GEUL_SAMPLING_STEPS || (seen >> order[i] & 1))
            return false;
        seen |= 1u << order[i];
    }
    return i < GEUL_SAMPLING_STEPS;
}

enum geul_status geul_sampling_set_order(struct geul_context *ctx, struct geul_sampling *sampling, const char *order)
{
    enum geul_sampling_step steps[GEUL_SAMPLING_STEPS + 1] = {GEUL_SAMPLING_END};
    int n = 0;
    if (!order || strcmp(order, "llama.cpp") == 0 || strcmp(order, "hf") == 0) {
        memcpy(sampling->order, order && order[0] == 'h' ? transformers : llama_cpp, sizeof sampling->order);
        return GEUL_OK;
    }
    for (const char *at = order; *at;) {
        size_t length = strcspn(at, ";,");
        bool idle = is_idle(at, length, at == order);
        steps[n] = idle ? GEUL_SAMPLING_END : step_named(at, length);
        if (!idle && steps[n] == GEUL_SAMPLING_END)
            return geul_fail(
                ctx, GEUL_ERROR_ARGUMENT,
                "\"%.*s\" is no step of sampling here; an order is hf, llama.cpp or a list of top_k, top_p, "
                "min_p, typ_p and temperature, such as top_k;temperature;top_p",
                (int)(length < 40 ? length : 40), at);
        n += !idle;
        steps[n] = GEUL_SAMPLING_END;
        if (!is_order(steps))
            return geul_fail(ctx, GEUL_ERROR_ARGUMENT, "the order of sampling names %.*s twice",
                             (int)(length < 40 ? length : 40), at);
        at += length + (at[length] != '\0');
    }
    if (n == 0)
        return geul_fail(ctx, GEUL_ERROR_ARGUMENT, "the order of sampling names no step");
    memcpy(sampling->order, steps, sizeof sampling->order);
    return GEUL_OK;
}

/* -------------------------------------------------------------------------- portable numbers -- */

/* e^x for x <= 0, to about 1e-15; the C library's may differ by a bit from machine to machine. */
static double portable_exp(double x)
{
    if (!(x > -700)) /* stays clear of denormals, which some machines flush */
        return 0;
    /* x = k ln 2 + r. ln 2 in two parts: k * ln2_high is exact, as its low bits are zero. */
    const double ln2_high = 0x1.62e42fee00000p-1, ln2_low = 0x1.a39ef35793c76p-33;
    int k = (int)(x * 1.4426950408889634 - 0.5);
    double r = (x - k * ln2_high) - k * ln2_low, term = 1, sum = 1; /* |r| <= 0.35 */
    for (int i = 1; i <= 14; i++) {
        term *= r / i;
        sum += term;
    }
    return ldexp(sum, k);
}

/* ln x for x >= 1, by Newton's method on portable_exp(). */
static double portable_log(double x)
{
    int k;
    double m = frexp(x, &k), y = k * 0.6931471805599453 + (m - 1);
    for (int i = 0; i < 6; i++)
        y += x * portable_exp(-y) - 1;
    return y;
}

/* Number n of the sequence that seed begins, as a number in the open interval (0, 1): its log is finite. */
static double uniform(uint64_t seed, uint64_t n)
{
    return ((double)(geul_random_splitmix(seed, n) >> 12) + 0.5) * 0x1p-52;
}

/* ---------------------------------------------------------------------------------- lifetime -- */

struct geul_sampler *geul_sampler_new(struct geul_context *ctx, const struct geul_sampling *sampling, int n_vocab,
                                      int n_allowed)
{
    struct geul_sampling how = sampling ? *sampling : geul_sampling_default();
    if (n_vocab < 1 || n_allowed < 1 || n_allowed > n_vocab || how.top_k < 0 || how.penalty_last_n < -1 ||
        !(how.repeat_penalty > 0) || !isfinite(how.repeat_penalty) || !isfinite(how.presence_penalty) ||
        !isfinite(how.frequency_penalty) || !(how.top_p >= 0) || !(how.typical_p >= 0) || !(how.min_p >= 0)) {
        geul_fail(ctx, GEUL_ERROR_ARGUMENT,
                  "sampling needs top-k >= 0, top-p, min-p, typical-p >= 0, a repeat penalty > 0, finite penalties and "
                  "a vocabulary");
        return NULL;
    }
    if (how.order[0] == GEUL_SAMPLING_END)
        memcpy(how.order, llama_cpp, sizeof how.order);
    if (!is_order(how.order)) {
        geul_fail(ctx, GEUL_ERROR_ARGUMENT, "the order of sampling names a step twice or one that does not exist");
        return NULL;
    }
    struct geul_sampler *s = geul_alloc(ctx, 1, sizeof *s);
    if (!s)
        return NULL;
    s->ctx = ctx;
    s->how = how;
    s->n_vocab = n_vocab;
    s->n_allowed = n_allowed;
    s->n_window = how.penalty_last_n < 0 ? 1 << 20 : (uint64_t)how.penalty_last_n;
    s->n_ring = s->n_window + GEUL_SAMPLER_UNDO_MAX;
    s->candidates = geul_alloc(ctx, (size_t)n_allowed, sizeof *s->candidates);
    s->history = geul_alloc(ctx, (size_t)s->n_ring, sizeof *s->history);
    s->counts = geul_alloc(ctx, (size_t)n_vocab, sizeof *s->counts);
    if (!s->candidates || !s->history || !s->counts) {
        geul_sampler_free(s);
        return NULL;
    }
    geul_sampler_reset(s, how.seed);
    return s;
}

void geul_sampler_free(struct geul_sampler *s)
{
    if (!s)
        return;
    geul_free(s->ctx, s->candidates);
    geul_free(s->ctx, s->history);
    geul_free(s->ctx, s->counts);
    geul_free(s->ctx, s);
}

void geul_sampler_reset(struct geul_sampler *s, uint64_t seed)
{
    s->seed = seed;
    s->n_chosen = s->n_history = 0;
    memset(s->counts, 0, (size_t)s->n_vocab * sizeof *s->counts);
}

/* Adds step to the count of the token that leaves the window when token number n enters it. */
static void count_leaving(struct geul_sampler *s, uint64_t n, int step)
{
    if (n >= s->n_window)
        s->counts[s->history[(n - s->n_window) % s->n_ring]] += step;
}

void geul_sampler_accept(struct geul_sampler *s, int32_t token)
{
    if (s->n_window == 0 || token < 0 || token >= s->n_vocab)
        return;
    count_leaving(s, s->n_history, -1);
    s->history[s->n_history++ % s->n_ring] = token;
    s->counts[token]++;
}

void geul_sampler_undo(struct geul_sampler *s, int n)
{
    /* accept() backwards, newest first: a token leaves the window at its end, and one comes back at its beginning,
     * which the ring still holds. */
    s->n_chosen -= (uint64_t)n;
    for (; n > 0 && s->n_window > 0; n--) {
        s->counts[s->history[--s->n_history % s->n_ring]]--;
        count_leaving(s, s->n_history, 1);
    }
}

double geul_sampler_confidence(const struct geul_sampler *s)
{
    return s->confidence;
}

/* ----------------------------------------------------------------------------------- filters -- */

/* Better first: higher p, then lower id, so that the order is total. */
static int by_p(const void *a, const void *b)
{
    const struct candidate *x = a, *y = b;
    if (x->p != y->p)
        return x->p > y->p ? -1 : 1;
    return x->id < y->id ? -1 : x->id > y->id;
}

static void sort_by_p(struct candidate *c, int n)
{
    qsort(c, (size_t)n, sizeof *c, by_p);
}

/* Restores a heap, in which every parent is worse than its children, after its root changed. */
static void sift_down(struct candidate *heap, int n, int root)
{
    for (int child; (child = 2 * root + 1) < n; root = child) {
        if (child + 1 < n && by_p(&heap[child + 1], &heap[child]) > 0)
            child++;
        if (by_p(&heap[root], &heap[child]) >= 0)
            return;
        struct candidate t = heap[root];
        heap[root] = heap[child];
        heap[child] = t;
    }
}

/* Keeps the k best of n by logit, best first; returns how many there are. */
static int keep_top_k(struct candidate *c, int n, int k)
{
    for (int i = 0; i < n; i++)
        c[i].p = c[i].logit;
    if (k > 0 && k < n) { /* c[0..k) is a heap of the k best so far, the worst of them at its root */
        for (int i = k / 2 - 1; i >= 0; i--)
            sift_down(c, k, i);
        for (int i = k; i < n; i++)
            if (by_p(&c[i], &c[0]) < 0) {
                c[0] = c[i];
                sift_down(c, k, 0);
            }
        n = k;
    }
    sort_by_p(c, n);
    return n;
}

/* p of sorted candidates from their logits; returns ln of the normalizer relative to the best logit. */
static double softmax(struct candidate *c, int n, double sharpness)
{
    double sum = 0;
    for (int i = 0; i < n; i++)
        sum += c[i].p = portable_exp(((double)c[i].logit - (double)c[0].logit) * sharpness);
    for (int i = 0; i < n; i++)
        c[i].p /= sum;
    return portable_log(sum);
}

/* Locally typical sampling: keeps the candidates whose surprise is nearest to the entropy, until they hold typical_p of
 * the probability. (Meister et al. 2022) */
static int keep_typical(struct candidate *c, int n, double typical_p, double sharpness)
{
    double log_sum = softmax(c, n, sharpness), entropy = 0;
    float best = c[0].logit;
    for (int i = 0; i < n; i++)
        entropy += c[i].p * (log_sum - ((double)c[i].logit - (double)best) * sharpness);
    for (int i = 0; i < n; i++)
        c[i].p = -fabs(log_sum - ((double)c[i].logit - (double)best) * sharpness - entropy);
    sort_by_p(c, n);
    double mass = 0;
    int kept = 0;
    while (kept < n && mass < typical_p)
        mass += portable_exp(((double)c[kept++].logit - (double)best) * sharpness - log_sum);
    return keep_top_k(c, kept, 0);
}

/* Keeps the best until they hold top_p of the probability; at least one. */
static int keep_top_p(struct candidate *c, int n, double top_p, double sharpness)
{
    softmax(c, n, sharpness);
    double mass = 0;
    int kept = 0;
    do
        mass += c[kept++].p;
    while (kept < n && mass < top_p);
    return kept;
}

/* Keeps what is at least min_p times as probable as the best. */
static int keep_min_p(struct candidate *c, int n, double min_p, double sharpness)
{
    int kept = 1;
    while (kept < n && portable_exp(((double)c[kept].logit - (double)c[0].logit) * sharpness) >= min_p)
        kept++;
    return kept;
}

/* Makes the allowed ids with finite logits after penalties the candidates; returns their number. */
static int gather(struct geul_sampler *s, const float *logits)
{
    const struct geul_sampling *how = &s->how;
    int n = 0;
    for (int id = 0; id < s->n_allowed; id++) {
        float l = logits[id];
        int count = s->counts[id];
        if (count > 0) {
            l = l > 0 ? l / how->repeat_penalty : l * how->repeat_penalty;
            l -= how->presence_penalty + how->frequency_penalty * (float)count;
        }
        if (isfinite(l))
            s->candidates[n++] = (struct candidate){id, l, 0};
    }
    return n;
}

/* Draws one of n sorted candidates: each gets an exponentially distributed time of rate p, -ln(u) / p, and the earliest
 * wins, which happens with probability p (the Gumbel-max trick in another form). u depends on the seed, the number of
 * the choice and the id alone: where two distributions are alike, the same candidate wins in both, and so a draft
 * model's choices are mostly the large model's (Daliri, Musco, Suresh 2024). */
static int32_t draw(struct geul_sampler *s, int n)
{
    struct candidate *c = s->candidates;
    softmax(c, n, s->sharpness);
    uint64_t seed = geul_random_splitmix(s->seed, s->n_chosen);
    double first = INFINITY, second = INFINITY;
    int32_t winner = c[0].id;
    for (int i = 0; i < n && c[i].p > 0; i++) {
        double u = uniform(seed, (uint64_t)c[i].id);
        if ((1 - u) / c[i].p >= second) /* -ln u >= 1 - u: too late without computing the log */
            continue;
        double time = portable_log(1 / u) / c[i].p;
        if (time < first) {
            second = first;
            first = time;
            winner = c[i].id;
        } else if (time < second) {
            second = time;
        }
    }
    s->confidence = isfinite(second) ? second / (first + second) : 1;
    return winner;
}

/* The likeliest of n > 0 candidates. */
static int32_t choose_best(struct geul_sampler *s, int n)
{
    struct candidate *c = s->candidates;
    n = keep_top_k(c, n, 2);
    s->confidence = n > 1 ? 1 / (1 + portable_exp((double)c[1].logit - (double)c[0].logit)) : 1;
    return c[0].id;
}

/* Takes one step on n candidates; returns how many are left. Every step gets them sorted by logit, best first, and
 * leaves them so. */
static int take_step(struct geul_sampler *s, enum geul_sampling_step step, int n)
{
    const struct geul_sampling *how = &s->how;
    struct candidate *c = s->candidates;
    switch (step) {
    case GEUL_SAMPLING_TOP_K:
        return how->top_k > 0 && how->top_k < n ? how->top_k : n;
    case GEUL_SAMPLING_TYPICAL:
        return how->typical_p < 1 ? keep_typical(c, n, (double)how->typical_p, s->sharpness) : n;
    case GEUL_SAMPLING_TOP_P:
        return how->top_p < 1 ? keep_top_p(c, n, (double)how->top_p, s->sharpness) : n;
    case GEUL_SAMPLING_MIN_P:
        return how->min_p > 0 ? keep_min_p(c, n, (double)how->min_p, s->sharpness) : n;
    case GEUL_SAMPLING_TEMPERATURE:
        s->sharpness = 1.0 / (double)how->temperature;
        return n;
    case GEUL_SAMPLING_END:
    case GEUL_SAMPLING_STEPS:
        break;
    }
    return n;
}

/* Takes all steps and draws. */
static int32_t choose_by_chance(struct geul_sampler *s, int n)
{
    const enum geul_sampling_step *step = s->how.order;
    s->sharpness = 1;
    /* The temperature leaves the order of candidates as it is: top-k as the first filter spares sorting the others. */
    const enum geul_sampling_step *first = step + (*step == GEUL_SAMPLING_TEMPERATURE);
    n = keep_top_k(s->candidates, n, *first == GEUL_SAMPLING_TOP_K ? s->how.top_k : 0);
    for (; *step != GEUL_SAMPLING_END; step++)
        n = take_step(s, *step, n);
    return draw(s, n);
}

int32_t geul_sampler_next(struct geul_sampler *s, const float *logits)
{
    int n = gather(s, logits);
    if (n == 0)
        return -1;
    int32_t token = s->how.temperature > 0 ? choose_by_chance(s, n) : choose_best(s, n);
    s->n_chosen++;
    geul_sampler_accept(s, token);
    return token;
}

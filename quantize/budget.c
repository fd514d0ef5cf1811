/* budget.c: see budget.h. Every matrix has a curve: the error over the bytes of its possible types. Only types on the
 * lower hull of the curve are worth having:
 *
 *   error
 *     | a                 a, b, d and e are on the hull. c is above the line from b to d: its bytes save more when
 *     |  \                they give d to some matrices and leave b to the others.
 *     |   \    c
 *     |    b.             A step to the next type has a price, the error it saves per byte. Along a hull the prices
 *     |       ' .         fall (the curve is convex).
 *     |           d - . e
 *     +-------------------- bytes
 *
 * Taking the steps of all matrices in the order of their prices is, until one no longer fits, the best choice for its
 * size (Lagrange). Then smaller steps fill what is left, so the error exceeds the least possible by at most what the
 * first step that did not fit would have saved. */
#include "quantize/budget.h"

#include "core/gguf.h"
#include "core/os.h"
#include "core/team.h"
#include "core/tensor.h"
#include "models/neox.h"
#include "quantize/search.h"

#include <math.h>
#include <string.h>

enum { SAMPLE_ELEMENTS = 1 << 17, SAMPLE_ROWS_LEAST = 16, STEPS_MAX = GEUL_TYPE_COUNT };

/* A type that a matrix may get. */
struct step {
    enum geul_type type;
    uint64_t bytes;
    double cost;
};

struct item {
    int64_t tensor;
    struct step steps[STEPS_MAX]; /* the lower hull, from the smallest to the best */
    int n_steps;
};

struct geul_budget {
    struct geul_context *ctx;
    struct item *items;
    int64_t n_items;
    uint64_t fixed_bytes; /* of all other tensors */
};

/* ---------------------------------------------------------------------------- what errors do -- */

/* The weight of a matrix's relative error: the divergence of the model per unit of it, as measured with noise in
 * one matrix after the other of a model of six layers. The matrices of all layers together count the same for every
 * depth. docs/quantization.md has the measurements behind the figures. */
static double sensitivity(enum geul_neox_role role, int layer, int n_layers)
{
    static const struct {
        double first, middle, last; /* layer; of matrices outside of the layers all are the same */
    } by_role[GEUL_NEOX_ROLES] = {
        [GEUL_NEOX_ROLE_EMBEDDING] = {0.18, 0.18, 0.18}, [GEUL_NEOX_ROLE_OUTPUT] = {0.85, 0.85, 0.85},
        [GEUL_NEOX_ROLE_QKV] = {0.020, 0.011, 0.012},    [GEUL_NEOX_ROLE_ATTN_OUTPUT] = {0.009, 0.0046, 0.0046},
        [GEUL_NEOX_ROLE_FFN_UP] = {0.032, 0.009, 0.025}, [GEUL_NEOX_ROLE_FFN_DOWN] = {0.029, 0.0075, 0.016},
        [GEUL_NEOX_ROLE_OTHER] = {0.020, 0.010, 0.010},
    };
    const double depth = 6;
    if (layer < 0 || n_layers < 1)
        return by_role[role].middle;
    /* The first and the last layer count as measured; over `reach` layers the weight goes linearly to the middle's. */
    double reach = n_layers > 8 ? n_layers / 8.0 : 1;
    double start = 1 - layer / reach, end = 1 - (n_layers - 1 - layer) / reach, middle = by_role[role].middle;
    double weight = middle;
    if (start > 0)
        weight += start * (by_role[role].first - middle);
    else if (end > 0)
        weight += end * (by_role[role].last - middle);
    return weight * depth / n_layers;
}

/* ------------------------------------------------------------------------------- measurement -- */

/* Sampled rows of one matrix. */
struct sample {
    float *x; /* rows of `cols` floats */
    uint8_t *raw, *out;
    double *errors; /* one per row */
    int64_t rows, cols;
    int n_threads;
};

static void free_sample(struct geul_context *ctx, struct sample *s)
{
    geul_free(ctx, s->x);
    geul_free(ctx, s->raw);
    geul_free(ctx, s->out);
    geul_free(ctx, s->errors);
    *s = (struct sample){0};
}

/* Decodes rows at equal distances of t. */
static bool take_sample(struct geul_context *ctx, const struct geul_quantize_choice *t, int n_threads, struct sample *s)
{
    int64_t cols = t->shape[t->n_dims - 1], rows = t->elements / cols;
    size_t row_bytes = (size_t)(t->from_bytes / (uint64_t)rows);
    s->n_threads = n_threads;
    s->cols = cols;
    s->rows = SAMPLE_ELEMENTS / cols > SAMPLE_ROWS_LEAST ? SAMPLE_ELEMENTS / cols : SAMPLE_ROWS_LEAST;
    s->rows = s->rows > rows ? rows : s->rows;
    s->x = geul_alloc(ctx, (size_t)s->rows, (size_t)cols * sizeof *s->x);
    s->raw = s->x ? geul_alloc(ctx, 1, row_bytes) : NULL;
    s->out = s->raw ? geul_alloc(ctx, (size_t)s->rows, (size_t)cols * sizeof(float)) : NULL;
    s->errors = s->out ? geul_alloc(ctx, (size_t)s->rows, sizeof *s->errors) : NULL;
    if (!s->errors)
        return false;
    for (int64_t i = 0; i < s->rows; i++) { /* through raw, which is aligned as geul_decode() needs it */
        int64_t row = (int64_t)((double)i * (double)rows / (double)s->rows);
        memcpy(s->raw, (const uint8_t *)t->source->data + (size_t)row * row_bytes, row_bytes);
        geul_decode(t->from, s->raw, s->x + i * cols, cols);
    }
    geul_os_map_discard(t->source->data, (size_t)t->from_bytes);
    return true;
}

/* Mean over the rows of sum of importance * x^2. */
static double sample_power(const struct sample *s, const float *importance)
{
    double sum = 0;
    for (int64_t i = 0; i < s->rows * s->cols; i++)
        sum += (double)s->x[i] * (double)s->x[i] * (importance ? (double)importance[i % s->cols] : 1);
    return sum / (double)s->rows;
}

/* A sample that is encoded in one type. */
struct attempt {
    const struct sample *s;
    enum geul_type type;
    size_t bytes; /* of a row */
    const float *importance;
};

#define BEYOND 1e100

static void encode_row(void *user, int64_t i, int thread)
{
    const struct attempt *a = user;
    const struct sample *s = a->s;
    (void)thread;
    double error =
        geul_search_rows(a->type, s->x + i * s->cols, s->out + (size_t)i * a->bytes, 1, s->cols, a->importance);
    s->errors[i] = error < BEYOND ? error : BEYOND; /* a type that cannot hold the values comes last */
}

/* Mean over the rows of sum of importance * (x - x')^2 for a type. */
static double sample_error(const struct sample *s, enum geul_type type, const float *importance)
{
    size_t bytes = (size_t)(s->cols / geul_type_block(type)) * geul_type_bytes(type);
    double sum = 0;
    geul_team_loop(s->n_threads, s->rows, encode_row, &(struct attempt){s, type, bytes, importance});
    for (int64_t i = 0; i < s->rows; i++) /* in row order: the sum does not depend on threads */
        sum += s->errors[i];
    return sum / (double)s->rows;
}

/* Inserts a step where bytes ascend; of two with the same bytes the one with less error stays. */
static void add_step(struct item *item, struct step step)
{
    int n = item->n_steps, at = 0;
    while (at < n && item->steps[at].bytes < step.bytes)
        at++;
    if (at < n && item->steps[at].bytes == step.bytes) {
        if (step.cost < item->steps[at].cost)
            item->steps[at] = step;
        return;
    }
    memmove(&item->steps[at + 1], &item->steps[at], (size_t)(n - at) * sizeof step);
    item->steps[at] = step;
    item->n_steps++;
}

/* Error saved per byte by going from a to b, which has more bytes. */
static double price(const struct step *a, const struct step *b)
{
    return (a->cost - b->cost) / (double)(b->bytes - a->bytes);
}

/* Leaves only the steps on the lower hull: costs fall, and each price is below the one before. s[0..n) is the hull of
 * the steps seen so far; the next one removes from its end what it puts above the line. */
static void keep_hull(struct item *item)
{
    int n = 0;
    struct step *s = item->steps;
    for (int i = 0; i < item->n_steps; i++) {
        struct step next = s[i];
        if (n > 0 && next.cost >= s[n - 1].cost)
            continue;
        while (n > 1 && price(&s[n - 2], &s[n - 1]) <= price(&s[n - 1], &next))
            n--;
        s[n++] = next;
    }
    item->n_steps = n;
}

/* Fills item with the bytes and the error of every type that matrix t may get: those that its rows fit and that are not
 * larger than what it has. The one it has costs nothing, so there is always a step. */
static bool measure_item(struct geul_quantize *q, const struct geul_quantize_choice *t, struct item *item)
{
    struct sample s = {0};
    int n_threads = q->options.n_threads > 0 ? q->options.n_threads : geul_os_cores();
    bool ok = take_sample(q->ctx, t, n_threads, &s);
    double power = ok ? sample_power(&s, t->sums) : 0;
    double weight = sensitivity(geul_neox_role_of(t->name, t->n_dims), geul_neox_layer_of(t->name), q->n_layers);
    for (int i = 0; ok && i < GEUL_TYPE_COUNT; i++) {
        enum geul_type type = (enum geul_type)i;
        size_t bytes;
        if (!geul_type_is_weight(type) || !geul_shape_bytes(type, t->n_dims, t->shape, &bytes) || bytes > t->from_bytes)
            continue;
        double error = type == t->from ? 0 : sample_error(&s, type, t->sums);
        if (geul_context_take_cancel(q->ctx)) {
            geul_fail(q->ctx, GEUL_ERROR_CANCELLED, "cancelled");
            ok = false;
        }
        add_step(item, (struct step){type, bytes, power > 0 ? weight * error / power : 0});
    }
    keep_hull(item);
    free_sample(q->ctx, &s);
    return ok;
}

struct geul_budget *geul_budget_measure(struct geul_quantize *q, const bool *fixed)
{
    struct geul_budget *b = geul_alloc(q->ctx, 1, sizeof *b);
    if (!b)
        return NULL;
    b->ctx = q->ctx;
    b->items = geul_alloc(q->ctx, (size_t)q->n_tensors, sizeof *b->items);
    bool ok = b->items != NULL;
    for (int64_t i = 0; ok && i < q->n_tensors; i++) {
        if (fixed[i]) {
            b->fixed_bytes += q->tensors[i].to_bytes;
            continue;
        }
        struct item *item = &b->items[b->n_items++]; /* room for all tensors was allocated */
        item->tensor = i;
        ok = measure_item(q, &q->tensors[i], item);
        if (ok && q->options.measuring &&
            !q->options.measuring(q->options.user, (uint64_t)i + 1, (uint64_t)q->n_tensors)) {
            geul_fail(q->ctx, GEUL_ERROR_CANCELLED, "stopped; nothing was written");
            ok = false;
        }
    }
    if (ok)
        return b;
    geul_budget_free(b);
    return NULL;
}

void geul_budget_free(struct geul_budget *b)
{
    if (!b)
        return;
    geul_free(b->ctx, b->items);
    geul_free(b->ctx, b);
}

/* ------------------------------------------------------------------------------------ choice -- */

/* The item whose next step has the highest price and fits into `room` bytes, -1 when there is none. at[i] is the step
 * that item i has. */
static int64_t best_item(const struct geul_budget *b, const int *at, uint64_t room)
{
    int64_t best = -1;
    double most = 0;
    for (int64_t i = 0; i < b->n_items; i++) {
        const struct step *s = &b->items[i].steps[at[i]];
        if (at[i] + 1 == b->items[i].n_steps || s[1].bytes - s[0].bytes > room)
            continue;
        double p = price(&s[0], &s[1]);
        if (best < 0 || p > most) {
            best = i;
            most = p;
        }
    }
    return best;
}

enum geul_status geul_budget_solve(const struct geul_budget *b, struct geul_quantize *q, uint64_t limit)
{
    uint64_t bytes = b->fixed_bytes;
    int64_t next;
    for (int64_t i = 0; i < b->n_items; i++)
        bytes += b->items[i].steps[0].bytes;
    if (bytes > limit)
        return geul_fail(b->ctx, GEUL_ERROR_ARGUMENT,
                         "the tensors of %s need %llu bytes (%.2f bits per weight) even with the smallest types; the "
                         "size limit leaves at most %llu for them",
                         geul_gguf_path(q->gguf), (unsigned long long)bytes, 8 * (double)bytes / (double)q->elements,
                         (unsigned long long)limit);
    int *at = geul_alloc(b->ctx, (size_t)b->n_items, sizeof *at);
    if (!at)
        return GEUL_ERROR_MEMORY;
    while ((next = best_item(b, at, limit - bytes)) >= 0) { /* bytes <= limit throughout */
        const struct step *s = &b->items[next].steps[at[next]++];
        bytes += s[1].bytes - s[0].bytes;
    }
    for (int64_t i = 0; i < b->n_items; i++)
        q->tensors[b->items[i].tensor].to = b->items[i].steps[at[i]].type;
    geul_free(b->ctx, at);
    return GEUL_OK;
}

/* op_matmul.c: MATMUL: activations a (M, K) times weights b (K, N) plus bias (N).
 *
 * M: tokens, N: weight rows, K: values of a row. Few tokens go through dot kernels that read the weights where they
 * lie. Many go through panels: a thread takes mr weight rows, unpacks k_block values of each, and all tokens, packed
 * before, stream past them. Which of both it is depends on M alone, and one thread computes a result from beginning to
 * end, so results do not depend on the number of threads. */
#include "backends/cpu/cpu_ops.h"

#include <string.h>

/* What one product looks like. */
struct product {
    const struct geul_cpu_dot *dot; /* one of the two */
    const struct geul_cpu_panel *panel;
    size_t m, n, k;
    bool outer;      /* b is packed along N, not along K */
    size_t w_stride; /* bytes from one weight row (outer: one k) to the next */
};

enum {
    DOT_ROWS = 16,         /* weight rows that stay in the first-level cache while the tokens pass */
    DOT_BYTES = 128 * 1024 /* what a thread reads in one go when there is one token: long streams are faster */
};

static bool transposed(const struct geul_tensor *b)
{
    return b->stride[0] == geul_type_bytes(b->type);
}

static struct product look(const struct geul_cpu_kernels *kernels, const struct geul_tensor *t)
{
    const struct geul_tensor *a = t->src[0], *b = t->src[1];
    struct product p = {.m = (size_t)a->shape[0], .n = (size_t)b->shape[1], .k = (size_t)a->shape[1]};
    p.outer = !transposed(b);
    p.w_stride = b->stride[p.outer ? 0 : 1];
    p.panel = p.outer ? kernels->cache[b->type] : kernels->panel[b->type];
    if (!p.outer && p.m < (size_t)p.panel->min_tokens) {
        p.panel = NULL;
        p.dot = kernels->dot[b->type];
    }
    return p;
}

static bool matmul_supports(const struct geul_cpu_kernels *kernels, const struct geul_tensor *t)
{
    const struct geul_tensor *a = t->src[0], *b = t->src[1], *bias = t->n_src > 2 ? t->src[2] : NULL;
    if (a->type != GEUL_TYPE_F32 || a->n_dims != 2 || a->stride[1] != sizeof(float) || b->n_dims != 2)
        return false;
    if (bias && bias->stride[0] != sizeof(float))
        return false;
    if (transposed(b))
        return kernels->panel[b->type] && kernels->dot[b->type];
    return kernels->cache[b->type] && b->stride[1] == geul_type_bytes(b->type);
}

static size_t ceil_div(size_t a, size_t b)
{
    return (a + b - 1) / b;
}

/* At least one, so that a sum of no products is computed too. */
static size_t k_blocks(const struct product *p)
{
    return p->k ? ceil_div(p->k, p->panel->k_block) : 1;
}

static size_t line(size_t bytes)
{
    return (bytes + 63) & ~(size_t)63;
}

/* Bytes of nr packed tokens (one k block), of a panel, and of what else a thread needs. */
static size_t packed_x_bytes(const struct geul_cpu_panel *g)
{
    return line(geul_cpu_packed_bytes(g->k_block, g->k_step, g->x_step));
}

static size_t panel_bytes(const struct geul_cpu_panel *g)
{
    return line(geul_cpu_packed_bytes(g->k_block, g->k_step, g->w_step));
}

static size_t thread_bytes(const struct geul_cpu_panel *g)
{
    return panel_bytes(g) + line((size_t)g->mr * sizeof(float)) + line((size_t)(g->mr * g->nr) * sizeof(float));
}

static bool matmul_scratch(const struct geul_cpu_kernels *kernels, const struct geul_tensor *t, int n_threads,
                           size_t *bytes)
{
    struct product p = look(kernels, t);
    if (p.dot)
        return !p.dot->pack_x ||
               geul_mul_size(p.m, line(geul_cpu_packed_bytes(p.k, p.dot->k_step, p.dot->x_step)), bytes);
    size_t tiles = ceil_div(p.m, (size_t)p.panel->nr) * k_blocks(&p), threads;
    return geul_mul_size(tiles, packed_x_bytes(p.panel), bytes) &&
           geul_mul_size((size_t)n_threads, thread_bytes(p.panel), &threads) && geul_add_size(*bytes, threads, bytes);
}

/* Few tokens: every thread takes DOT_ROWS weight rows at a time and computes them for all tokens. */
static void run_dot(struct geul_cpu_run *run, const struct geul_tensor *t, const struct product *p)
{
    const struct geul_tensor *a = t->src[0];
    const float *bias = t->n_src > 2 && t->src[2] ? t->src[2]->data : NULL;
    size_t x_bytes = line(geul_cpu_packed_bytes(p->k, p->dot->k_step, p->dot->x_step));
    if (p->dot->pack_x) {
        size_t from, to;
        geul_cpu_share(run, p->m, &from, &to);
        for (size_t i = from; i < to; i++)
            p->dot->pack_x(run->scratch + i * x_bytes, geul_cpu_row(a, i), p->k);
        geul_cpu_barrier(run);
    }
    size_t step = DOT_ROWS;
    while (p->m == 1 && step * p->w_stride < DOT_BYTES && step * 16 < p->n)
        step += DOT_ROWS;
    for (size_t n0; (n0 = geul_cpu_take(run) * step) < p->n;) {
        size_t rows = p->n - n0 < step ? p->n - n0 : step;
        const uint8_t *w = (const uint8_t *)t->src[1]->data + n0 * p->w_stride;
        for (size_t i = 0; i < p->m; i++) {
            float *out = (float *)geul_cpu_row(t, i) + n0;
            const void *x = p->dot->pack_x ? run->scratch + i * x_bytes : geul_cpu_row(a, i);
            p->dot->rows(out, w, p->w_stride, x, p->k, (int)rows);
            for (size_t r = 0; bias && r < rows; r++)
                out[r] += bias[n0 + r];
        }
    }
}

/* Packs all tokens: k block by k block, and in it nr tokens after nr tokens. */
static void pack_tokens(struct geul_cpu_run *run, const struct geul_tensor *a, const struct product *p)
{
    const struct geul_cpu_panel *g = p->panel;
    size_t nr = (size_t)g->nr, tiles = ceil_div(p->m, nr), from, to;
    geul_cpu_share(run, tiles * k_blocks(p), &from, &to);
    for (size_t i = from; i < to; i++) {
        size_t k0 = i / tiles * g->k_block, t0 = i % tiles * nr;
        size_t k = p->k - k0 < g->k_block ? p->k - k0 : g->k_block, tokens = p->m - t0 < nr ? p->m - t0 : nr;
        g->pack_x(run->scratch + i * packed_x_bytes(g), (const float *)geul_cpu_row(a, t0) + k0, a->stride[0],
                  (int)tokens, k);
    }
    geul_cpu_barrier(run);
}

/* All tokens past one panel of rows weight rows from n0 on, k values of k block number block. start: NULL after the
 * first k block. Tiles at the edges are computed whole in spare and copied in part. */
static void stream_tokens(const struct geul_tensor *t, const struct product *p, const uint8_t *packed,
                          const void *panel, size_t n0, size_t rows, size_t k, const float *start, float *spare)
{
    const struct geul_cpu_panel *g = p->panel;
    size_t nr = (size_t)g->nr, mr = (size_t)g->mr, out_stride = t->stride[0] / sizeof(float);
    for (size_t t0 = 0; t0 < p->m; t0 += nr, packed += packed_x_bytes(g)) {
        float *out = (float *)t->data + t0 * out_stride + n0;
        size_t tokens = p->m - t0 < nr ? p->m - t0 : nr;
        if (rows == mr && tokens == nr) {
            g->tile(out, out_stride, panel, packed, k, start);
            continue;
        }
        for (size_t i = 0; !start && i < tokens; i++)
            memcpy(spare + i * mr, out + i * out_stride, rows * sizeof(float));
        g->tile(spare, mr, panel, packed, k, start);
        for (size_t i = 0; i < tokens; i++)
            memcpy(out + i * out_stride, spare + i * mr, rows * sizeof(float));
    }
}

static void run_panel(struct geul_cpu_run *run, const struct geul_tensor *t, const struct product *p)
{
    const struct geul_cpu_panel *g = p->panel;
    const struct geul_tensor *b = t->src[1];
    const float *bias = t->n_src > 2 && t->src[2] ? t->src[2]->data : NULL;
    size_t mr = (size_t)g->mr, tiles = ceil_div(p->m, (size_t)g->nr), blocks = k_blocks(p);
    uint8_t *mine = run->scratch + tiles * blocks * packed_x_bytes(g) + (size_t)run->thread * thread_bytes(g);
    float *start = (float *)(mine + panel_bytes(g));
    float *spare = (float *)((uint8_t *)start + line(mr * sizeof(float)));
    pack_tokens(run, t->src[0], p);
    for (size_t n0; (n0 = geul_cpu_take(run) * mr) < p->n;) {
        size_t rows = p->n - n0 < mr ? p->n - n0 : mr;
        memset(start, 0, mr * sizeof(float));
        if (bias)
            memcpy(start, bias + n0, rows * sizeof(float));
        /* What the tile adds to of missing rows and tokens is never used, but must have a value. */
        memset(spare, 0, mr * (size_t)g->nr * sizeof(float));
        for (size_t i = 0; i < blocks; i++) {
            size_t k0 = i * g->k_block, k = p->k - k0 < g->k_block ? p->k - k0 : g->k_block;
            const uint8_t *w = b->data;
            if (p->outer)
                g->pack_w_outer(mine, w + k0 * p->w_stride + n0 * b->stride[1], p->w_stride, (int)rows, k);
            else
                g->pack_w(mine, w + n0 * p->w_stride + k0 / (size_t)geul_type_block(b->type) * b->stride[0],
                          p->w_stride, (int)rows, k);
            stream_tokens(t, p, run->scratch + i * tiles * packed_x_bytes(g), mine, n0, rows, k, i ? NULL : start,
                          spare);
        }
    }
}

static void run_matmul(struct geul_cpu_run *run, const struct geul_tensor *t)
{
    struct product p = look(run->kernels, t);
    if (p.m == 0 || p.n == 0)
        return;
    if (p.dot)
        run_dot(run, t, &p);
    else
        run_panel(run, t, &p);
}

const struct geul_cpu_op geul_cpu_op_MATMUL = {
    .supports = matmul_supports, .scratch = matmul_scratch, .run = run_matmul};

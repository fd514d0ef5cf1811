/* op_matmul.c: MATMUL: activations a (M, K) times weights b (K, N) plus bias (N).
 *
 * M: tokens, N: weight rows, K: values of a row. A thread takes mr weight rows, unpacks k_block values of each into a
 * panel, and all tokens, packed before, stream past it; in the meantime the rows that come next are asked for. One
 * thread computes a result from beginning to end, in an order that knows nothing of other tokens and threads. */
#include "backends/cpu/cpu_ops.h"

#include <string.h>

/* What one product looks like. */
struct product {
    const struct geul_cpu_panel *panel;
    const struct geul_cpu_dot *dot; /* one token, or NULL */
    size_t m, n, k;
    bool few; /* tokens */
    size_t k_block;
    bool outer;      /* b is packed along N, not along K */
    size_t w_stride; /* bytes from one weight row (outer: one k) to the next */
};

enum {
    FEW_TOKENS = 16,      /* up to here reading the weights takes longer than multiplying */
    DOT_ROWS = 16,        /* weight rows that are read together; twice as many are asked for too early */
    FEW_K = 256,          /* values unpacked at once when few tokens come by: the panel is soon needed and soon gone */
    PIECE_BYTES = 1 << 17 /* weights that a thread takes in one go when few tokens come by: long streams are faster */
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
    if (!p.outer && p.m == 1 && kernels->dot[b->type] && p.k % kernels->dot[b->type]->k_step == 0)
        p.dot = kernels->dot[b->type];
    p.few = p.m <= FEW_TOKENS;
    p.k_block = p.few && p.panel->k_block > FEW_K ? FEW_K : p.panel->k_block;
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
        return kernels->panel[b->type] != NULL;
    return kernels->cache[b->type] && b->stride[1] == geul_type_bytes(b->type);
}

static size_t ceil_div(size_t a, size_t b)
{
    return (a + b - 1) / b;
}

/* At least one, so that a sum of no products is computed too. */
static size_t k_blocks(const struct product *p)
{
    return p->k ? ceil_div(p->k, p->k_block) : 1;
}

static size_t line(size_t bytes)
{
    return (bytes + 63) & ~(size_t)63;
}

/* Bytes of nr packed tokens (one k block), of a panel, and of what else a thread needs. */
static size_t packed_x_bytes(const struct product *p)
{
    return line(geul_cpu_packed_bytes(p->k_block, p->panel->k_step, p->panel->x_step));
}

static size_t panel_bytes(const struct product *p)
{
    return line(geul_cpu_packed_bytes(p->k_block, p->panel->k_step, p->panel->w_step));
}

static size_t thread_bytes(const struct product *p)
{
    size_t mr = (size_t)p->panel->mr, nr = (size_t)p->panel->nr;
    return panel_bytes(p) + line(mr * sizeof(float)) + line(mr * nr * sizeof(float));
}

static bool matmul_scratch(const struct geul_cpu_kernels *kernels, const struct geul_tensor *t, int n_threads,
                           size_t *bytes)
{
    struct product p = look(kernels, t);
    if (p.dot) {
        *bytes = geul_cpu_packed_bytes(p.k, p.dot->k_step, p.dot->x_step);
        return true;
    }
    size_t tiles = ceil_div(p.m, (size_t)p.panel->nr) * k_blocks(&p), threads;
    return geul_mul_size(tiles, packed_x_bytes(&p), bytes) &&
           geul_mul_size((size_t)n_threads, thread_bytes(&p), &threads) && geul_add_size(*bytes, threads, bytes);
}

/* Packs all tokens: k block by k block, and in it nr tokens after nr tokens. */
static void pack_tokens(struct geul_cpu_run *run, const struct geul_tensor *a, const struct product *p)
{
    const struct geul_cpu_panel *g = p->panel;
    size_t nr = (size_t)g->nr, tiles = ceil_div(p->m, nr), from, to;
    geul_cpu_share(run, tiles * k_blocks(p), &from, &to);
    for (size_t i = from; i < to; i++) {
        size_t k0 = i / tiles * p->k_block, t0 = i % tiles * nr;
        size_t k = p->k - k0 < p->k_block ? p->k - k0 : p->k_block, tokens = p->m - t0 < nr ? p->m - t0 : nr;
        g->pack_x(run->scratch + i * packed_x_bytes(p), (const float *)geul_cpu_row(a, t0) + k0, a->stride[0],
                  (int)tokens, k);
    }
    geul_cpu_barrier(run);
}

/* A thread's memory. */
struct work {
    uint8_t *panel;
    float *start; /* mr: what the sums begin with */
    float *spare; /* nr * mr: a tile at the edge of the weight rows is computed whole here and copied in part */
    struct geul_cpu_ahead ahead; /* the weight rows that come next */
    size_t ask;                  /* bytes of it per tile; 0: while packing */
};

/* All tokens past one panel of rows weight rows from n0 on, k values of one k block. first: of the k blocks. */
static void stream_tokens(const struct geul_tensor *t, const struct product *p, const uint8_t *packed, struct work *w,
                          size_t n0, size_t rows, size_t k, bool first)
{
    const struct geul_cpu_panel *g = p->panel;
    const float *start = first ? w->start : NULL;
    size_t nr = (size_t)g->nr, mr = (size_t)g->mr, out_stride = t->stride[0] / sizeof(float);
    for (size_t t0 = 0; t0 < p->m; t0 += nr, packed += packed_x_bytes(p)) {
        float *out = (float *)t->data + t0 * out_stride + n0;
        size_t tokens = p->m - t0 < nr ? p->m - t0 : nr;
        geul_cpu_ask(&w->ahead, w->ask);
        if (rows == mr) {
            g->tile(out, out_stride, w->panel, packed, k, start, (int)tokens);
            continue;
        }
        for (size_t i = 0; !first && i < tokens; i++)
            memcpy(w->spare + i * mr, out + i * out_stride, rows * sizeof(float));
        g->tile(w->spare, mr, w->panel, packed, k, start, (int)tokens);
        for (size_t i = 0; i < tokens; i++)
            memcpy(out + i * out_stride, w->spare + i * mr, rows * sizeof(float));
    }
}

/* Where n weight rows from `from` on lie, for asking. */
static struct geul_cpu_ahead rows_ahead(const struct geul_tensor *b, const struct product *p, size_t from, size_t n)
{
    const uint8_t *base = b->data;
    if (from >= p->n)
        return (struct geul_cpu_ahead){base, base};
    n = p->n - from < n ? p->n - from : n;
    return (struct geul_cpu_ahead){base + from * p->w_stride, base + (from + n) * p->w_stride};
}

/* rows weight rows from n0 on, times all tokens; next: the first of the rows that this thread takes after these. */
static void multiply_rows(const struct geul_cpu_run *run, const struct geul_tensor *t, const struct product *p,
                          struct work *w, size_t n0, size_t rows, size_t next)
{
    const struct geul_cpu_panel *g = p->panel;
    const struct geul_tensor *b = t->src[1];
    const float *bias = t->n_src > 2 && t->src[2] ? t->src[2]->data : NULL;
    const uint8_t *base = b->data;
    size_t mr = (size_t)g->mr, tiles = ceil_div(p->m, (size_t)g->nr), blocks = k_blocks(p);
    memset(w->start, 0, mr * sizeof(float));
    if (bias)
        memcpy(w->start, bias + n0, rows * sizeof(float));
    w->ahead = rows_ahead(b, p, p->outer ? p->n : next, mr);
    w->ask = p->few ? 0 : line(ceil_div((size_t)(w->ahead.end - w->ahead.at), tiles * blocks));
    for (size_t i = 0; i < blocks; i++) {
        size_t k0 = i * p->k_block, k = p->k - k0 < p->k_block ? p->k - k0 : p->k_block;
        if (p->outer)
            g->pack_w_outer(w->panel, base + k0 * p->w_stride + n0 * b->stride[1], p->w_stride, (int)rows, k);
        else
            g->pack_w(w->panel, base + n0 * p->w_stride + k0 / (size_t)geul_type_block(b->type) * b->stride[0],
                      p->w_stride, (int)rows, k, p->few ? &w->ahead : NULL);
        stream_tokens(t, p, run->scratch + i * tiles * packed_x_bytes(p), w, n0, rows, k, i == 0);
    }
}

/* Weight rows that a thread takes in one go when few tokens come by, a multiple of step. */
static size_t rows_in_piece(const struct product *p, size_t step)
{
    size_t piece = step;
    while (piece * p->w_stride < PIECE_BYTES && piece * 16 < p->n)
        piece += step;
    return piece;
}

/* The weight rows that the product after this one begins with on this thread. */
static struct geul_cpu_ahead following_rows(const struct geul_cpu_run *run)
{
    struct product p = look(run->kernels, run->following);
    const struct geul_tensor *b = run->following->src[1];
    if (!p.dot)
        return (struct geul_cpu_ahead){b->data, b->data};
    return rows_ahead(b, &p, (size_t)run->thread * rows_in_piece(&p, DOT_ROWS), DOT_ROWS);
}

/* One token: every thread packs its part of it, then takes pieces of the weight rows, the first one by its number. */
static void run_dot(struct geul_cpu_run *run, const struct geul_tensor *t, const struct product *p)
{
    const struct geul_cpu_dot *dot = p->dot;
    const struct geul_tensor *b = t->src[1];
    const float *bias = t->n_src > 2 && t->src[2] ? t->src[2]->data : NULL, *x = t->src[0]->data;
    size_t piece = rows_in_piece(p, DOT_ROWS), from, to;
    float *out = t->data;
    geul_cpu_share(run, p->k / dot->k_step, &from, &to);
    dot->pack_x(run->scratch + from * dot->x_step, x + from * dot->k_step, (to - from) * dot->k_step);
    geul_cpu_barrier(run);
    for (size_t n0 = (size_t)run->thread * piece, next; n0 < p->n; n0 = next) {
        next = ((size_t)run->n_threads + geul_cpu_take(run)) * piece;
        size_t end = p->n - n0 < piece ? p->n : n0 + piece;
        for (size_t n = n0; n < end; n += DOT_ROWS) {
            struct geul_cpu_ahead ahead = rows_ahead(b, p, n + DOT_ROWS < end ? n + DOT_ROWS : next, DOT_ROWS);
            if (n + DOT_ROWS >= end && next >= p->n && run->following)
                ahead = following_rows(run);
            dot->rows(out + n, (const uint8_t *)b->data + n * p->w_stride, p->w_stride, run->scratch, p->k,
                      end - n < DOT_ROWS ? (int)(end - n) : DOT_ROWS, bias ? bias + n : NULL, &ahead);
        }
    }
}

static void run_panel(struct geul_cpu_run *run, const struct geul_tensor *t, const struct product *p)
{
    size_t mr = (size_t)p->panel->mr, tiles = ceil_div(p->m, (size_t)p->panel->nr);
    uint8_t *mine = run->scratch + tiles * k_blocks(p) * packed_x_bytes(p) + (size_t)run->thread * thread_bytes(p);
    struct work w = {.panel = mine, .start = (float *)(mine + panel_bytes(p))};
    w.spare = (float *)((uint8_t *)w.start + line(mr * sizeof(float)));
    /* What a tile adds to for missing rows is never used, but must have a value. */
    memset(w.spare, 0, mr * (size_t)p->panel->nr * sizeof(float));
    pack_tokens(run, t->src[0], p);
    size_t piece = p->few && !p->outer ? rows_in_piece(p, mr) : mr;
    for (size_t n0 = geul_cpu_take(run) * piece, next; n0 < p->n; n0 = next) {
        next = geul_cpu_take(run) * piece;
        size_t end = p->n - n0 < piece ? p->n : n0 + piece;
        for (size_t n = n0; n < end; n += mr)
            multiply_rows(run, t, p, &w, n, end - n < mr ? end - n : mr, n + mr < end ? n + mr : next);
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

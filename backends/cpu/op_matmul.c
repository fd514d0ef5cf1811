/* op_matmul.c: MATMUL: activations a (M, K) times weights b (K, N) plus bias (N); ADDMM: the same, added to a sum.
 *
 * M: tokens, N: weight rows, K: values of a row. A thread takes mr weight rows, unpacks k_block values of each into a
 * panel, and all tokens, packed before, stream past it; meanwhile the weight rows that come next are prefetched:
 *
 *        weights, as the file has them               panel, one per thread
 *        k block 0   k block 1   ...                 step 0   | row 0 .. mr-1 |   w_step bytes
 *       +-----------+-----------+----+    pack_w     step 1   | row 0 .. mr-1 |
 *    mr | unpacked  | then this |    | ----------->  ...
 *       +-----------+-----------+----+                               |
 *    mr | prefetched meanwhile       |                               |
 *       +----------------------------+                               |      tile: nr tokens x mr rows
 *     N |                            |                               |      of float32 sums
 *                                                                    +--->  +-------------------+
 *        activations, float32                        packed, shared by      | sum = start, then |
 *        k block 0   k block 1   ...                 all threads            | += w * x for each |
 *       +-----------+-----------+----+    pack_x     block 0: nr | nr | ..  | k of the block    |
 *    nr |           |           |    | ----------->  block 1: nr | nr | ..  +-------------------+
 *       +-----------+-----------+----+               ...             |      ^             |
 *     M |                            |                               +------+             v
 *                                                                         out, and start of the next k block
 *
 * A panel takes 6 to 48 KiB, depending on type and instruction set: every tile reads it from the first-level cache, or
 * in part from the second. So weights are unpacked once for up to m_block tokens.
 *
 * The bits of a result do not depend on batching. It is one lane of one accumulator: it starts from its bias (ADDMM:
 * from what it is added to), takes its products in the order of k, with the same operations in every tile, and waits in
 * out between k blocks as the float32 that it was in the register. Only rows and tokens are split over threads, never
 * k; lanes of missing rows are computed from zeros and discarded. And the activations of a token are rounded (int8,
 * bfloat16) from its own values alone. A dot kernel does the same operations in the same order.
 *
 * In training either side may be a transpose, so that k is the outer dimension of its memory, and weights of any type
 * may be wanted as float32 or bfloat16: those are first decoded, a tile at a time, and packed from there. */
#include "backends/cpu/cpu_ops.h"

#include <string.h>

/* What one product looks like. */
struct product {
    const struct geul_tensor *a, *b;
    const float *bias; /* or NULL */
    bool grows;        /* ADDMM: the result is added to */
    const struct geul_cpu_panel *panel;
    const struct geul_cpu_dot *dot; /* one token, or NULL */
    size_t m, n, k;
    bool few; /* tokens */
    size_t k_block;
    bool outer;      /* b is contiguous along N, not along K */
    bool x_outer;    /* a is contiguous along M, not along K */
    bool decoded;    /* b becomes float32 before it is packed */
    size_t w_stride; /* bytes from one weight row (outer: one k) to the next */
    size_t m_block;  /* tokens that stream past a panel before the next one is unpacked */
};

enum {
    FEW_TOKENS = 16,       /* up to here reading the weights takes longer than multiplying */
    DOT_ROWS = 16,         /* weight rows that are read together; with twice as many, prefetches come too early */
    FEW_K = 256,           /* k_block for few tokens: the panel is used right after it is made, by a few tiles only */
    PIECE_BYTES = 1 << 17, /* weights that a thread takes at a time for few tokens: long streams are faster */
    DECODED = 256,         /* columns of a tile that is decoded at once: a multiple of every block */
    STREAM_BYTES = 1 << 20 /* packed tokens of one k block and m_block tokens, which every panel reads again */
};

static bool transposed(const struct geul_tensor *b)
{
    return b->stride[0] == geul_type_bytes(b->type) && (geul_type_block(b->type) == 1 || b->block_dim == 0);
}

/* Chooses how t is computed. It follows from t and the kernels alone, so that planning (supports, scratch) and every
 * thread of the run agree. panel is NULL when there is no kernel. */
static struct product look(const struct geul_cpu_kernels *kernels, const struct geul_tensor *t)
{
    const bool grows = t->op == GEUL_OP_ADDMM;
    const struct geul_tensor *a = t->src[grows], *b = t->src[grows + 1];
    enum geul_precision precision = t->params.matmul.precision;
    struct product p = {.a = a, .b = b, .grows = grows};
    if (!grows && t->n_src > 2 && t->src[2])
        p.bias = t->src[2]->data;
    p.m = (size_t)a->shape[0];
    p.n = (size_t)b->shape[1];
    p.k = (size_t)a->shape[1];
    p.outer = !transposed(b);
    p.x_outer = a->stride[1] != sizeof(float);
    p.w_stride = b->stride[p.outer ? 0 : 1];
    if (precision == GEUL_PRECISION_WEIGHTS) {
        p.panel = p.outer ? kernels->cache[b->type] : kernels->panel[b->type];
        /* dot and panel of a type give the same bits (cpu_detect.c), so one token alone may go either way. */
        if (!p.outer && !grows && p.m == 1 && kernels->dot[b->type] && p.k % kernels->dot[b->type]->k_step == 0)
            p.dot = kernels->dot[b->type];
    } else {
        p.panel = kernels->panel[GEUL_TYPE_F32];
        if (precision == GEUL_PRECISION_BF16 && kernels->rounded[GEUL_TYPE_BF16])
            p.panel = kernels->rounded[GEUL_TYPE_BF16];
        p.decoded = b->type != GEUL_TYPE_F32;
    }
    if (!p.panel)
        return p;
    /* Where the k blocks begin changes no bits, so they may be as long as suits the number of tokens. */
    p.few = p.m <= FEW_TOKENS && !p.decoded;
    p.k_block = p.few && p.panel->k_block > FEW_K ? FEW_K : p.panel->k_block;
    size_t tile = geul_cpu_packed_bytes(p.k_block, p.panel->k_step, p.panel->x_step);
    /* Decoding is slow: all tokens pass before the next weights are decoded. */
    p.m_block = p.decoded ? p.m : STREAM_BYTES / tile * (size_t)p.panel->nr;
    return p;
}

static bool matmul_supports(const struct geul_cpu_kernels *kernels, const struct geul_tensor *t)
{
    struct product p = look(kernels, t);
    const struct geul_tensor *a = p.a, *b = p.b, *bias = !p.grows && t->n_src > 2 ? t->src[2] : NULL;
    if (!p.panel || a->type != GEUL_TYPE_F32 || a->n_dims != 2 || b->n_dims != 2)
        return false;
    if (bias && bias->stride[0] != sizeof(float))
        return false;
    if (p.x_outer && (a->stride[0] != sizeof(float) || !p.panel->pack_x_outer))
        return false;
    return !p.outer || (b->stride[1] == geul_type_bytes(b->type) && p.panel->pack_w_outer);
}

static size_t ceil_div(size_t a, size_t b)
{
    return (a + b - 1) / b;
}

/* At least one, so that with K = 0 the results still become their start. */
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

static size_t decoded_bytes(const struct product *p)
{
    return !p->decoded ? 0 : line(p->k_block * sizeof(float) * (p->outer ? DECODED : (size_t)p->panel->mr));
}

static size_t thread_bytes(const struct product *p)
{
    size_t mr = (size_t)p->panel->mr, nr = (size_t)p->panel->nr;
    return panel_bytes(p) + line(mr * sizeof(float)) + line(mr * nr * sizeof(float)) + decoded_bytes(p);
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

/* Packs all tokens into the scratch that all threads read: k block by k block, and in it nr tokens after nr tokens. */
static void pack_tokens(struct geul_cpu_run *run, const struct product *p)
{
    const struct geul_cpu_panel *g = p->panel;
    const struct geul_tensor *a = p->a;
    size_t nr = (size_t)g->nr, tiles = ceil_div(p->m, nr), from, to;
    geul_cpu_share(run, tiles * k_blocks(p), &from, &to);
    for (size_t i = from; i < to; i++) {
        size_t k0 = i / tiles * p->k_block, t0 = i % tiles * nr;
        size_t k = p->k - k0 < p->k_block ? p->k - k0 : p->k_block, tokens = p->m - t0 < nr ? p->m - t0 : nr;
        uint8_t *packed = run->scratch + i * packed_x_bytes(p);
        const uint8_t *x = (const uint8_t *)a->data + t0 * a->stride[0] + k0 * a->stride[1];
        if (p->x_outer)
            g->pack_x_outer(packed, (const float *)(const void *)x, a->stride[1], (int)tokens, k);
        else
            g->pack_x(packed, (const float *)(const void *)x, a->stride[0], (int)tokens, k);
    }
    geul_cpu_barrier(run);
}

/* A thread's memory. */
struct work {
    uint8_t *panel;
    float *start;   /* mr: what the sums begin with */
    float *spare;   /* (nr, mr): a tile at the edge of the weight rows is computed whole here and copied in part */
    float *decoded; /* a tile of weights as float32: (k_block, DECODED) where k is outer, else (mr, k_block) */
    struct geul_cpu_prefetch prefetch; /* the weight rows that come next */
    size_t prefetch_step;              /* bytes of it per tile; 0: none here, pack_w prefetches while it reads */
};

/* Where weights n0.. of k0.. begin. */
static const uint8_t *weights_at(const struct product *p, size_t n0, size_t k0)
{
    const struct geul_tensor *b = p->b;
    size_t block = (size_t)geul_type_block(b->type);
    if (p->outer)
        return (const uint8_t *)b->data + k0 * p->w_stride + n0 / block * b->stride[1];
    return (const uint8_t *)b->data + n0 * p->w_stride + k0 / block * b->stride[0];
}

/* What a stretch of weight rows is multiplied with: tokens [t0, t1) of one k block. */
struct stretch {
    size_t n0, rows; /* weight rows */
    size_t t0, t1;
    size_t block, k; /* number of the k block and its values */
};

/* Multiplies the panel of w by the tokens of s and adds to out, or sets it in the first k block. */
static void stream_tokens(const struct geul_cpu_run *run, const struct geul_tensor *t, const struct product *p,
                          struct work *w, const struct stretch *s)
{
    const struct geul_cpu_panel *g = p->panel;
    const bool adds = s->block > 0 || p->grows;
    const float *start = adds ? NULL : w->start;
    size_t nr = (size_t)g->nr, mr = (size_t)g->mr, out_stride = t->stride[0] / sizeof(float);
    size_t tiles = ceil_div(p->m, nr);
    const uint8_t *packed = run->scratch + (s->block * tiles + s->t0 / nr) * packed_x_bytes(p);
    for (size_t t0 = s->t0; t0 < s->t1; t0 += nr, packed += packed_x_bytes(p)) {
        float *out = (float *)t->data + t0 * out_stride + s->n0;
        size_t tokens = s->t1 - t0 < nr ? s->t1 - t0 : nr;
        geul_cpu_prefetch_bytes(&w->prefetch, w->prefetch_step);
        if (s->rows == mr) {
            g->tile(out, out_stride, w->panel, packed, s->k, start, (int)tokens);
            continue;
        }
        /* A tile always writes mr rows, which here would reach into rows of other threads. */
        for (size_t i = 0; adds && i < tokens; i++)
            memcpy(w->spare + i * mr, out + i * out_stride, s->rows * sizeof(float));
        g->tile(w->spare, mr, w->panel, packed, s->k, start, (int)tokens);
        for (size_t i = 0; i < tokens; i++)
            memcpy(out + i * out_stride, w->spare + i * mr, s->rows * sizeof(float));
    }
}

/* The memory of n weight rows from `from` on, to prefetch; empty after the last. */
static struct geul_cpu_prefetch rows_to_prefetch(const struct product *p, size_t from, size_t n)
{
    const uint8_t *base = p->b->data;
    if (from >= p->n)
        return (struct geul_cpu_prefetch){base, base};
    n = p->n - from < n ? p->n - from : n;
    return (struct geul_cpu_prefetch){base + from * p->w_stride, base + (from + n) * p->w_stride};
}

static size_t values_of(const struct product *p, size_t block)
{
    size_t left = p->k - block * p->k_block;
    return left < p->k_block ? left : p->k_block;
}

/* Sums of weight rows [n0, n0 + rows) start from their biases, or from 0. */
static void set_start(const struct product *p, struct work *w, size_t n0, size_t rows)
{
    memset(w->start, 0, (size_t)p->panel->mr * sizeof(float));
    if (p->bias)
        memcpy(w->start, p->bias + n0, rows * sizeof(float));
}

/* s.rows weight rows from s.n0 on, times tokens [s.t0, s.t1), over all of K. next: the first of the rows that this
 * thread takes after these. */
static void multiply_rows(const struct geul_cpu_run *run, const struct geul_tensor *t, const struct product *p,
                          struct work *w, struct stretch s, size_t next)
{
    const struct geul_cpu_panel *g = p->panel;
    size_t mr = (size_t)g->mr, tiles = ceil_div(s.t1 - s.t0, (size_t)g->nr), blocks = k_blocks(p);
    set_start(p, w, s.n0, s.rows);
    /* The next mr rows arrive while these are multiplied: an equal share with every tile. With few tokens there are too
     * few tiles to hide it behind, and packing takes most of the time: then it is spread over the packing. */
    w->prefetch = rows_to_prefetch(p, p->outer ? p->n : next, mr);
    w->prefetch_step = p->few ? 0 : line(ceil_div((size_t)(w->prefetch.end - w->prefetch.at), tiles * blocks));
    for (s.block = 0; s.block < blocks; s.block++) {
        const uint8_t *from = weights_at(p, s.n0, s.block * p->k_block);
        s.k = values_of(p, s.block);
        if (p->decoded) {
            for (size_t r = 0; r < s.rows; r++)
                geul_decode(p->b->type, from + r * p->w_stride, w->decoded + r * p->k_block, (int64_t)s.k);
            g->pack_w(w->panel, w->decoded, p->k_block * sizeof(float), (int)s.rows, s.k, NULL);
        } else if (p->outer) {
            g->pack_w_outer(w->panel, from, p->w_stride, (int)s.rows, s.k);
        } else {
            g->pack_w(w->panel, from, p->w_stride, (int)s.rows, s.k, p->few ? &w->prefetch : NULL);
        }
        stream_tokens(run, t, p, w, &s);
    }
}

/* The same where blocks of weights lie across k (along N): a tile of DECODED weight rows, which whole blocks fill, is
 * decoded once per k block for all panels in it. */
static void multiply_decoded(const struct geul_cpu_run *run, const struct geul_tensor *t, const struct product *p,
                             struct work *w, struct stretch whole)
{
    const struct geul_cpu_panel *g = p->panel;
    size_t mr = (size_t)g->mr, blocks = k_blocks(p);
    w->prefetch_step = 0;
    for (size_t block = 0; block < blocks; block++) {
        size_t k = values_of(p, block), k0 = block * p->k_block;
        for (size_t i = 0; i < k; i++)
            geul_decode(p->b->type, weights_at(p, whole.n0, k0 + i), w->decoded + i * DECODED, (int64_t)whole.rows);
        for (size_t at = 0; at < whole.rows; at += mr) {
            struct stretch s = whole;
            s.n0 += at;
            s.rows = whole.rows - at < mr ? whole.rows - at : mr;
            s.block = block;
            s.k = k;
            set_start(p, w, s.n0, s.rows);
            g->pack_w_outer(w->panel, w->decoded + at, DECODED * sizeof(float), (int)s.rows, k);
            stream_tokens(run, t, p, w, &s);
        }
    }
}

/* Weight rows that a thread takes at a time when there are few tokens, a multiple of step. */
static size_t rows_in_piece(const struct product *p, size_t step)
{
    /* No more than about a sixteenth of the rows, so that small matrices too have work for all threads. */
    size_t piece = step;
    while (piece * p->w_stride < PIECE_BYTES && piece * 16 < p->n)
        piece += step;
    return piece;
}

/* The weight rows that this thread will take first in the product after this one, if that has one token too. */
static struct geul_cpu_prefetch next_op_rows(const struct geul_cpu_run *run)
{
    struct product p = look(run->kernels, run->following);
    if (!p.dot)
        return (struct geul_cpu_prefetch){p.b->data, p.b->data};
    return rows_to_prefetch(&p, (size_t)run->thread * rows_in_piece(&p, DOT_ROWS), DOT_ROWS);
}

/* One token: every thread packs its part of it, then takes pieces of the weight rows. The first piece is that of its
 * number, so that the node before could prefetch it (next_op_rows); the counter hands out the others. */
static void run_dot(struct geul_cpu_run *run, const struct geul_tensor *t, const struct product *p)
{
    const struct geul_cpu_dot *dot = p->dot;
    const float *x = p->a->data;
    size_t piece = rows_in_piece(p, DOT_ROWS), from, to;
    float *out = t->data;
    geul_cpu_share(run, p->k / dot->k_step, &from, &to);
    dot->pack_x(run->scratch + from * dot->x_step, x + from * dot->k_step, (to - from) * dot->k_step);
    geul_cpu_barrier(run);
    for (size_t n0 = (size_t)run->thread * piece, next; n0 < p->n; n0 = next) {
        /* Taken before this piece is done, because its last rows prefetch the first ones of the next. */
        next = ((size_t)run->n_threads + geul_cpu_take(run)) * piece;
        size_t end = p->n - n0 < piece ? p->n : n0 + piece;
        for (size_t n = n0; n < end; n += DOT_ROWS) {
            struct geul_cpu_prefetch prefetch = rows_to_prefetch(p, n + DOT_ROWS < end ? n + DOT_ROWS : next, DOT_ROWS);
            if (n + DOT_ROWS >= end && next >= p->n && run->following)
                prefetch = next_op_rows(run);
            dot->rows(out + n, (const uint8_t *)p->b->data + n * p->w_stride, p->w_stride, run->scratch, p->k,
                      end - n < DOT_ROWS ? (int)(end - n) : DOT_ROWS, p->bias ? p->bias + n : NULL, &prefetch);
        }
    }
}

/* Weight rows of a unit of work. */
static size_t piece_of(const struct product *p)
{
    if (p->decoded && p->outer)
        return DECODED;
    return p->few && !p->outer ? rows_in_piece(p, (size_t)p->panel->mr) : (size_t)p->panel->mr;
}

/* Units of work are a block of m_block tokens times a piece of the weight rows, all pieces of one block of tokens
 * before the next block: so the packed tokens that threads share stay in cache. */
static void run_panel(struct geul_cpu_run *run, const struct geul_tensor *t, const struct product *p)
{
    size_t mr = (size_t)p->panel->mr, tiles = ceil_div(p->m, (size_t)p->panel->nr);
    uint8_t *mine = run->scratch + tiles * k_blocks(p) * packed_x_bytes(p) + (size_t)run->thread * thread_bytes(p);
    struct work w = {.panel = mine, .start = (float *)(void *)(mine + panel_bytes(p))};
    w.spare = (float *)(void *)((uint8_t *)w.start + line(mr * sizeof(float)));
    w.decoded = (float *)(void *)((uint8_t *)w.spare + line(mr * (size_t)p->panel->nr * sizeof(float)));
    /* What a tile adds to for missing rows is never used, but must have a value. */
    memset(w.spare, 0, mr * (size_t)p->panel->nr * sizeof(float));
    pack_tokens(run, p);
    size_t piece = piece_of(p), pieces = ceil_div(p->n, piece), units = pieces * ceil_div(p->m, p->m_block);
    /* Every thread has its next unit in hand while it computes one, so that it knows what to prefetch. */
    for (size_t i = geul_cpu_take(run), next; i < units; i = next) {
        next = geul_cpu_take(run);
        struct stretch s = {.t0 = i / pieces * p->m_block};
        size_t n0 = i % pieces * piece, end = p->n - n0 < piece ? p->n : n0 + piece;
        size_t after = next < units ? next % pieces * piece : p->n;
        s.t1 = p->m - s.t0 < p->m_block ? p->m : s.t0 + p->m_block;
        if (p->decoded && p->outer) {
            s.n0 = n0;
            s.rows = end - n0;
            multiply_decoded(run, t, p, &w, s);
            continue;
        }
        for (s.n0 = n0; s.n0 < end; s.n0 += mr) {
            s.rows = end - s.n0 < mr ? end - s.n0 : mr;
            multiply_rows(run, t, p, &w, s, s.n0 + mr < end ? s.n0 + mr : after);
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
const struct geul_cpu_op geul_cpu_op_ADDMM = {
    .supports = matmul_supports, .scratch = matmul_scratch, .run = run_matmul};

/* cuda_matmul.c: MATMUL and ADDMM: which kernels serve which product, and the steps that it becomes.
 *
 * y (M, N) = a (M, K) times b (K, N). What the CPU computes (op_matmul.c) is what a product means; on a card a form of
 * product has several ways, which differ in how the factors are rounded, within the tolerance that the tests state:
 *
 *   dots    one kernel for 1 to 4 tokens (matvec.h) that reads the weights once; with plan->exact for any number, since
 *           the order of a sum does not depend on it
 *   int8    tiles of int8 tensor cores (matmul.h), for weights of blocks
 *   halves  both factors as float16 or bfloat16, by cuBLAS or by tiles of our own. What does not lie as these read it
 *           (packed along K, rows on 16 bytes) or is of another type is first written so, weights a slab at a time
 *   floats  float32, by cuBLAS or by our own kernel */
#include "backends/cuda/cuda_matmul.h"

#include "backends/cuda/blas.h"
#include "backends/cuda/matmul.h"
#include "backends/cuda/narrow.h"
#include "backends/cuda/prepare.h"

/* ------------------------------------------------------------------------------------ tables -- */

/* What a product is made of. */
enum form {
    FORM_GROUPS_32, /* weights of blocks, in groups of 32 values, times activations rounded to int8 */
    FORM_GROUPS_16,
    FORM_F16, /* weights of float16, times activations; likewise of bfloat16 */
    FORM_BF16,
    FORM_F32,     /* float32, or anything taken as float32 */
    FORM_ROUNDED, /* both sides rounded to bfloat16 */
};

/* What a way needs. */
enum {
    PACKED = 1,    /* weights that lie along K, as the kernel reads them: nothing is written anew */
    BFLOAT = 2,    /* bfloat16 products of the card */
    BLAS = 4,      /* cuBLAS */
    ANY_NUMBER = 0 /* of tokens */
};

struct product;
typedef void emit_way(struct cuda_plan *plan, const struct product *p);
static emit_way emit_dots, emit_int8, emit_halves, emit_floats;

/* The first row that fits is taken. Numbers of tokens are those of gpu.md, sections 1 and 3: dots saturate at 4; int8
 * tiles lose to cuBLAS where writing the weights as bfloat16 no longer matters. tools/gpu_check measures them. */
/* clang-format off */
static const struct way {
    enum form form;
    int64_t most_tokens;
    unsigned needs;
    emit_way *emit;
} ways[] = {
    {FORM_GROUPS_32,          4, PACKED,        emit_dots},
    {FORM_GROUPS_32,       1024, 0,             emit_int8},
    {FORM_GROUPS_32, ANY_NUMBER, BFLOAT | BLAS, emit_halves},
    {FORM_GROUPS_32, ANY_NUMBER, 0,             emit_int8},
    {FORM_GROUPS_16,          4, PACKED,        emit_dots},
    {FORM_GROUPS_16,        512, 0,             emit_int8},
    {FORM_GROUPS_16, ANY_NUMBER, BFLOAT | BLAS, emit_halves},
    {FORM_GROUPS_16, ANY_NUMBER, 0,             emit_int8},
    {FORM_F16,                4, PACKED,        emit_dots},
    {FORM_F16,       ANY_NUMBER, 0,             emit_halves},
    {FORM_BF16,               4, PACKED,        emit_dots},
    {FORM_BF16,      ANY_NUMBER, BFLOAT,        emit_halves},
    {FORM_BF16,      ANY_NUMBER, 0,             emit_floats},
    {FORM_F32,                4, PACKED,        emit_dots},
    {FORM_F32,       ANY_NUMBER, 0,             emit_floats},
    {FORM_ROUNDED,   ANY_NUMBER, BFLOAT,        emit_halves},
    {FORM_ROUNDED,   ANY_NUMBER, 0,             emit_floats},
};

/* Tiles: blocks that run on a multiprocessor at a time, and what a step of 128 bytes of K takes then, beside others. */
static const struct tile {
    int tokens, blocks, step;
} tiles[] = {
    { 16, 2,  50},
    { 32, 2,  65},
    { 64, 2, 110},
    {128, 1, 100},
};
/* clang-format on */

/* How a tile is cut along K: what it takes besides its steps, and more where its sums go through memory; at most so
 * many pieces, of so many steps at least, and so many bytes of sums. */
enum { TILE_START = 300, TILE_SPLIT = 200, MOST_PIECES = 16, LEAST_STEPS = 2, MOST_SUM_BYTES = 32 << 20 };
enum {
    BLAS_TOKENS = 64, /* from here on halves and floats go through cuBLAS; for fewer our tiles read weights as fast */
    SLAB_STEP = 256,  /* rows of a slab: a multiple of every block and tile */
    STEP_BYTES = 128, /* of K in a tile's step */
    BLOCK_SYSTEM_BYTES = 1024, /* of a multiprocessor's shared memory, which every block takes besides its own */
    PAD = 8,                   /* 16-bit elements on 16 bytes */
};
/* Enough for all multiprocessors, and not much more than lies in the second-level cache. */
size_t geul_cuda_slab_bytes = (size_t)64 << 20;

/* ----------------------------------------------------------------------------------- product -- */

struct product {
    const struct geul_tensor *node, *a, *b;
    enum form form;
    bool turned; /* b is the transpose of rows (N, K), its blocks along K; else its rows are (K, N) */
    bool rows;   /* a's rows are packed; else it is the transpose of such */
    bool packed; /* turned, and as dots read it */
    bool bfloat; /* the card's products */
    int64_t m, n, k;
    struct cuda_epilogue out;         /* all but what is rounded */
    const struct geul_tensor *result; /* what out.y holds */
};

/* From one of b's rows in memory to the next, in bytes. */
static int64_t row_bytes(const struct product *p)
{
    return (int64_t)p->b->stride[p->turned ? 1 : 0];
}

static int64_t element_bytes(enum geul_type type)
{
    return type == GEUL_TYPE_F32 ? 4 : 2;
}

static bool of_blocks(const struct geul_tensor *b)
{
    return geul_type_block(b->type) > 1;
}

static enum form form_of(const struct geul_tensor *b, enum geul_precision precision)
{
    if (precision == GEUL_PRECISION_BF16)
        return FORM_ROUNDED;
    if (precision == GEUL_PRECISION_F32 || b->type == GEUL_TYPE_F32)
        return FORM_F32;
    if (!of_blocks(b))
        return b->type == GEUL_TYPE_F16 ? FORM_F16 : FORM_BF16;
    bool sixteen = b->type == GEUL_TYPE_Q2_K || b->type == GEUL_TYPE_Q3_K || b->type == GEUL_TYPE_Q6_K;
    return sixteen ? FORM_GROUPS_16 : FORM_GROUPS_32;
}

/* Whether b's values can be read as they are with activations of this form: not those that are taken as others. */
static bool as_they_are(const struct product *p)
{
    return p->form == FORM_F32 ? !of_blocks(p->b) : p->form != FORM_ROUNDED || p->b->type == GEUL_TYPE_BF16;
}

/* In floats. */
static int64_t stride_of(const struct geul_tensor *t, int dim)
{
    return (int64_t)(t->stride[dim] / sizeof(float));
}

static struct cuda_epilogue epilogue_of(const struct cuda_product *c)
{
    const bool grows = c->node->op == GEUL_OP_ADDMM;
    const struct geul_tensor *bias = !grows && c->node->n_src > 2 ? c->node->src[2] : NULL;
    const struct geul_tensor *add = grows ? c->node->src[0] : c->add;
    struct cuda_epilogue out = {.activation = c->activation, .y = c->result->data, .y_stride = stride_of(c->result, 0)};
    out.bias = bias ? bias->data : NULL;
    if (add) {
        out.add = add->data;
        out.add_stride = stride_of(add, 0);
    }
    if (c->then_add) {
        out.then_add = c->then_add->data;
        out.then_add_stride = stride_of(c->then_add, 0);
    }
    return out;
}

static struct product look(const struct cuda_card *card, const struct cuda_product *c)
{
    const struct geul_tensor *node = c->node;
    const bool grows = node->op == GEUL_OP_ADDMM;
    struct product p = {
        .node = node, .a = node->src[grows], .b = node->src[grows + 1], .bfloat = card->bfloat_products};
    p.form = form_of(p.b, node->params.matmul.precision);
    if (p.form == FORM_ROUNDED && !card->bfloat_products)
        p.form = FORM_F32; /* as on a CPU without them */
    p.m = p.a->shape[0];
    p.n = p.b->shape[1];
    p.k = p.a->shape[1];
    p.turned = p.b->stride[0] == geul_type_bytes(p.b->type) && (!of_blocks(p.b) || p.b->block_dim == 0);
    p.rows = p.a->stride[1] == sizeof(float);
    p.packed = p.turned && as_they_are(&p);
    p.result = c->result;
    p.out = epilogue_of(c);
    return p;
}

/* What happens to the results of weight rows from n0 on. */
static struct cuda_epilogue epilogue_at(const struct product *p, int64_t n0)
{
    struct cuda_epilogue out = p->out;
    out.y = out.y ? out.y + n0 : NULL; /* while there are no addresses */
    out.bias = out.bias ? out.bias + n0 : NULL;
    out.add = out.add ? out.add + n0 : NULL;
    out.then_add = out.then_add ? out.then_add + n0 : NULL;
    return out;
}

/* -------------------------------------------------------------------------------------- left -- */

/* a written anew with packed rows, k_stride elements apart, as float32 or bfloat16. */
static void *pack_left(struct cuda_plan *plan, const struct product *p, enum cuda_type to, int64_t k_stride)
{
    void *out = geul_cuda_scratch(plan, (size_t)(p->m * k_stride * element_bytes((enum geul_type)to)), plan->at);
    struct cuda_pack pack = {CUDA_F32, to,   p->a->data, {stride_of(p->a, 0), stride_of(p->a, 1)},
                             p->m,     p->k, out,        k_stride};
    geul_cuda_step(plan, "pack", geul_cuda_launch_pack, &pack, sizeof pack);
    return out;
}

/* Rows of floats. */
struct float_rows {
    const float *x;
    int64_t stride;
};

static struct float_rows left_rows(struct cuda_plan *plan, const struct product *p)
{
    if (p->rows)
        return (struct float_rows){p->a->data, stride_of(p->a, 0)};
    return (struct float_rows){pack_left(plan, p, CUDA_F32, p->k), p->k};
}

/* a rounded to int8. */
static struct cuda_int8_rows left_int8(struct cuda_plan *plan, const struct product *p)
{
    if (p->rows)
        return geul_cuda_round(plan, p->a);
    struct float_rows x = left_rows(plan, p);
    void *block = geul_cuda_scratch(plan, geul_cuda_rounded_bytes(p->m, p->k), plan->at);
    struct cuda_int8_rows out = geul_cuda_rounded_at(block, p->m, p->k);
    struct cuda_round round = {x.x, x.stride, p->m, p->k, out};
    geul_cuda_step(plan, "round", geul_cuda_launch_round, &round, sizeof round);
    return out;
}

/* a as halves: bfloat16, or float16 with a scale for each row. */
struct half_rows {
    const uint16_t *x;
    const float *scale;
};

static struct half_rows left_halves(struct cuda_plan *plan, const struct product *p, int64_t k_stride, bool bfloat)
{
    if (bfloat && !p->rows)
        return (struct half_rows){pack_left(plan, p, CUDA_BF16, k_stride), NULL};
    struct float_rows x = left_rows(plan, p);
    struct cuda_narrow narrow = {x.x, x.stride, p->m, p->k, bfloat, NULL, k_stride, NULL};
    narrow.out = geul_cuda_scratch(plan, (size_t)(p->m * k_stride) * sizeof *narrow.out, plan->at);
    if (!bfloat)
        narrow.scale = geul_cuda_scratch(plan, (size_t)p->m * sizeof *narrow.scale, plan->at);
    geul_cuda_step(plan, "narrow", geul_cuda_launch_narrow, &narrow, sizeof narrow);
    return (struct half_rows){narrow.out, narrow.scale};
}

/* ----------------------------------------------------------------------------------- weights -- */

/* Weights that are written anew, a slab of rows (n, K) at a time. */
struct slab {
    enum cuda_type to;
    int64_t rows, k_stride; /* elements from row to row */
    void *at, *across;      /* across: (K, n), before they are turned; NULL: not needed */
};

static struct slab slab_new(struct cuda_plan *plan, const struct product *p, enum cuda_type to, int64_t k_stride,
                            bool may_lie_across)
{
    const int64_t bytes = k_stride * element_bytes((enum geul_type)to);
    struct slab s = {.to = to, .k_stride = k_stride};
    s.rows = bytes > 0 ? (int64_t)geul_cuda_slab_bytes / bytes / SLAB_STEP * SLAB_STEP : p->n;
    s.rows = s.rows < SLAB_STEP ? SLAB_STEP : s.rows;
    s.rows = s.rows < p->n ? s.rows : p->n;
    s.at = geul_cuda_scratch(plan, (size_t)(s.rows * bytes), plan->at);
    if (of_blocks(p->b) && !p->turned && !may_lie_across)
        s.across = geul_cuda_scratch(plan, (size_t)(s.rows * bytes), plan->at);
    return s;
}

static void dequantize(struct cuda_plan *plan, const struct product *p, const void *from, int64_t rows, int64_t columns,
                       enum cuda_type to, void *out)
{
    struct cuda_dequantize d = {(enum cuda_type)p->b->type, from, row_bytes(p), rows, columns, to, out};
    geul_cuda_step(plan, "dequantize", geul_cuda_launch_dequantize, &d, sizeof d);
}

/* Where weights n0 and following begin. */
static const uint8_t *weights_at(const struct product *p, int64_t n0)
{
    const int64_t block = geul_type_block(p->b->type), bytes = (int64_t)geul_type_bytes(p->b->type);
    const uint8_t *b = p->b->data;
    return !b ? NULL : b + (p->turned ? n0 * row_bytes(p) : n0 / block * bytes);
}

/* Fills the slab with weights n0 .. n0 + n - 1, packed along K. */
static void fill_slab(struct cuda_plan *plan, const struct product *p, const struct slab *s, int64_t n0, int64_t n)
{
    const uint8_t *from = weights_at(p, n0);
    if (of_blocks(p->b) && p->turned) {
        dequantize(plan, p, from, n, p->k, s->to, s->at);
        return;
    }
    enum cuda_type type = (enum cuda_type)p->b->type;
    const int64_t apart = of_blocks(p->b) ? n : row_bytes(p) / (int64_t)geul_type_bytes(p->b->type);
    struct cuda_pack pack = {type, s->to, from, {1, apart}, n, p->k, s->at, s->k_stride};
    if (p->turned) {
        pack.stride[0] = apart;
        pack.stride[1] = 1;
    }
    if (of_blocks(p->b)) {
        dequantize(plan, p, from, p->k, n, s->to, s->across);
        pack.from = s->to;
        pack.x = s->across;
    }
    geul_cuda_step(plan, "pack", geul_cuda_launch_pack, &pack, sizeof pack);
}

/* -------------------------------------------------------------------------------------- dots -- */

/* Asks for the results to be left rounded, where somebody wants them so. */
static void leave_rounded(struct cuda_plan *plan, const struct product *p, struct cuda_epilogue *out)
{
    bool only = false;
    bool can = p->node->op == GEUL_OP_MATMUL && p->n % 32 == 0 && geul_is_contiguous(p->result);
    void *block = can ? geul_cuda_leave_rounded(plan, p->result, &only) : NULL;
    if (!block)
        return;
    out->rounded = geul_cuda_rounded_at(block, p->m, p->n);
    if (only)
        out->y = NULL;
}

/* With weights that cannot be read as they are, these are written anew; the results have one order of sums all the
 * same. */
static void emit_dots(struct cuda_plan *plan, const struct product *p)
{
    struct cuda_matvec a = {.type = (enum cuda_type)p->b->type,
                            .weights = p->b->data,
                            .row_bytes = row_bytes(p),
                            .n_tokens = p->m,
                            .n = p->n,
                            .k = p->k,
                            .bfloat = p->form == FORM_ROUNDED,
                            .out = p->out};
    if (of_blocks(p->b) && p->packed) {
        a.rounded = left_int8(plan, p);
    } else {
        struct float_rows x = left_rows(plan, p);
        a.x = x.x;
        a.x_stride = x.stride;
    }
    if (p->packed) {
        leave_rounded(plan, p, &a.out);
        geul_cuda_step(plan, "matvec", geul_cuda_launch_matvec, &a, sizeof a);
        return;
    }
    a.type = p->form == FORM_ROUNDED ? CUDA_BF16 : CUDA_F32;
    struct slab s = slab_new(plan, p, a.type, (p->k + PAD - 1) / PAD * PAD, false);
    a.weights = s.at;
    a.row_bytes = s.k_stride * element_bytes((enum geul_type)s.to);
    for (int64_t n0 = 0; n0 < p->n; n0 += s.rows) {
        a.n = p->n - n0 < s.rows ? p->n - n0 : s.rows;
        a.out = epilogue_at(p, n0);
        fill_slab(plan, p, &s, n0, a.n);
        geul_cuda_step(plan, "matvec", geul_cuda_launch_matvec, &a, sizeof a);
    }
}

/* ------------------------------------------------------------------------------------- tiles -- */

static int64_t ceil_div(int64_t a, int64_t b)
{
    return (a + b - 1) / b;
}

/* What a product takes on the card when it is cut so, in units of its own. blocks: on a multiprocessor. */
static int64_t time_of(const struct cuda_card *card, const struct tile *t, int64_t blocks, int64_t tile_count,
                       int64_t steps, int split)
{
    int64_t rounds = ceil_div(tile_count * split, (int64_t)card->n_sm * blocks);
    return rounds * (ceil_div(steps, split) * t->step + TILE_START + (split > 1 ? TILE_SPLIT : 0));
}

/* Cuts a product of n weight rows: so that all multiprocessors have work, with as little as possible in the last round.
 */
static struct cuda_cut cut(struct cuda_plan *plan, const struct product *p, enum cuda_type type, int64_t n,
                           int64_t k_bytes)
{
    const int64_t rows = ceil_div(n, CUDA_TILE_ROWS), steps = ceil_div(k_bytes, STEP_BYTES);
    struct cuda_cut best = {.tokens = 16, .split = 1};
    int64_t least = INT64_MAX, n_tiles = 0;
    for (size_t i = 0; i < sizeof tiles / sizeof *tiles; i++) {
        const struct tile *t = &tiles[i];
        const int64_t fit = (int64_t)((plan->card->shared_most + BLOCK_SYSTEM_BYTES) /
                                      (geul_cuda_tile_shared(type, t->tokens) + BLOCK_SYSTEM_BYTES));
        if (fit == 0 || (i > 0 && tiles[i - 1].tokens >= p->m))
            continue;
        int64_t count = rows * ceil_div(p->m, t->tokens);
        for (int split = 1; split <= MOST_PIECES && (split == 1 || split * LEAST_STEPS <= steps); split++) {
            int64_t time = time_of(plan->card, t, fit < t->blocks ? fit : t->blocks, count, steps, split);
            if (time >= least || (split > 1 && split * p->m * n * (int64_t)sizeof(float) > MOST_SUM_BYTES))
                continue;
            least = time;
            n_tiles = count;
            best = (struct cuda_cut){.tokens = t->tokens, .split = split};
        }
    }
    if (best.split > 1) {
        best.partial = geul_cuda_scratch(plan, (size_t)(best.split * p->m * n) * sizeof(float), plan->at);
        best.counters = geul_cuda_zeros(plan, (size_t)n_tiles * sizeof(uint32_t));
    }
    return best;
}

static void emit_int8(struct cuda_plan *plan, const struct product *p)
{
    struct cuda_matmul a = {.type = (enum cuda_type)p->b->type,
                            .weights = p->b->data,
                            .row_bytes = row_bytes(p),
                            .n_tokens = p->m,
                            .n = p->n,
                            .k = p->k,
                            .rounded = left_int8(plan, p),
                            .out = p->out};
    a.cut = cut(plan, p, a.type, p->n, p->k);
    geul_cuda_step(plan, "matmul int8", geul_cuda_launch_matmul_int8, &a, sizeof a);
}

/* ---------------------------------------------------------------------------- by cuBLAS or us -- */

/* How cuBLAS leaves sums in y, and what then is left to do: scales of the rows (NULL: none), and the epilogue. What is
 * to be added and lies in y already is added by cuBLAS, where nothing comes between. */
static bool leave_to_blas(const struct cuda_epilogue *out, const float *scale, bool *adds, struct cuda_finish *left)
{
    bool first = out->add == out->y, second = out->then_add == out->y;
    *adds = first || second;
    *left = (struct cuda_finish){.sums = out->y, .stride = out->y_stride, .scale = scale, .out = *out};
    if (first)
        left->out.add = NULL;
    if (second)
        left->out.then_add = NULL;
    return !*adds || (!scale && out->activation == CUDA_NO_ACTIVATION && !(first && second));
}

static int finish(struct cuda_stream *stream, struct cuda_finish *left, int64_t m, int64_t n)
{
    const struct cuda_epilogue *out = &left->out;
    left->n_rows = m;
    left->n_cols = n;
    bool nothing = !left->scale && !out->bias && !out->add && !out->then_add && out->activation == CUDA_NO_ACTIVATION;
    return nothing ? 0 : geul_cuda_launch_finish(stream, left);
}

struct halves_step {
    struct cuda_matmul_half own;
    void *workspace; /* NULL: not by cuBLAS */
    size_t workspace_bytes;
};

static int launch_halves(struct cuda_stream *stream, const void *args)
{
    const struct halves_step *s = args;
    const struct cuda_matmul_half *h = &s->own;
    struct cuda_finish left;
    bool adds, fits = leave_to_blas(&h->out, h->row_scale, &adds, &left);
    struct cuda_blas_product p = {.type = h->bfloat ? CUDA_BF16 : CUDA_F16,
                                  .a = h->x,
                                  .b = h->weights,
                                  .a_stride = {h->x_stride, 1},
                                  .b_stride = {1, h->weight_stride},
                                  .m = h->n_tokens,
                                  .n = h->n,
                                  .k = h->k,
                                  .y = h->out.y,
                                  .y_stride = h->out.y_stride,
                                  .adds = adds,
                                  .workspace = s->workspace,
                                  .workspace_bytes = s->workspace_bytes};
    if (s->workspace && fits && geul_cuda_blas_multiply(stream, &p))
        return finish(stream, &left, h->n_tokens, h->n);
    return geul_cuda_launch_matmul_half(stream, h);
}

struct floats_step {
    struct cuda_matmul_plain own;
    void *workspace;
    size_t workspace_bytes;
};

static int launch_floats(struct cuda_stream *stream, const void *args)
{
    const struct floats_step *s = args;
    const struct cuda_matmul_plain *f = &s->own;
    struct cuda_finish left;
    bool adds, fits = leave_to_blas(&f->out, NULL, &adds, &left);
    struct cuda_blas_product p = {.type = CUDA_F32,
                                  .a = f->a,
                                  .b = f->b,
                                  .a_stride = {f->a_stride[0], f->a_stride[1]},
                                  .b_stride = {f->b_stride[0], f->b_stride[1]},
                                  .m = f->m,
                                  .n = f->n,
                                  .k = f->k,
                                  .y = f->out.y,
                                  .y_stride = f->out.y_stride,
                                  .adds = adds,
                                  .workspace = s->workspace,
                                  .workspace_bytes = s->workspace_bytes};
    if (s->workspace && fits && f->type == CUDA_F32 && geul_cuda_blas_multiply(stream, &p))
        return finish(stream, &left, f->m, f->n);
    return geul_cuda_launch_matmul_plain(stream, f);
}

/* Whether cuBLAS is there. When it is not, the first who asks is told why. */
static bool blas_there(const struct cuda_plan *plan)
{
    static atomic_flag told = ATOMIC_FLAG_INIT;
    const char *reason;
    bool there = geul_cuda_blas_there(&reason);
    if (!there && !atomic_flag_test_and_set(&told))
        geul_log(plan->state->ctx, GEUL_LOG_DEBUG,
                 "without cuBLAS, which long prompts and training are faster with: %s", reason);
    return there;
}

/* Memory for cuBLAS to work in; NULL: p is not for it. */
static void *take_workspace(struct cuda_plan *plan, const struct product *p, size_t *bytes)
{
    *bytes = geul_cuda_blas_workspace(plan->card);
    return p->m >= BLAS_TOKENS && blas_there(plan) ? geul_cuda_scratch(plan, *bytes, plan->at) : NULL;
}

/* Where a tensor begins in its buffer's element, as far as views say: devices align what they hold. */
static bool on_16_bytes(const struct geul_tensor *t)
{
    size_t offset = 0;
    for (; t->op == GEUL_OP_VIEW; t = t->src[0])
        offset += t->params.view.offset;
    return offset % 16 == 0;
}

static void emit_halves(struct cuda_plan *plan, const struct product *p)
{
    const bool bfloat = p->form != FORM_F16;
    const enum cuda_type type = bfloat ? CUDA_BF16 : CUDA_F16;
    const int64_t k_stride = ceil_div(p->k, PAD) * PAD;
    const bool direct = (enum cuda_type)p->b->type == type && p->turned && p->k % PAD == 0 && row_bytes(p) % 16 == 0 &&
                        on_16_bytes(p->b);
    struct half_rows x = left_halves(plan, p, k_stride, bfloat);
    struct halves_step s = {.own = {.bfloat = bfloat,
                                    .weights = p->b->data,
                                    .x = x.x,
                                    .weight_stride = row_bytes(p) / (int64_t)sizeof(uint16_t),
                                    .x_stride = k_stride,
                                    .n_tokens = p->m,
                                    .n = p->n,
                                    .k = k_stride,
                                    .row_scale = x.scale,
                                    .out = p->out}};
    s.workspace = take_workspace(plan, p, &s.workspace_bytes);
    if (direct) {
        s.own.cut = cut(plan, p, type, p->n, k_stride * 2);
        geul_cuda_step(plan, "matmul halves", launch_halves, &s, sizeof s);
        return;
    }
    struct slab slab = slab_new(plan, p, type, k_stride, false);
    s.own.cut = cut(plan, p, type, slab.rows, k_stride * 2);
    s.own.weights = slab.at;
    s.own.weight_stride = k_stride;
    for (int64_t n0 = 0; n0 < p->n; n0 += slab.rows) {
        s.own.n = p->n - n0 < slab.rows ? p->n - n0 : slab.rows;
        s.own.out = epilogue_at(p, n0);
        fill_slab(plan, p, &slab, n0, s.own.n);
        geul_cuda_step(plan, "matmul halves", launch_halves, &s, sizeof s);
    }
}

/* Strides of K and N in b's memory, or of rows that are `apart`. */
static void float_strides(const struct product *p, int64_t apart, int64_t stride[2])
{
    stride[0] = p->turned ? 1 : apart;
    stride[1] = p->turned ? apart : 1;
}

static void emit_floats(struct cuda_plan *plan, const struct product *p)
{
    struct floats_step s = {.own = {.a = p->a->data,
                                    .a_stride = {stride_of(p->a, 0), stride_of(p->a, 1)},
                                    .type = (enum cuda_type)p->b->type,
                                    .b = p->b->data,
                                    .m = p->m,
                                    .n = p->n,
                                    .k = p->k,
                                    .out = p->out}};
    s.workspace = take_workspace(plan, p, &s.workspace_bytes);
    /* Our own kernel reads every plain type. */
    if (p->b->type == GEUL_TYPE_F32 || (!of_blocks(p->b) && !s.workspace)) {
        float_strides(p, row_bytes(p) / (int64_t)geul_type_bytes(p->b->type), s.own.b_stride);
        geul_cuda_step(plan, "matmul floats", launch_floats, &s, sizeof s);
        return;
    }
    struct slab slab = slab_new(plan, p, CUDA_F32, p->k, true);
    s.own.type = CUDA_F32;
    s.own.b = slab.at;
    for (int64_t n0 = 0; n0 < p->n; n0 += slab.rows) {
        s.own.n = p->n - n0 < slab.rows ? p->n - n0 : slab.rows;
        s.own.out = epilogue_at(p, n0);
        float_strides(p, p->turned ? p->k : s.own.n, s.own.b_stride);
        const uint8_t *from = weights_at(p, n0);
        if (p->turned)
            dequantize(plan, p, from, s.own.n, p->k, CUDA_F32, slab.at);
        else
            dequantize(plan, p, from, p->k, s.own.n, CUDA_F32, slab.at);
        geul_cuda_step(plan, "matmul floats", launch_floats, &s, sizeof s);
    }
}

/* --------------------------------------------------------------------------------- operations -- */

static bool fits(const struct cuda_plan *plan, const struct way *way, const struct product *p)
{
    return way->form == p->form && (way->most_tokens == ANY_NUMBER || p->m <= way->most_tokens) &&
           (!(way->needs & PACKED) || p->packed) && (!(way->needs & BFLOAT) || p->bfloat) &&
           (!(way->needs & BLAS) || blas_there(plan));
}

void geul_cuda_emit_product(struct cuda_plan *plan, const struct cuda_product *product)
{
    const struct product p = look(plan->card, product);
    emit_way *emit = plan->exact ? emit_dots : NULL;
    for (size_t i = 0; !emit; i++)
        if (fits(plan, &ways[i], &p))
            emit = ways[i].emit;
    if (p.m > 0 && p.n > 0)
        emit(plan, &p);
}

/* Grids are as high as there are tokens: that of dots the most. Tiles count in bytes of K. */
enum { MOST_TOKENS = 4 * 65535, MOST_K = 1 << 29 };

static bool matmul_supports(const struct cuda_card *card, const struct geul_tensor *node)
{
    const struct geul_tensor *bias = node->op == GEUL_OP_MATMUL && node->n_src > 2 ? node->src[2] : NULL;
    const struct geul_tensor *a = node->src[node->op == GEUL_OP_ADDMM];
    (void)card;
    return node->shape[0] <= MOST_TOKENS && a->shape[1] <= MOST_K && (!bias || bias->stride[0] == sizeof(float));
}

static void emit_matmul(struct cuda_plan *plan, const struct geul_tensor *node)
{
    geul_cuda_emit_product(plan, &(struct cuda_product){.node = node, .result = node});
}

const struct cuda_op geul_cuda_op_MATMUL = {.supports = matmul_supports, .emit = emit_matmul};
const struct cuda_op geul_cuda_op_ADDMM = {.supports = matmul_supports, .emit = emit_matmul};

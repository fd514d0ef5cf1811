/* cuda_bed.c: see cuda_bed.h. The kernels are C functions in the shape that LAUNCH() makes. */
#include "tests/cuda_host/cuda_bed.h"

enum bed_fault bed_fault;
int bed_left;
bool bed_exact;

enum { THREADS = 32 };

/* Launches call once per thread of a block. */
static int launch(struct cuda_stream *stream, const char *name, void (*call)(const void *), const void *args,
                  size_t bytes)
{
    struct cuda_host_launch l = {name, __FILE__, __LINE__, {1, 1, 1}, THREADS, 0, call, args, bytes};
    return cuda_host_submit(stream, &l);
}

static int64_t elements(const struct geul_tensor *t)
{
    return geul_rows(t) * geul_cols(t);
}

/* ------------------------------------------------------------------------------- elementwise -- */

/* y = (a + b) * factor; b and counter may be NULL. */
struct sum {
    float *y;
    const float *a, *b;
    uint32_t *counter;
    float factor;
    int64_t n;
};

static void sum_kernel(const void *args)
{
    const struct sum *s = args;
    for (int64_t i = cuda_host_now.thread; i < s->n; i += THREADS) {
        float count = s->counter ? (float)*s->counter : 0;
        s->y[i] = (s->a[i] + (s->b ? s->b[i] : 0) + count) * s->factor;
    }
}

static int launch_sum(struct cuda_stream *stream, const void *args)
{
    return launch(stream, "sum", sum_kernel, args, sizeof(struct sum));
}

static void break_kernel(const void *args)
{
    (void)args;
    cuda_host_fail((struct cuda_host_site){__FILE__, __LINE__}, "a planted mistake");
}

static int launch_scale(struct cuda_stream *stream, const void *args)
{
    enum bed_fault fault = bed_fault;
    bed_fault = BED_FINE;
    if (fault == BED_REFUSED)
        return CUDA_HOST_INVALID_CONFIGURATION;
    return launch(stream, "scale", fault == BED_BREAKS ? break_kernel : sum_kernel, args, sizeof(struct sum));
}

static void emit_add(struct cuda_plan *plan, const struct geul_tensor *node)
{
    int64_t n = elements(node);
    bed_exact = plan->exact;
    float *copy = geul_cuda_scratch(plan, (size_t)n * sizeof(float), plan->at);
    struct sum first = {copy, node->src[0]->data, NULL, NULL, 1, n};
    geul_cuda_step(plan, "copy", launch_sum, &first, sizeof first);
    struct sum second = {node->data, copy, node->src[1]->data, NULL, 1, n};
    geul_cuda_step(plan, "add", launch_sum, &second, sizeof second);
}

static void emit_scale(struct cuda_plan *plan, const struct geul_tensor *node)
{
    struct sum s = {node->data, node->src[0]->data, NULL, NULL, node->params.scale.factor, elements(node)};
    geul_cuda_step(plan, "scale", launch_scale, &s, sizeof s);
}

static void emit_gelu(struct cuda_plan *plan, const struct geul_tensor *node)
{
    uint32_t *counter = geul_cuda_zeros(plan, sizeof *counter);
    struct sum s = {node->data, node->src[0]->data, NULL, counter, 1, elements(node)};
    geul_cuda_step(plan, "gelu", launch_sum, &s, sizeof s);
}

static void emit_accumulate(struct cuda_plan *plan, const struct geul_tensor *node)
{
    struct sum s = {node->data, node->src[0]->data, node->src[1]->data, NULL, 1, elements(node)};
    geul_cuda_step(plan, "accumulate", launch_sum, &s, sizeof s);
}

static int scale_twice(struct cuda_plan *plan, int at)
{
    const struct geul_tensor *first = plan->nodes[at];
    if (first->op != GEUL_OP_SCALE || at + 1 == plan->n_nodes || first->kept || geul_cuda_readers(plan, first) != 1)
        return 0;
    const struct geul_tensor *second = plan->nodes[at + 1];
    if (second->op != GEUL_OP_SCALE || !geul_cuda_same(second->src[0], first))
        return 0;
    plan->at = at + 1;
    float factor = first->params.scale.factor * second->params.scale.factor;
    struct sum s = {second->data, first->src[0]->data, NULL, NULL, factor, elements(second)};
    geul_cuda_step(plan, "scale twice", launch_scale, &s, sizeof s);
    return 2;
}

/* ------------------------------------------------------------------------------ rounded rows -- */

struct norm {
    float *y; /* NULL: not stored */
    const float *x;
    int8_t *q; /* NULL: not rounded */
    float *scale;
    int64_t n;
};

static void norm_kernel(const void *args)
{
    const struct norm *a = args;
    for (int64_t i = cuda_host_now.thread; i < a->n; i += THREADS) {
        if (a->q) {
            a->q[i] = (int8_t)lrintf(a->x[i]);
            a->scale[i / 32] = 1;
        }
        if (a->y)
            a->y[i] = a->x[i];
    }
}

static int launch_norm(struct cuda_stream *stream, const void *args)
{
    return launch(stream, "norm", norm_kernel, args, sizeof(struct norm));
}

/* Of small whole numbers: rounding them is exact with a scale of 1. */
static struct norm rounding(const struct geul_tensor *x, float *y, struct cuda_int8_rows out)
{
    return (struct norm){y, x->data, out.q, out.scale, elements(x)};
}

static void emit_norm(struct cuda_plan *plan, const struct geul_tensor *node)
{
    bool only;
    void *block = geul_cuda_leave_rounded(plan, node, &only);
    bed_left = !block ? 0 : only ? 2 : 1;
    struct cuda_int8_rows out = {0};
    if (block)
        out = geul_cuda_rounded_at(block, geul_rows(node), geul_cols(node));
    struct norm args = rounding(node->src[0], only ? NULL : node->data, out);
    geul_cuda_step(plan, "norm", launch_norm, &args, sizeof args);
}

static void round_rows(struct cuda_plan *plan, const struct geul_tensor *x, struct cuda_int8_rows out)
{
    struct norm args = rounding(x, NULL, out);
    geul_cuda_step(plan, "round", launch_norm, &args, sizeof args);
}

struct product {
    float *y;
    struct cuda_int8_rows x;
    const float *w;
    int64_t t, n, k;
};

static void product_kernel(const void *args)
{
    const struct product *p = args;
    for (int64_t i = cuda_host_now.thread; i < p->t * p->n; i += THREADS) {
        float sum = 0;
        for (int64_t k = 0; k < p->k; k++) {
            int64_t at = i / p->n * p->k + k;
            sum += p->x.scale[at / 32] * (float)p->x.q[at] * p->w[i % p->n * p->k + k];
        }
        p->y[i] = sum;
    }
}

static int launch_product(struct cuda_stream *stream, const void *args)
{
    return launch(stream, "product", product_kernel, args, sizeof(struct product));
}

static void emit_matmul(struct cuda_plan *plan, const struct geul_tensor *node)
{
    struct cuda_int8_rows x = geul_cuda_round(plan, node->src[0]);
    struct product p = {node->data, x, node->src[1]->data, geul_rows(node), geul_cols(node), geul_cols(node->src[0])};
    geul_cuda_step(plan, "product", launch_product, &p, sizeof p);
}

/* -------------------------------------------------------------------------------------- bed -- */

static const struct cuda_op op_add = {NULL, emit_add}, op_scale = {NULL, emit_scale}, op_gelu = {NULL, emit_gelu},
                            op_norm = {NULL, emit_norm}, op_matmul = {NULL, emit_matmul},
                            op_accumulate = {NULL, emit_accumulate};
static const struct cuda_op *const ops[GEUL_OP_COUNT] = {
    [GEUL_OP_ADD] = &op_add,        [GEUL_OP_SCALE] = &op_scale,   [GEUL_OP_GELU] = &op_gelu,
    [GEUL_OP_LAYERNORM] = &op_norm, [GEUL_OP_MATMUL] = &op_matmul, [GEUL_OP_ACCUMULATE] = &op_accumulate,
};
static cuda_pattern *const patterns[] = {scale_twice, NULL}, *const none[] = {NULL};
const struct cuda_kernels bed_kernels = {ops, patterns, round_rows}, bed_kernels_apart = {ops, none, round_rows};

struct geul_device *bed_device(struct geul_context *ctx, const char *cards)
{
    host_gpu_machine(cards);
    geul_cuda_kernels = &bed_kernels;
    return geul_backend_cuda.open(ctx, 0, 0);
}

bool bed_is_clean(void)
{
    struct host_gpu_use use = host_gpu_in_use();
    bool freed = use.blocks + use.pinned + use.streams + use.events + use.graphs == 0;
    CHECK_MSG(freed, "not freed: %ld blocks of cards, %ld of pinned memory, %ld streams, %ld events, %ld graphs",
              use.blocks, use.pinned, use.streams, use.events, use.graphs);
    return CHECK_STR(host_gpu_misuse(), "") && freed;
}

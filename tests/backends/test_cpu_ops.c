/* test_cpu_ops.c: every operation of core/ops.def on the CPU against its meaning in double, under every instruction set
 * that this machine has, and bit-equal for every number of threads. */
#include "tests/backends/op_frame.h"

void case_ADD(struct run *r)
{
    for (int s = 0; s < N_SIZES; s++) {
        int64_t n = sizes[s];
        struct geul_tensor *a = strided(r, 5, n), *b = s % 2 ? LEAF(F32, 2, n) : strided(r, 5, n);
        double *want = doubles(r, 5 * n);
        for (int64_t i = 0; i < 5 * n; i++)
            want[i] = cpu_value(a, i) + cpu_value(b, s % 2 ? i % n : i);
        struct geul_tensor *y = geul_add(r->ctx, a, b);
        if (op_compute(r, y))
            verify(r, y, want, 0, 1e-7);
    }
    struct geul_tensor *a = LEAF(F32, 1, 2, 3, 4, 5), *b = LEAF(F32, 1, 3, 4, 5), *y = geul_add(r->ctx, a, b);
    double want[120];
    for (int64_t i = 0; i < 120; i++)
        want[i] = cpu_value(a, i) + cpu_value(b, i % 60);
    y->data = a->data; /* in place */
    if (op_compute(r, y))
        verify(r, y, want, 0, 1e-7);
}

void case_GELU(struct run *r)
{
    for (int s = 0; s < 2 * N_SIZES; s++) {
        int64_t n = sizes[s / 2];
        struct geul_tensor *x = strided(r, 3, n);
        double *want = doubles(r, 3 * n);
        ((float *)x->data)[0] = NAN;
        for (int64_t i = 0; i < 3 * n; i++) {
            double v = cpu_value(x, i), cube = v * v * v;
            want[i] = s % 2 ? 0.5 * v * (1 + tanh(0.7978845608028654 * (v + 0.044715 * cube)))
                            : 0.5 * v * erfc(-v * 0.7071067811865476);
        }
        struct geul_tensor *y = geul_gelu(r->ctx, x, s % 2 ? GEUL_GELU_TANH : GEUL_GELU_ERF);
        if (op_compute(r, y))
            verify(r, y, want, 5e-7, 2e-7);
    }
}

void case_LAYERNORM(struct run *r)
{
    for (int s = 0; s < N_SIZES; s++) {
        int64_t n = sizes[s];
        struct geul_tensor *x = strided(r, 4, n), *w = LEAF(F32, 1, n), *b = LEAF(F32, 1, n);
        double *want = doubles(r, 4 * n);
        for (int64_t row = 0; row < 4; row++) {
            double mean = 0, var = 0;
            for (int64_t i = 0; i < n; i++)
                mean += cpu_value(x, row * n + i) / (double)n;
            for (int64_t i = 0; i < n; i++)
                var += pow(cpu_value(x, row * n + i) - mean, 2) / (double)n;
            for (int64_t i = 0; i < n; i++)
                want[row * n + i] =
                    (cpu_value(x, row * n + i) - mean) / sqrt(var + (double)1e-5f) * cpu_value(w, i) + cpu_value(b, i);
        }
        struct geul_tensor *y = geul_layernorm(r->ctx, x, w, b, 1e-5f);
        if (op_compute(r, y))
            verify(r, y, want, 2e-5, 1e-5);
    }
}

/* What int8 activations look like after their rounding. */
static void round_activations(double *x, int64_t k)
{
    for (int64_t i = 0; i < k; i += 32) {
        float amax = 0;
        for (int64_t j = i; j < i + 32; j++)
            amax = fmaxf(amax, fabsf((float)x[j]));
        for (int64_t j = i; amax > 0 && j < i + 32; j++)
            x[j] = (double)lrintf((float)x[j] * (127.0f / amax)) * (double)(amax / 127.0f);
    }
}

/* x (tokens, k) times the transpose of w (n, k), plus bias. Some kernels round activations: to bfloat16 by up to 2^-9
 * of each, and on far devices to float16 by up to 2^-11; of sums of normal numbers all but few are off by less than 4
 * times that, times their size. */
static void one_product(struct run *r, enum geul_type type, int64_t tokens, int64_t n, int64_t k, bool has_bias)
{
    struct geul_tensor *x = cpu_view(geul_narrow(r->ctx, LEAF(F32, 1, tokens, k + 3), 1, 2, k));
    struct geul_tensor *w = cpu_leaf(r->ctx, &r->seed, type, 2, (int64_t[]){n, k}, 1);
    struct geul_tensor *bias = LEAF(F32, 1, n);
    double *want = doubles(r, tokens * n), *row = doubles(r, k), *weights = doubles(r, n * k);
    for (int64_t i = 0; i < n * k; i++)
        weights[i] = cpu_value(w, i);
    for (int64_t t = 0; t < tokens; t++) {
        for (int64_t i = 0; i < k; i++)
            row[i] = cpu_value(x, t * k + i);
        if (geul_type_block(type) > 1)
            round_activations(row, k);
        for (int64_t j = 0; j < n; j++) {
            double sum = has_bias ? cpu_value(bias, j) : 0;
            for (int64_t i = 0; i < k; i++)
                sum += weights[j * k + i] * row[i];
            want[t * n + j] = sum;
        }
    }
    struct geul_tensor *y = geul_linear(r->ctx, x, w, bias, has_bias);
    double size = sqrt((double)k);
    double each = type == GEUL_TYPE_BF16 ? 8e-3 : type == GEUL_TYPE_F16 && r->far && !r->exact ? 2e-3 : 3e-6;
    if (op_compute(r, y))
        verify(r, y, want, each * size, 2e-6);
}

void case_MATMUL(struct run *r)
{
    static const enum geul_type types[] = {GEUL_TYPE_F32, GEUL_TYPE_F16, GEUL_TYPE_BF16, GEUL_TYPE_Q8_0,
                                           GEUL_TYPE_Q4_0};
    static const struct {
        int64_t tokens, n, k;
    } shapes[] = {{1, 1, 1},   {1, 17, 33},  {2, 40, 64},   {3, 33, 96},  {5, 31, 7},     {6, 32, 128},
                  {7, 65, 32}, {13, 70, 65}, {25, 64, 288}, {9, 3, 1056}, {12, 96, 2080}, {64, 16, 31}};
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++)
        for (size_t j = 0; j < 5; j++) {
            int64_t block = geul_type_block(types[j]), k = (shapes[i].k + block - 1) / block * block;
            one_product(r, types[j], shapes[i].tokens, shapes[i].n, k, (i + j) % 2);
        }
    for (int64_t tokens = 1; tokens < 20; tokens += 6) { /* NaN and infinity come out, in their own row only */
        for (size_t j = 0; j < 5; j++) {
            struct geul_tensor *x = LEAF(F32, 1, tokens, 64),
                               *w = cpu_leaf(r->ctx, &r->seed, types[j], 2, (int64_t[]){33, 64}, 1);
            ((float *)x->data)[(tokens - 1) * 64 + 5] = j % 2 ? NAN : INFINITY;
            struct geul_tensor *y = geul_linear(r->ctx, x, w, NULL, false);
            if (!op_compute(r, y))
                continue;
            for (int64_t i = 0; i < tokens * 33; i++) {
                bool finite = isfinite(cpu_value(y, i));
                bool zero = geul_type_block(types[j]) == 1 && cpu_value(w, i % 33 * 64 + 5) == 0;
                CHECK_MSG(zero || finite == (i / 33 < tokens - 1), "%s %s: row %d of %d", r->what,
                          geul_type_name(types[j]), (int)(i / 33), (int)tokens);
            }
        }
    }
}

void case_EMBED(struct run *r)
{
    enum { COLS = 512 }; /* two of the largest blocks */
    for (enum geul_type type = 0; type < GEUL_TYPE_COUNT; type++) {
        if (!geul_type_is_weight(type))
            continue;
        struct geul_tensor *table = cpu_leaf(r->ctx, &r->seed, type, 2, (int64_t[]){9, COLS}, 1);
        struct geul_tensor *ids = LEAF(I32, 0, 6);
        int32_t *id = ids->data;
        double want[6 * COLS];
        memcpy(id, (int32_t[]){8, 0, -1, 9, INT32_MIN, 3}, 6 * sizeof *id);
        for (int i = 0; i < 6 * COLS; i++)
            want[i] = id[i / COLS] >= 0 && id[i / COLS] < 9 ? cpu_value(table, id[i / COLS] * COLS + i % COLS) : NAN;
        struct geul_tensor *y = geul_embed(r->ctx, table, ids);
        if (op_compute(r, y))
            verify(r, y, want, 0, 0);
    }
}

void case_ROPE(struct run *r)
{
    static const struct {
        int64_t tokens, heads, depth;
        int n_rot;
    } shapes[] = {{1, 1, 2, 2}, {3, 2, 8, 4}, {5, 3, 80, 20}, {4, 2, 64, 64}, {9, 4, 33, 30}, {2, 2, 16, 0}};
    for (size_t s = 0; s < sizeof shapes / sizeof shapes[0]; s++) {
        int64_t tokens = shapes[s].tokens, heads = shapes[s].heads, depth = shapes[s].depth, n = tokens * heads * depth;
        int n_rot = shapes[s].n_rot, half = n_rot / 2;
        /* heads inside a fused projection: strided tokens */
        struct geul_tensor *fused = LEAF(F32, 1, tokens, 3 * heads * depth), *seq_pos = seq_positions(r, tokens);
        struct geul_tensor *middle = geul_narrow(r->ctx, fused, 1, heads * depth, heads * depth);
        struct geul_tensor *x = cpu_view(geul_split_last(r->ctx, middle, heads));
        double *want = doubles(r, n);
        for (int64_t t = 0; t < tokens; t++)
            set_seq_pos(seq_pos, t, 0, (int32_t)(test_random(&r->seed) % 2048));
        for (int64_t i = 0; i < n; i++) {
            int64_t t = i / (heads * depth), d = i % depth;
            int pair = (int)(d % (half ? half : 1));
            double angle = ((int32_t *)seq_pos->data)[2 * t + 1] * pow(10000, -2.0 * pair / (n_rot ? n_rot : 1));
            want[i] = cpu_value(x, i);
            if (d < half)
                want[i] = cpu_value(x, i) * cos(angle) - cpu_value(x, i + half) * sin(angle);
            else if (d < n_rot)
                want[i] = cpu_value(x, i) * cos(angle) + cpu_value(x, i - half) * sin(angle);
        }
        /* twice in one run: the second takes the table of the first */
        struct geul_tensor *a = geul_rope(r->ctx, x, seq_pos, n_rot, 10000);
        struct geul_tensor *b = geul_rope(r->ctx, x, seq_pos, n_rot, 10000);
        struct geul_tensor *sum = geul_add(r->ctx, a, b);
        for (int64_t i = 0; i < n; i++)
            want[i] *= 2;
        if (op_compute(r, sum))
            verify(r, sum, want, 2e-6, 1e-6);
    }
}

/* Rows of blocks: each becomes what the reference encoding makes of it. */
static void store_blocks(struct run *r)
{
    struct geul_tensor *cache = cpu_leaf(r->ctx, &r->seed, GEUL_TYPE_Q8_0, 4, (int64_t[]){2, 3, 5, 64}, 1);
    struct geul_tensor *x = LEAF(F32, 1, 4, 3, 64), *seq_pos = seq_positions(r, 4);
    const int32_t at[4][2] = {{0, 0}, {1, 4}, {2, 0}, {0, 3}}; /* the third lies outside */
    double *want = doubles(r, 2 * 3 * 5 * 64);
    for (int i = 0; i < 2 * 3 * 5 * 64; i++)
        want[i] = cpu_value(cache, i);
    for (int t = 0; t < 4; t++) {
        set_seq_pos(seq_pos, t, at[t][0], at[t][1]);
        for (int h = 0; h < 3 && at[t][0] < 2; h++) {
            float row[64];
            uint8_t coded[68];
            memcpy(row, (float *)x->data + (t * 3 + h) * 64, sizeof row);
            geul_encode(GEUL_TYPE_Q8_0, row, coded, 64);
            geul_decode(GEUL_TYPE_Q8_0, coded, row, 64);
            for (int i = 0; i < 64; i++)
                want[((at[t][0] * 3 + h) * 5 + at[t][1]) * 64 + i] = (double)row[i];
        }
    }
    struct geul_tensor *y = geul_store(r->ctx, cache, x, seq_pos);
    if (op_compute(r, y))
        verify(r, y, want, 0, 0);
}

void case_STORE(struct run *r)
{
    store_blocks(r);
    static const enum geul_type types[] = {GEUL_TYPE_F32, GEUL_TYPE_F16, GEUL_TYPE_BF16};
    for (int j = 0; j < 3; j++) {
        struct geul_tensor *cache = cpu_leaf(r->ctx, &r->seed, types[j], 4, (int64_t[]){2, 3, 5, 7}, 1);
        struct geul_tensor *x = LEAF(F32, 1, 7, 3, 7), *seq_pos = seq_positions(r, 7);
        const int32_t at[7][2] = {{0, 0}, {1, 4},  {0, 2}, {2, 0},
                                  {0, 5}, {-1, 1}, {0, 2}}; /* three outside, one twice */
        double want[2 * 3 * 5 * 7];
        for (int i = 0; i < 210; i++)
            want[i] = cpu_value(cache, i);
        for (int t = 0; t < 7; t++) {
            set_seq_pos(seq_pos, t, at[t][0], at[t][1]);
            for (int i = 0; i < 21 && at[t][0] >= 0 && at[t][0] < 2 && at[t][1] < 5; i++) {
                float v = (float)cpu_value(x, t * 21 + i);
                uint8_t coded[4];
                geul_encode(types[j], &v, coded, 1);
                geul_decode(types[j], coded, &v, 1);
                want[((at[t][0] * 3 + i / 7) * 5 + at[t][1]) * 7 + i % 7] = v;
            }
        }
        struct geul_tensor *y = geul_store(r->ctx, cache, x, seq_pos);
        if (op_compute(r, y))
            verify(r, y, want, 0, 0);
    }
}

/* Attention of the tokens at their places, by the book. */
static void attend(const struct geul_tensor *q, const struct geul_tensor *k, const struct geul_tensor *v,
                   const int32_t *seq_pos, double scale, double *want)
{
    int64_t tokens = q->shape[0], heads = q->shape[1], depth = q->shape[2], room = k->shape[2];
    double *p = malloc((size_t)room * sizeof *p);
    for (int64_t t = 0; t < tokens; t++)
        for (int64_t h = 0; h < heads; h++) {
            double *out = want + (t * heads + h) * depth, high = -INFINITY, sum = 0;
            int64_t seq = seq_pos[2 * t], last = seq_pos[2 * t + 1], base = (seq * heads + h) * room * depth;
            bool inside = seq >= 0 && seq < k->shape[0] && last >= 0 && last < room;
            for (int64_t d = 0; d < depth; d++)
                out[d] = inside ? 0 : NAN;
            for (int64_t c = 0; inside && c <= last; c++) {
                p[c] = 0;
                for (int64_t d = 0; d < depth; d++)
                    p[c] += scale * cpu_value(q, (t * heads + h) * depth + d) * cpu_value(k, base + c * depth + d);
                high = fmax(high, p[c]);
            }
            for (int64_t c = 0; inside && c <= last; c++)
                sum += p[c] = exp(p[c] - high);
            for (int64_t c = 0; inside && c <= last; c++)
                for (int64_t d = 0; d < depth; d++)
                    out[d] += p[c] / sum * cpu_value(v, base + c * depth + d);
        }
    free(p);
}

void case_ATTENTION(struct run *r)
{
    static const struct {
        enum geul_type type;
        int64_t tokens, heads, room, depth, sequences;
        int32_t first; /* position of the first token */
    } shapes[] = {{GEUL_TYPE_F32, 1, 1, 1, 1, 1, 0},        {GEUL_TYPE_F16, 1, 2, 70, 16, 1, 66},
                  {GEUL_TYPE_BF16, 5, 3, 40, 24, 2, 3},     {GEUL_TYPE_F32, 50, 2, 130, 64, 1, 0},
                  {GEUL_TYPE_F16, 60, 1, 190, 80, 1, 125},  {GEUL_TYPE_BF16, 17, 2, 64, 33, 3, 40},
                  {GEUL_TYPE_F32, 4, 1, 300, 128, 1, 290},  {GEUL_TYPE_Q8_0, 7, 2, 70, 64, 1, 60},
                  {GEUL_TYPE_Q8_0, 1, 3, 600, 96, 2, 599},  {GEUL_TYPE_F16, 3, 1, 1100, 40, 2, 1000},
                  {GEUL_TYPE_F16, 140, 1, 300, 32, 1, 130}, {GEUL_TYPE_Q8_0, 9, 1, 530, 32, 1, 510}};
    for (size_t s = 0; s < sizeof shapes / sizeof shapes[0]; s++) {
        enum geul_type type = shapes[s].type;
        int64_t tokens = shapes[s].tokens, heads = shapes[s].heads, depth = shapes[s].depth, n = tokens * heads * depth;
        int64_t cache[] = {shapes[s].sequences, heads, shapes[s].room, depth};
        struct geul_tensor *q = cpu_view(geul_split_last(r->ctx, strided(r, tokens, heads * depth), heads));
        struct geul_tensor *k = cpu_leaf(r->ctx, &r->seed, type, 4, cache, 1);
        struct geul_tensor *v = cpu_leaf(r->ctx, &r->seed, type, 4, cache, 1), *seq_pos = seq_positions(r, tokens);
        double *want = doubles(r, n);
        for (int64_t t = 0; t < tokens; t++) /* several sequences change every three tokens */
            set_seq_pos(seq_pos, t, (int32_t)(t / 3 % cache[0]), shapes[s].first + (int32_t)t);
        if (s == 2) {
            set_seq_pos(seq_pos, 1, 0, 40); /* one position too far */
            set_seq_pos(seq_pos, 4, -1, 2);
        }
        attend(q, k, v, seq_pos->data, 0.25, want);
        struct geul_tensor *y = geul_attention(r->ctx, q, k, v, seq_pos, 0.25f);
        if (op_compute(r, y))
            verify(r, y, want, 1e-5, 1e-5);
    }
}

void case_CONT(struct run *r)
{
    for (enum geul_type type = 0; type < GEUL_TYPE_COUNT; type++) {
        if (!geul_type_is_weight(type))
            continue;
        struct geul_tensor *x = cpu_leaf(r->ctx, &r->seed, type, 3, (int64_t[]){3, 5, 256}, 1);
        bool plain = geul_type_block(type) == 1;
        x = geul_transpose(r->ctx, x, 0, plain ? 2 : 1);
        x = cpu_view(geul_narrow(r->ctx, x, plain ? 0 : 1, 1, 2));
        int64_t n = geul_tensor_elements(x);
        double *want = doubles(r, n);
        for (int64_t i = 0; i < n; i++)
            want[i] = cpu_value(x, i);
        struct geul_tensor *y = geul_contiguous(r->ctx, x);
        if (op_compute(r, y))
            verify(r, y, want, 0, 0);
    }
}

/* Views compute nothing, but every operation has to read through them. */
void case_VIEW(struct run *r)
{
    struct geul_tensor *x = LEAF(F32, 1, 4, 6), *sum = geul_add(r->ctx, x, x);
    struct geul_tensor *y = geul_contiguous(r->ctx, geul_transpose(r->ctx, sum, 0, 1));
    double want[24];
    for (int i = 0; i < 24; i++)
        want[i] = 2 * cpu_value(x, i % 4 * 6 + i / 4);
    if (op_compute(r, y))
        verify(r, y, want, 0, 1e-7);
}

/* Their cases are in separate files: test_cpu_attention_back.c, test_cpu_products.c. */
#define TESTED_ELSEWHERE(id)                                                                                           \
    void case_##id(struct run *r)                                                                                      \
    {                                                                                                                  \
        (void)r;                                                                                                       \
    }
TESTED_ELSEWHERE(ATTENTION_BACK)
TESTED_ELSEWHERE(ADDMM)

/* One op under one instruction set: against the reference with 1 thread, then the same bits with others. */
static void check_op(enum geul_op op, const char *variant)
{
    static const int threads[] = {1, 2, 3, 4, 7};
    char what[96];
    struct run r = {.what = what};
    char other[32];
    snprintf(what, sizeof what, "%s under %s", geul_op_info(op)->name, variant);
    for (int i = 0; i < 5; i++) {
        r.ctx = geul_context_new(NULL);
        r.device = cpu_device(r.ctx, variant, threads[i]);
        r.seed = CPU_SEED;
        r.compare = i > 0;
        snprintf(other, sizeof other, "%d threads", threads[i]);
        r.other = other;
        r.at = 0;
        if (r.device)
            op_cases[op](&r);
        geul_device_close(r.ctx, r.device);
        geul_context_free(r.ctx);
    }
    free(r.kept);
}

static void check_variant(const char *variant)
{
    const char *name;
    bool supported = false;
    for (int i = 0; geul_cpu_variant(i, &name, &supported) && strcmp(name, variant) != 0; i++)
        supported = false;
    if (!supported) {
        test_skip("this machine has no %s", variant);
        return;
    }
    for (int op = GEUL_OP_LEAF + 1; op < GEUL_OP_COUNT; op++)
        check_op((enum geul_op)op, variant);
}

/* Attention of tokens [from, to) of a prompt into out, on a separate device. */
static void attend_piece(const char *variant, int n_threads, struct geul_tensor *const *leaves, int64_t from,
                         int64_t to, float *out)
{
    struct geul_context *ctx = geul_context_new(NULL);
    struct geul_device *device = cpu_device(ctx, variant, n_threads);
    const struct geul_tensor *q = leaves[0], *seq_pos = leaves[3];
    const int64_t shape[] = {to - from, q->shape[1], q->shape[2]}, two[] = {to - from, 2};
    struct geul_tensor *piece =
        geul_leaf(ctx, GEUL_TYPE_F32, 3, shape, "q", NULL, (uint8_t *)q->data + (size_t)from * q->stride[0]);
    struct geul_tensor *at = geul_leaf(ctx, GEUL_TYPE_I32, 2, two, "seq_pos", NULL,
                                       (uint8_t *)seq_pos->data + (size_t)from * seq_pos->stride[0]);
    struct geul_tensor *y = geul_attention(ctx, piece, leaves[1], leaves[2], at, 0.3f);
    if (device && cpu_compute(ctx, device, y))
        memcpy(out + from * shape[1] * shape[2], y->data, geul_tensor_bytes(y));
    geul_device_close(ctx, device);
    geul_context_free(ctx);
}

/* What a token gets depends neither on the tokens computed with it nor on the number of threads. The cache holds NaN
 * behind the last position: what a token does not see must not reach it. */
static void check_batches(const char *variant, enum geul_type type, int64_t heads, int64_t depth, int32_t first)
{
    enum { TOKENS = 150, ROOM = 700 };
    struct geul_context *ctx = geul_context_new(NULL);
    uint64_t seed = CPU_SEED;
    const int64_t cache[] = {1, heads, ROOM, depth}, tokens[] = {TOKENS, heads, depth}, two[] = {TOKENS, 2};
    struct geul_tensor *leaves[] = {cpu_leaf(ctx, &seed, GEUL_TYPE_F32, 3, tokens, 2),
                                    cpu_leaf(ctx, &seed, type, 4, cache, 1), cpu_leaf(ctx, &seed, type, 4, cache, 1),
                                    cpu_leaf(ctx, &seed, GEUL_TYPE_I32, 2, two, 0)};
    size_t n = (size_t)(TOKENS * heads * depth);
    float *want = calloc(n, sizeof *want), *got = calloc(n, sizeof *got);
    for (int c = 1; c <= 2; c++)
        for (int64_t h = 0; h < heads; h++)
            memset((uint8_t *)leaves[c]->data + (size_t)h * leaves[c]->stride[1] +
                       (size_t)(first + TOKENS) * leaves[c]->stride[2],
                   0xff, (size_t)(ROOM - first - TOKENS) * leaves[c]->stride[2]);
    for (int64_t t = 0; t < TOKENS; t++)
        set_seq_pos(leaves[3], t, 0, first + (int32_t)t);
    attend_piece(variant, 1, leaves, 0, TOKENS, want);
    CHECK_MSG(isfinite(want[n - 1]), "%s %s: the last token sees NaN", variant, geul_type_name(type));
    for (int way = 0; way < 4; way++) { /* whole, one by one, and two random partitions */
        for (int64_t from = 0, to; from < TOKENS; from = to) {
            to = from + (way == 0 ? TOKENS : way == 1 ? 1 : 1 + (int64_t)(test_random(&seed) % (way == 2 ? 7 : 90)));
            attend_piece(variant, 1 + (int)(from % 3), leaves, from, to < TOKENS ? to : TOKENS, got);
        }
        CHECK_MSG(memcmp(want, got, n * sizeof *got) == 0, "%s %s from %d on: partition %d has other bits", variant,
                  geul_type_name(type), (int)first, way);
    }
    free(want);
    free(got);
    geul_context_free(ctx);
}

TEST(cpu_attention_does_not_depend_on_the_batch)
{
    static const enum geul_type types[] = {GEUL_TYPE_F32, GEUL_TYPE_F16, GEUL_TYPE_BF16, GEUL_TYPE_Q8_0};
    const char *variant;
    bool supported;
    for (int i = 0; geul_cpu_variant(i, &variant, &supported); i++)
        for (int j = 0; supported && j < 4; j++) {
            if (test_sanitized() && (i + j) % 2)
                continue; /* ten times slower; every type and every instruction set has its turn */
            check_batches(variant, types[j], 1, types[j] == GEUL_TYPE_Q8_0 ? 96 : 44 + 3 * j, 0);
            check_batches(variant, types[j], 3, 32, 400);
        }
}

/* One test per instruction set of this build. */
#define VARIANT(name, family, meaning) IF_##family(TEST(cpu_ops_##name) { check_variant(#name); })
#define IF_ANY(test)                   test
#if defined(__x86_64__)
#define IF_X86(test) test
#define IF_ARM(test)
#else
#define IF_X86(test)
#define IF_ARM(test) test
#endif
#include "backends/cpu/variants.def"
#undef VARIANT

TEST(cpu_device_basics)
{
    struct geul_context *ctx = geul_context_new(NULL);
    struct geul_device *device = cpu_device(ctx, NULL, 3);
    REQUIRE(device);
    struct geul_device_ceilings can = {0};
    CHECK(device->backend->measure(ctx, device, &can) == GEUL_OK);
    CHECK(can.read_bytes_per_s > 0 && can.f32_macs_per_s > 0 && can.bf16_macs_per_s > 0 && can.int8_macs_per_s > 0);
    CHECK_INT(device->n_threads, 3);
    CHECK_STR(device->id, "cpu");
    struct geul_buffer buffer, wrapped;
    char memory[64] = "mapped", out[64];
    CHECK(device->backend->buffer_new(ctx, device, 100, &buffer) == GEUL_OK);
    CHECK((uintptr_t)buffer.base % 64 == 0 && buffer.size == 100 && buffer.host);
    CHECK(device->backend->buffer_wrap(ctx, device, memory, sizeof memory, &wrapped) == GEUL_OK);
    CHECK(wrapped.base == memory);
    bool done = false;
    CHECK(device->backend->copy(ctx, NULL, &buffer, buffer.base, &wrapped, memory, sizeof memory, &done) == GEUL_OK);
    CHECK(done && device->backend->download(ctx, &buffer, buffer.base, out, sizeof out) == GEUL_OK);
    CHECK_STR(out, "mapped");
    device->backend->buffer_free(ctx, &wrapped);
    device->backend->buffer_free(ctx, &buffer);
    geul_device_close(ctx, device);
    geul_context_free(ctx);
}

/* Opening and running with every allocation failing in turn gives an error each time and leaves nothing behind. */
TEST(cpu_survives_failing_allocations)
{
    struct geul_context *maker = geul_context_new(NULL);
    uint64_t seed = CPU_SEED;
    struct geul_tensor *x = cpu_leaf(maker, &seed, GEUL_TYPE_F32, 2, (int64_t[]){9, 64}, 1);
    struct geul_tensor *w = cpu_leaf(maker, &seed, GEUL_TYPE_Q8_0, 2, (int64_t[]){40, 64}, 1);
    struct geul_tensor *y = geul_linear(maker, x, w, NULL, false);
    REQUIRE(y);
    y->data = geul_arena(maker, 9 * 40, sizeof(float));
    y->src[1]->data = w->data;
    struct test_shortage s = {.most = 50};
    while (test_shortage_next(&s)) {
        struct geul_device *device = geul_device_open(s.ctx, GEUL_DEVICE_HOST, 2);
        s.ok = device && cpu_run_nodes(s.ctx, device, &y, 1);
        geul_device_close(s.ctx, device);
    }
    geul_context_free(maker);
}

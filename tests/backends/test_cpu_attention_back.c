/* test_cpu_attention_back.c: attention over the tokens' own keys and its gradients, against their meaning in double,
 * under every instruction set. Results must have the same bits for every number of threads, and for a document alone;
 * and those of the forward pass the bits of attention over a cache. */
#include "tests/backends/cpu_cases.h"

#define SCALE 0.2f /* scores of random keys then differ by a few units */

/* Operands of one case, and what is expected. All values row-major. */
struct problem {
    struct geul_context *ctx;
    int64_t tokens, heads, depth, n; /* n: values of q */
    struct geul_tensor *q, *k, *v, *dy, *seq_pos;
    double *y, *d; /* (T, H, D), (3, T, H, D) */
};

/* ------------------------------------------------------------------------------- the meaning -- */

/* The weights of one head of token t over the tokens that it attends to, from `first` on. */
static void weigh(const double *q, const double *k, const struct problem *p, int64_t t, int64_t h, int64_t first,
                  double *weights)
{
    double high = -INFINITY, sum = 0;
    for (int64_t j = first; j <= t; j++) {
        double *w = &weights[j - first];
        *w = 0;
        for (int64_t d = 0; d < p->depth; d++)
            *w += (double)SCALE * q[(t * p->heads + h) * p->depth + d] * k[(j * p->heads + h) * p->depth + d];
        high = fmax(high, *w);
    }
    for (int64_t j = first; j <= t; j++)
        sum += weights[j - first] = exp(weights[j - first] - high);
    for (int64_t j = first; j <= t; j++)
        weights[j - first] /= sum;
}

/* The first token that t attends to, t + 1 when there is none. */
static int64_t first_seen(const struct problem *p, int64_t t)
{
    int64_t position = ((const int32_t *)p->seq_pos->data)[2 * t + 1];
    return position < 0 || position > t ? t + 1 : t - position;
}

/* y of attention(q, k, v); and, with dy, the gradients d. x: q, k, v one after the other. */
static void attend(const struct problem *p, const double *x, double *y, const double *dy, double *d)
{
    const double *q = x, *k = x + p->n, *v = x + 2 * p->n;
    double *weights = malloc((size_t)(p->tokens + 1) * sizeof *weights);
    for (int64_t i = 0; dy && i < 3 * p->n; i++)
        d[i] = 0;
    for (int64_t i = 0; i < p->tokens * p->heads; i++) {
        int64_t t = i / p->heads, h = i % p->heads, first = first_seen(p, t);
        double *out = y + i * p->depth, delta = 0;
        for (int64_t c = 0; c < p->depth; c++) {
            out[c] = first <= t ? 0 : NAN;
            if (dy && first > t)
                d[i * p->depth + c] = NAN;
        }
        weigh(q, k, p, t, h, first, weights);
        for (int64_t j = first; j <= t; j++)
            for (int64_t c = 0; c < p->depth; c++)
                out[c] += weights[j - first] * v[(j * p->heads + h) * p->depth + c];
        for (int64_t c = 0; dy && c < p->depth; c++)
            delta += dy[i * p->depth + c] * out[c];
        for (int64_t j = first; dy && j <= t; j++) {
            int64_t at = (j * p->heads + h) * p->depth;
            double slope = -delta;
            for (int64_t c = 0; c < p->depth; c++)
                slope += dy[i * p->depth + c] * v[at + c];
            slope *= weights[j - first] * (double)SCALE;
            for (int64_t c = 0; c < p->depth; c++) {
                d[i * p->depth + c] += slope * k[at + c];
                d[p->n + at + c] += slope * q[i * p->depth + c];
                d[2 * p->n + at + c] += weights[j - first] * dy[i * p->depth + c];
            }
        }
    }
    free(weights);
}

/* The formulas of the gradients hold: central differences of the sum of dy * y. */
TEST(cpu_attention_back_reference_agrees_with_differences)
{
    enum { TOKENS = 7, HEADS = 2, DEPTH = 5, N = TOKENS * HEADS * DEPTH };
    int32_t places[2 * TOKENS] = {0, 0, 0, 1, 0, 2, 1, 0, 1, 1, 1, 2, 1, 1};
    struct geul_tensor seq_pos = {.data = places};
    struct problem p = {.tokens = TOKENS, .heads = HEADS, .depth = DEPTH, .n = N, .seq_pos = &seq_pos};
    double x[3 * N], y[N], dy[N], d[3 * N], want[3 * N];
    float got[3 * N];
    uint64_t seed = CPU_SEED;
    for (int i = 0; i < 3 * N; i++)
        x[i] = test_normal(&seed);
    for (int i = 0; i < N; i++)
        dy[i] = test_normal(&seed);
    attend(&p, x, y, dy, d);
    for (int i = 0; i < 3 * N; i++) {
        const double step = 1e-5, before = x[i];
        want[i] = 0;
        for (int side = -1; side <= 1; side += 2) {
            x[i] = before + side * step;
            attend(&p, x, y, NULL, NULL);
            for (int j = 0; j < N; j++)
                want[i] += side * y[j] * dy[j] / (2 * step);
        }
        x[i] = before;
        got[i] = (float)d[i];
    }
    CHECK(cpu_close("differences", got, want, 3 * N, 1e-7, 1e-6));
}

/* ---------------------------------------------------------------------------------- problems -- */

static struct geul_tensor *part(struct geul_context *ctx, struct geul_tensor *x, int i, int64_t n, int64_t heads)
{
    return cpu_view(geul_split_last(ctx, cpu_view(geul_narrow(ctx, x, 1, i * n, n)), heads));
}

/* q, k and v as views of one (T, 3 H D) tensor, tokens at positions (NULL: set later), and the expected values. */
static struct problem make_problem(int64_t tokens, int64_t heads, int64_t depth, const int32_t *positions)
{
    struct problem p = {.ctx = geul_context_new(NULL), .tokens = tokens, .heads = heads, .depth = depth};
    const int64_t row = heads * depth, wide[] = {tokens, 3 * row}, narrow[] = {tokens, heads, depth},
                  two[] = {tokens, 2};
    uint64_t seed = CPU_SEED;
    struct geul_tensor *qkv = cpu_leaf(p.ctx, &seed, GEUL_TYPE_F32, 2, wide, 1);
    p.n = tokens * row;
    p.q = part(p.ctx, qkv, 0, row, heads);
    p.k = part(p.ctx, qkv, 1, row, heads);
    p.v = part(p.ctx, qkv, 2, row, heads);
    p.dy = cpu_leaf(p.ctx, &seed, GEUL_TYPE_F32, 3, narrow, 1);
    p.seq_pos = cpu_leaf(p.ctx, &seed, GEUL_TYPE_I32, 2, two, 0);
    for (int64_t t = 0; t < tokens; t++) {
        ((int32_t *)p.seq_pos->data)[2 * t] = -7; /* not looked at */
        ((int32_t *)p.seq_pos->data)[2 * t + 1] = positions[t];
    }
    double *x = geul_arena(p.ctx, (size_t)(4 * p.n + 1), sizeof *x);
    p.y = geul_arena(p.ctx, (size_t)(p.n + 1), sizeof *p.y);
    p.d = geul_arena(p.ctx, (size_t)(3 * p.n + 1), sizeof *p.d);
    struct geul_tensor *const all[] = {p.q, p.k, p.v, p.dy};
    for (int i = 0; i < 4; i++)
        for (int64_t j = 0; j < p.n; j++)
            x[i * p.n + j] = cpu_value(all[i], j);
    attend(&p, x, p.y, x + 3 * p.n, p.d);
    return p;
}

/* Tokens [from, from + n) of x. */
static struct geul_tensor *piece(struct geul_context *ctx, const struct geul_tensor *x, int64_t from, int64_t n)
{
    int64_t shape[] = {n, x->shape[1], x->shape[2]};
    struct geul_tensor *t =
        geul_leaf(ctx, x->type, x->n_dims, shape, "piece", NULL, (uint8_t *)x->data + (size_t)from * x->stride[0]);
    memcpy(t->stride, x->stride, sizeof t->stride);
    return t;
}

/* Computes y (n, H, D) and d (3, n, H, D) of tokens [from, from + n). */
static void compute(const struct problem *p, const char *variant, int n_threads, int64_t from, int64_t n, float *y,
                    float *d)
{
    struct geul_context *ctx = geul_context_new(NULL);
    struct geul_device *device = cpu_device(ctx, variant, n_threads);
    size_t bytes = (size_t)(n * p->heads * p->depth) * sizeof(float);
    struct geul_tensor *q = piece(ctx, p->q, from, n), *k = piece(ctx, p->k, from, n), *v = piece(ctx, p->v, from, n);
    struct geul_tensor *seq_pos = piece(ctx, p->seq_pos, from, n), *dy = piece(ctx, p->dy, from, n);
    struct cpu_guard forward = cpu_guard(bytes, 4), back = cpu_guard(3 * bytes, 4);
    struct geul_tensor *result = geul_attention(ctx, q, k, v, seq_pos, SCALE);
    struct geul_tensor *gradient = geul_attention_back(ctx, dy, result, q, k, v, seq_pos, SCALE);
    if (device && CHECK_MSG(gradient != NULL, "%s", geul_error(ctx))) {
        result->data = forward.data;
        gradient->data = back.data;
        cpu_compute(ctx, device, gradient);
        memcpy(y, forward.data, bytes);
        memcpy(d, back.data, 3 * bytes);
    }
    cpu_guard_free(&forward, "attention");
    cpu_guard_free(&back, "attention_back");
    geul_device_close(ctx, device);
    geul_context_free(ctx);
}

/* Against the reference with one thread, the same bits with others. Returns y and d, to be freed. */
static void check_problem(const struct problem *p, const char *variant, float **y, float **d)
{
    static const int threads[] = {1, 2, 7};
    size_t n = (size_t)p->n;
    char what[120];
    float *other_y = calloc(n + 1, sizeof *other_y), *other_d = calloc(3 * n + 1, sizeof *other_d);
    *y = calloc(n + 1, sizeof **y);
    *d = calloc(3 * n + 1, sizeof **d);
    snprintf(what, sizeof what, "%s T=%lld D=%lld", variant, (long long)p->tokens, (long long)p->depth);
    compute(p, variant, 1, 0, p->tokens, *y, *d);
    double depth = (double)p->depth;
    cpu_close(what, *y, p->y, p->n, 2e-6 + 4e-8 * depth, 3e-6);
    cpu_close(what, *d, p->d, 3 * p->n, 6e-6 + 1e-7 * depth, 1e-5);
    for (int i = 1; i < 3; i++) {
        compute(p, variant, threads[i], 0, p->tokens, other_y, other_d);
        CHECK_MSG(memcmp(*y, other_y, n * sizeof **y) == 0 && memcmp(*d, other_d, 3 * n * sizeof **d) == 0,
                  "%s: other bits with %d threads", what, threads[i]);
    }
    free(other_y);
    free(other_d);
}

/* -------------------------------------------------------------------------------- the checks -- */

static const int lengths[] = {1, 2, 63, 64, 65, 200, 300, 1};
enum { N_DOCUMENTS = sizeof lengths / sizeof lengths[0], TOKENS = 696 };

/* Each document alone has the bits that it has among others. */
static void check_alone(const struct problem *p, const char *variant, const float *y, const float *d)
{
    int64_t row = p->heads * p->depth;
    float *alone_y = malloc((size_t)(300 * row) * sizeof *y), *alone_d = malloc((size_t)(900 * row) * sizeof *d);
    for (int64_t i = 0, from = 0; i < N_DOCUMENTS; from += lengths[i++]) {
        size_t bytes = (size_t)(lengths[i] * row) * sizeof *y;
        compute(p, variant, 2, from, lengths[i], alone_y, alone_d);
        bool same = memcmp(alone_y, y + from * row, bytes) == 0;
        for (int64_t g = 0; g < 3; g++)
            same &= memcmp(alone_d + g * lengths[i] * row, d + (g * TOKENS + from) * row, bytes) == 0;
        CHECK_MSG(same, "%s D=%lld: document %d alone has other bits", variant, (long long)p->depth, (int)i);
    }
    free(alone_y);
    free(alone_d);
}

/* The same documents as sequences of a cache. */
static void check_cached(const struct problem *p, const char *variant, const float *y)
{
    enum { ROOM = 310 };
    struct geul_context *ctx = geul_context_new(NULL);
    struct geul_device *device = cpu_device(ctx, variant, 2);
    const int64_t shape[] = {N_DOCUMENTS, p->heads, ROOM, p->depth};
    uint64_t seed = CPU_SEED;
    struct geul_tensor *k = cpu_leaf(ctx, &seed, GEUL_TYPE_F32, 4, shape, 1);
    struct geul_tensor *v = cpu_leaf(ctx, &seed, GEUL_TYPE_F32, 4, shape, 1);
    struct geul_tensor *seq_pos = cpu_leaf(ctx, &seed, GEUL_TYPE_I32, 2, (int64_t[]){TOKENS, 2}, 0);
    for (int32_t i = 0, t = 0; i < N_DOCUMENTS; i++)
        for (int32_t at = 0; at < lengths[i]; at++, t++) {
            ((int32_t *)seq_pos->data)[2 * t] = i;
            ((int32_t *)seq_pos->data)[2 * t + 1] = at;
        }
    struct geul_tensor *q = piece(ctx, p->q, 0, TOKENS);
    struct geul_tensor *cache_k = geul_store(ctx, k, piece(ctx, p->k, 0, TOKENS), seq_pos);
    struct geul_tensor *cache_v = geul_store(ctx, v, piece(ctx, p->v, 0, TOKENS), seq_pos);
    struct geul_tensor *result = geul_attention(ctx, q, cache_k, cache_v, seq_pos, SCALE);
    if (device && cpu_compute(ctx, device, result))
        CHECK_MSG(memcmp(result->data, y, (size_t)p->n * sizeof *y) == 0, "%s D=%lld: a cache gives other bits",
                  variant, (long long)p->depth);
    geul_device_close(ctx, device);
    geul_context_free(ctx);
}

static void check_documents(int64_t heads, int64_t depth)
{
    int32_t positions[TOKENS];
    for (int i = 0, t = 0; i < N_DOCUMENTS; i++)
        for (int32_t at = 0; at < lengths[i]; at++)
            positions[t++] = at;
    struct problem p = make_problem(TOKENS, heads, depth, positions);
    const char *variant;
    bool supported;
    for (int i = 0; geul_cpu_variant(i, &variant, &supported); i++) {
        if (!supported)
            continue;
        float *y, *d;
        check_problem(&p, variant, &y, &d);
        check_alone(&p, variant, y, d);
        check_cached(&p, variant, y);
        free(y);
        free(d);
    }
    geul_context_free(p.ctx);
}

TEST(cpu_attention_of_documents_of_16)
{
    check_documents(3, 16);
}

TEST(cpu_attention_of_documents_of_40)
{
    check_documents(1, 40);
}

TEST(cpu_attention_of_documents_of_64)
{
    check_documents(2, 64);
}

TEST(cpu_attention_of_documents_of_128)
{
    check_documents(1, 128);
}

static void check_positions(int64_t tokens, int64_t heads, int64_t depth, const int32_t *positions)
{
    struct problem p = make_problem(tokens, heads, depth, positions);
    const char *variant;
    bool supported;
    for (int i = 0; geul_cpu_variant(i, &variant, &supported); i++)
        if (supported) {
            float *y, *d;
            check_problem(&p, variant, &y, &d);
            free(y);
            free(d);
        }
    geul_context_free(p.ctx);
}

/* Any positions have a meaning: tokens that see a few before them, and back over documents; those that claim to see
 * more than there is see nothing. */
TEST(cpu_attention_of_odd_places)
{
    enum { N = 333 };
    static const int64_t shapes[][2] = {{2, 5}, {1, 80}, {1, 256}};
    int32_t positions[N];
    uint64_t seed = CPU_SEED;
    for (int s = 0; s < 3; s++) {
        for (int32_t t = 0; t < N; t++)
            positions[t] = (int32_t)(test_random(&seed) % (uint64_t)(t % 100 + 1));
        for (int32_t t = 30; t + 3 < N; t += 100) {
            positions[t] = -1;
            positions[t + 1] = t + 2;
            positions[t + 2] = INT32_MIN;
            positions[t + 3] = INT32_MAX;
        }
        positions[N - 20] = s ? N - 20 : 40;
        check_positions(N, shapes[s][0], shapes[s][1], positions);
    }
    check_positions(0, 2, 16, positions);
}

/* One long document, where threads share the spans and the blocks of one head. */
TEST(cpu_attention_of_a_long_document)
{
    enum { N = 1100 };
    static int32_t positions[N];
    for (int32_t t = 0; t < N; t++)
        positions[t] = t;
    check_positions(test_sanitized() ? 600 : N, 1, 32, positions); /* ten times slower */
}

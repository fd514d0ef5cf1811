/* test_cuda_rope.c: rotary embedding and stores, alone and together, against double precision. */
#include "backends/cuda/cuda_rope.h"
#include "backends/cuda/device.h"
#include "backends/cuda/prepare.h"
#include "backends/cuda/rope_store.h"
#include "core/runtime.h"
#include "tests/cuda_host/cuda_caches.h"
#include "tests/cuda_host/cuda_rig.h"
#include "tests/cuda_host/host_gpu.h"

/* Q and K rotated, K and V stored, out of fused rows; then what is stored is what the reference encoder makes of it. */
static void one_rope_store(uint64_t *seed, enum geul_type type, int64_t depth, int n_rot, bool back)
{
    enum { T = 7, H = 3, ROOM = 3000, S = 2 };
    const int64_t width = H * depth, stride = 3 * width + 5;
    struct shape s = {type, T, H, ROOM, depth, S, 0};
    struct cache k = cache_new(seed, &s), v = cache_new(seed, &s);
    float *qkv = randoms(seed, T * stride), *out = randoms(seed, T * width);
    const int32_t places[2 * T] = {0, 0, 1, 2999, 0, 2, 2, 0, 0, 3000, -1, 1, 0, 2}; /* three outside, one twice */
    const float *sides[] = {qkv, qkv + width, qkv + 2 * width};
    struct cuda_rope_store a = {.places = {places, 2},
                                .n_tokens = T,
                                .n_heads = H,
                                .depth = depth,
                                .n_rot = n_rot,
                                .back = back,
                                .base = 10000,
                                .n_parts = 3};
    for (int i = 0; i < 3; i++)
        a.part[i] = (struct cuda_rope_part){.x = {qkv + i * width, stride, depth}, .rotates = i < 2};
    a.part[0].out = (struct cuda_heads){out, width, depth};
    a.part[1].cache = k.cache;
    a.part[2].cache = v.cache;
    geul_cuda_rope_frequencies(&a);
    struct cuda_stream stream = {0};
    char what[64];
    snprintf(what, sizeof what, "%s, depth %d, %d rotated", geul_type_name(type), (int)depth, n_rot);
    double *want = malloc((size_t)(3 * T * width) * sizeof *want);
    for (int part = 0; part < 3; part++)
        for (int64_t i = 0; i < T * width; i++) {
            int64_t t = i / width, d = i % depth;
            const float *x = sides[part] + t * stride + i % width;
            int half = n_rot / 2, pair = half ? (int)(d % half) : 0;
            double angle = places[2 * t + 1] * pow(10000, -2.0 * pair / (n_rot ? n_rot : 1)) * (back ? -1 : 1);
            double y = (double)*x;
            if (part < 2 && d < half)
                y = (double)x[0] * cos(angle) - (double)x[half] * sin(angle);
            else if (part < 2 && d < n_rot)
                y = (double)x[0] * cos(angle) + (double)x[-half] * sin(angle);
            want[part * T * width + i] = y;
        }
    for (EACH_SCHEDULE(schedule)) {
        CHECK_LAUNCH(geul_cuda_launch_rope_store(&stream, &a));
        cpu_close(what, out, want, T * width, 2e-6, 1e-6);
        for (int side = 0; side < 2; side++) {
            const struct cache *c = side ? &v : &k;
            int64_t n = S * H * ROOM * depth;
            float *got = malloc((size_t)n * sizeof *got);
            geul_decode(type, c->memory.data, got, n);
            for (int t = 0; t < T; t++) {
                bool inside = places[2 * t] >= 0 && places[2 * t] < S && places[2 * t + 1] < ROOM && t != 2;
                for (int64_t h = 0; h < H && inside; h++) {
                    int64_t at = ((places[2 * t] * H + h) * ROOM + places[2 * t + 1]) * depth;
                    float row[512], coded[512];
                    uint8_t bytes[2048];
                    for (int64_t d = 0; d < depth; d++)
                        row[d] = (float)want[(side + 1) * T * width + t * width + h * depth + d];
                    geul_encode(type, row, bytes, depth);
                    geul_decode(type, bytes, coded, depth);
                    for (int64_t d = 0; d < depth; d++) { /* angles may be off by 2^-23: a step of the type further */
                        double step = type == GEUL_TYPE_F32    ? 2e-6
                                      : type == GEUL_TYPE_F16  ? 2e-3
                                      : type == GEUL_TYPE_BF16 ? 2e-2
                                                               : 4e-2;
                        double slack = side ? 0 : step; /* V is stored as it is */
                        CHECK_MSG(fabs((double)(got[at + d] - coded[d])) <= slack,
                                  "%s: token %d, %d of %s is %g, expected %g", what, t, (int)d, side ? "v" : "k",
                                  (double)got[at + d], (double)coded[d]);
                    }
                    memcpy(c->values + at, got + at, (size_t)depth * sizeof *got);
                }
            }
            CHECK_MSG(memcmp(got, c->values, (size_t)n * sizeof *got) == 0, "%s: stored elsewhere too", what);
            free(got);
        }
    }
    free(qkv), free(out), free(want);
    cache_free(&k, what), cache_free(&v, what);
}

TEST(cuda_rope_store_of_fused_rows)
{
    uint64_t seed = CPU_SEED;
    one_rope_store(&seed, GEUL_TYPE_F16, 80, 20, false);
    one_rope_store(&seed, GEUL_TYPE_F32, 33, 30, false);
    one_rope_store(&seed, GEUL_TYPE_BF16, 16, 16, true);
    one_rope_store(&seed, GEUL_TYPE_Q8_0, 64, 32, false);
    one_rope_store(&seed, GEUL_TYPE_Q8_0, 96, 0, false);
    one_rope_store(&seed, GEUL_TYPE_F16, 160, 160, false); /* more pairs than the table has */
}

TEST(cuda_rope_in_place)
{
    enum { T = 5, H = 2, D = 24, W = H * D };
    uint64_t seed = CPU_SEED;
    float *x = randoms(&seed, T * W), apart[T * W], together[T * W];
    int32_t places[2 * T];
    for (int t = 0; t < T; t++) {
        places[2 * t] = 0;
        places[2 * t + 1] = 31 * t;
    }
    struct cuda_rope_store a = {
        .places = {places, 2}, .n_tokens = T, .n_heads = H, .depth = D, .n_rot = 20, .base = 10000, .n_parts = 1};
    a.part[0] = (struct cuda_rope_part){.x = {x, W, D}, .out = {apart, W, D}, .rotates = true};
    geul_cuda_rope_frequencies(&a);
    for (EACH_SCHEDULE(schedule)) {
        struct cuda_stream stream = {0};
        a.part[0].x.data = x;
        a.part[0].out.data = apart;
        CHECK_LAUNCH(geul_cuda_launch_rope_store(&stream, &a));
        memcpy(together, x, sizeof together);
        a.part[0].x.data = a.part[0].out.data = together;
        CHECK_LAUNCH(geul_cuda_launch_rope_store(&stream, &a));
        CHECK(memcmp(apart, together, sizeof apart) == 0);
    }
    free(x);
}

/* Blocks as the reference encoder makes them, bit for bit: zeros, halves, tiny and huge values, and what is not finite.
 */
TEST(cuda_store_encodes_as_the_reference)
{
    enum { T = 9, D = 64 };
    static const enum geul_type types[] = {GEUL_TYPE_F32, GEUL_TYPE_F16, GEUL_TYPE_BF16, GEUL_TYPE_Q8_0};
    uint64_t seed = CPU_SEED;
    float *x = randoms(&seed, T * D);
    int32_t places[2 * T];
    for (int t = 0; t < T; t++) {
        places[2 * t] = 0;
        places[2 * t + 1] = t;
        for (int d = 0; d < D; d++) {
            float *v = &x[t * D + d];
            *v = t == 1 ? 0 : t == 2 ? (float)(d % 32) - 15.5f : t == 3 ? *v * 1e-39f : t == 4 ? *v * 1e36f : *v;
        }
    }
    x[2 * D] = x[2 * D + 32] = 127; /* whole and half steps */
    x[5 * D + 3] = NAN;
    x[6 * D + 40] = INFINITY;
    x[7 * D] = -0.0f;
    for (int i = 0; i < 4; i++) {
        struct shape s = {types[i], T, 1, T, D, 1, 0};
        struct cache c = cache_new(&seed, &s);
        struct cpu_guard want = cpu_guard(c.memory.bytes, 0);
        geul_encode(types[i], x, want.data, T * D);
        struct cuda_rope_store a = {.places = {places, 2}, .n_tokens = T, .n_heads = 1, .depth = D, .n_parts = 1};
        a.part[0] = (struct cuda_rope_part){.x = {x, D, D}, .cache = c.cache};
        struct cuda_stream stream = {0};
        CHECK_LAUNCH(geul_cuda_launch_rope_store(&stream, &a));
        for (size_t b = 0; b < want.bytes; b++) {
            bool nan = i < 3 && !isfinite(x[b / (want.bytes / (T * D))]); /* of which the sign and payload may differ */
            if (!CHECK_MSG(c.memory.data[b] == want.data[b] || nan, "%s: byte %d is %02x, expected %02x",
                           geul_type_name(types[i]), (int)b, c.memory.data[b], want.data[b]))
                break;
        }
        cpu_guard_free(&want, "encoded");
        cache_free(&c, "stored");
    }
    free(x);
}

/* Late positions: as exact as early ones. */
TEST(cuda_rope_at_late_positions)
{
    enum { T = 6, D = 32, HALF = D / 2 };
    const int32_t places[2 * T] = {0, 0, 0, 1, 0, 4095, 0, 131071, 0, 1 << 24, 0, -3};
    float x[T * D], y[T * D];
    for (int i = 0; i < T * D; i++)
        x[i] = i % D < HALF ? 1 : 0; /* the result is cosines, then sines */
    struct cuda_rope_store a = {
        .places = {places, 2}, .n_tokens = T, .n_heads = 1, .depth = D, .n_rot = D, .base = 10000, .n_parts = 1};
    a.part[0] = (struct cuda_rope_part){.x = {x, D, D}, .out = {y, D, D}, .rotates = true};
    geul_cuda_rope_frequencies(&a);
    struct cuda_stream stream = {0};
    CHECK_LAUNCH(geul_cuda_launch_rope_store(&stream, &a));
    for (int i = 0; i < T * HALF; i++) {
        int t = i / HALF, pair = i % HALF;
        double angle = places[2 * t + 1] * pow(10000, -2.0 * pair / D);
        /* half a unit of an eighth of a turn, and a unit of the function */
        double slack = 0x1p-25 + 0x1p-23;
        CHECK_MSG(fabs((double)y[t * D + pair] - cos(angle)) <= slack &&
                      fabs((double)y[t * D + HALF + pair] - sin(angle)) <= slack,
                  "position %d, pair %d: %.9g %.9g, expected %.9g %.9g", places[2 * t + 1], pair,
                  (double)y[t * D + pair], (double)y[t * D + HALF + pair], cos(angle), sin(angle));
    }
}

/* -------------------------------------------------------------------------------- the pattern -- */

enum { TOKENS = 3, HEADS = 2, DEPTH = 32, WIDTH = HEADS * DEPTH, POSITIONS = 20 };

/* A layer's attention from fused rows on. */
struct layer {
    struct geul_context *ctx;
    struct geul_runtime *rt;
    struct geul_tensor *qkv, *seq_pos, *cache[2], *k, *y;
};

static struct geul_tensor *heads_of(struct layer *l, int part)
{
    return geul_split_last(l->ctx, geul_narrow(l->ctx, l->qkv, 1, part * WIDTH, WIDTH), HEADS);
}

static void build_layer(struct layer *l, struct geul_context *ctx)
{
    const int64_t rows[] = {TOKENS, 3 * WIDTH}, places[] = {TOKENS, 2}, cache[] = {1, HEADS, POSITIONS, DEPTH};
    l->ctx = ctx;
    l->qkv = geul_input(ctx, GEUL_TYPE_F32, 2, rows, "qkv");
    l->seq_pos = geul_input(ctx, GEUL_TYPE_I32, 2, places, "seq_pos");
    l->cache[0] = geul_input(ctx, GEUL_TYPE_F16, 4, cache, "k");
    l->cache[1] = geul_input(ctx, GEUL_TYPE_F16, 4, cache, "v");
    struct geul_tensor *q = geul_rope(ctx, heads_of(l, 0), l->seq_pos, 16, 10000);
    l->k = geul_rope(ctx, heads_of(l, 1), l->seq_pos, 16, 10000);
    struct geul_tensor *k = geul_store(ctx, l->cache[0], l->k, l->seq_pos);
    struct geul_tensor *v = geul_store(ctx, l->cache[1], heads_of(l, 2), l->seq_pos);
    l->y = geul_attention(ctx, q, k, v, l->seq_pos, 0.2f);
}

/* Runs it; y (TOKENS, WIDTH). reads_k: K's rotated form is an output, too. */
static bool run_layer(struct layer *l, bool reads_k, float *y)
{
    uint64_t seed = CPU_SEED;
    float qkv[TOKENS * 3 * WIDTH];
    static uint16_t cache[HEADS * POSITIONS * DEPTH];
    const int32_t places[TOKENS * 2] = {0, 4, 0, 5, 0, 6};
    struct geul_tensor *outputs[] = {l->y, l->k};
    struct geul_graph *g = geul_graph_new(l->ctx, outputs, reads_k ? 2 : 1);
    bool ok = g && geul_runtime_plan(l->rt, g) == GEUL_OK;
    for (int i = 0; i < TOKENS * 3 * WIDTH; i++)
        qkv[i] = test_normal(&seed);
    ok = ok && geul_tensor_write(l->qkv, qkv, sizeof qkv) == GEUL_OK &&
         geul_tensor_write(l->seq_pos, places, sizeof places) == GEUL_OK;
    for (int side = 0; side < 2; side++) {
        for (int i = 0; i < HEADS * POSITIONS * DEPTH; i++)
            cache[i] = (uint16_t)(0x3800 | (test_random(&seed) & 0x83ff)); /* 0.5 to 1, of either sign */
        ok = ok && geul_tensor_write(l->cache[side], cache, sizeof cache) == GEUL_OK;
    }
    host_gpu_count_anew();
    ok =
        ok && geul_runtime_run(l->rt, g) == GEUL_OK && geul_tensor_read(l->y, y, TOKENS * WIDTH * sizeof *y) == GEUL_OK;
    return CHECK_MSG(ok, "%s", geul_error(l->ctx));
}

static void check_pattern(const struct cuda_kernels *kernels, bool reads_k, long launches)
{
    struct geul_context *ctx = geul_context_new(NULL);
    host_gpu_machine("sm_90");
    struct geul_device *devices[] = {geul_backend_cuda.open(ctx, 0, 0), cpu_device(ctx, NULL, 1)};
    float y[2][TOKENS * WIDTH];
    double want[TOKENS * WIDTH];
    if (!CHECK_MSG(devices[0] != NULL, "%s", geul_error(ctx)))
        return;
    geul_cuda_device(devices[0])->kernels = kernels;
    for (int i = 0; i < 2; i++) {
        struct layer l;
        build_layer(&l, ctx);
        l.rt = geul_runtime_new_on(ctx, &devices[i], 1, NULL);
        if (!CHECK_MSG(l.rt != NULL, "%s", geul_error(ctx)) || !run_layer(&l, reads_k, y[i]))
            return;
        if (i == 0)
            CHECK_INT(host_gpu_calls(HOST_GPU_launch), launches);
        geul_runtime_free(l.rt);
    }
    for (int i = 0; i < TOKENS * WIDTH; i++)
        want[i] = (double)y[1][i];
    /* a key near the middle of two float16 may be rounded the other way: 2^-10 of a score's products */
    cpu_close("a layer", y[0], want, TOKENS * WIDTH, 2e-4, 0);
    geul_backend_cuda.close(ctx, devices[0]);
    geul_device_close(ctx, devices[1]);
    geul_context_free(ctx);
    CHECK_STR(host_gpu_misuse(), "");
}

TEST(cuda_rope_and_stores_are_one_launch)
{
    static cuda_pattern *const together[] = {geul_cuda_fuse_rope_stores, NULL};
    static cuda_pattern *const apart[] = {NULL};
    struct cuda_kernels kernels = *geul_cuda_kernels;
    kernels.patterns = together;
    check_pattern(&kernels, false, 2);
    check_pattern(&kernels, true, 5); /* somebody else reads K */
    kernels.patterns = apart;
    check_pattern(&kernels, false, 5);
}

/* test_cuda_rope.c: rotary embedding and stores, alone and together, against double precision. */
#include "backends/cuda/rope_store.h"
#include "tests/cuda_host/cuda_caches.h"
#include "tests/cuda_host/cuda_rig.h"

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

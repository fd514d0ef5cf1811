/* test_cuda_attention.c: attention in chunks and in tiles, rotary embedding and stores, against double precision. */
#include "backends/cuda/attention.h"
#include "backends/cuda/rope_store.h"
#include "core/tensor.h"
#include "tests/backends/cpu_cases.h"
#include "tests/cuda_host/cuda_rig.h"

static float *randoms(uint64_t *seed, int64_t n)
{
    float *x = aligned_alloc(64, ((size_t)n * sizeof *x + 127) / 64 * 64);
    for (int64_t i = 0; i < n; i++)
        x[i] = test_normal(seed);
    return x;
}

struct shape {
    enum geul_type type;
    int64_t tokens, heads, room, depth, sequences;
    int32_t first; /* position of the first token */
};

/* A cache of random values, and what it holds. */
struct cache {
    struct cuda_cache cache;
    struct cpu_guard memory;
    float *values; /* (S, H, P, D) */
};

static struct cache cache_new(uint64_t *seed, const struct shape *s)
{
    int64_t n = s->sequences * s->heads * s->room * s->depth;
    size_t bytes, row;
    struct cache c = {.values = randoms(seed, n)};
    CHECK(geul_shape_bytes(s->type, 2, (int64_t[]){n / s->depth, s->depth}, &bytes) &&
          geul_shape_bytes(s->type, 1, &s->depth, &row));
    c.memory = cpu_guard(bytes, 0);
    geul_encode(s->type, c.values, c.memory.data, n);
    geul_decode(s->type, c.memory.data, c.values, n);
    int64_t position = (int64_t)row;
    c.cache = (struct cuda_cache){c.memory.data, (enum cuda_type)s->type,       s->sequences,
                                  s->room,       position * s->room * s->heads, position * s->room,
                                  position};
    return c;
}

static void cache_free(struct cache *c, const char *what)
{
    cpu_guard_free(&c->memory, what);
    free(c->values);
}

/* By the book. */
static void attend(const struct shape *s, const float *q, int64_t q_stride, const float *k, const float *v,
                   const int32_t *places, double scale, double *want)
{
    double *p = malloc((size_t)s->room * sizeof *p);
    for (int64_t t = 0; t < s->tokens; t++)
        for (int64_t h = 0; h < s->heads; h++) {
            int64_t sequence = places[2 * t], last = places[2 * t + 1];
            bool inside = sequence >= 0 && sequence < s->sequences && last >= 0 && last < s->room;
            int64_t base = (sequence * s->heads + h) * s->room * s->depth;
            double *out = want + (t * s->heads + h) * s->depth, highest = -INFINITY, total = 0;
            for (int64_t d = 0; d < s->depth; d++)
                out[d] = inside ? 0 : NAN;
            for (int64_t c = 0; inside && c <= last; c++) {
                p[c] = 0;
                for (int64_t d = 0; d < s->depth; d++)
                    p[c] += scale * (double)q[t * q_stride + h * s->depth + d] * (double)k[base + c * s->depth + d];
                highest = fmax(highest, p[c]);
            }
            for (int64_t c = 0; inside && c <= last; c++)
                total += p[c] = exp(p[c] - highest);
            for (int64_t c = 0; inside && c <= last; c++)
                for (int64_t d = 0; d < s->depth; d++)
                    out[d] += p[c] / total * (double)v[base + c * s->depth + d];
        }
    free(p);
}

enum form { CHUNKS, TILES };

static void one_attention(uint64_t *seed, struct shape s, enum form form)
{
    int64_t width = s.heads * s.depth, stride = width + 4, n = s.tokens * width;
    struct cache k = cache_new(seed, &s), v = cache_new(seed, &s);
    float *q = randoms(seed, s.tokens * stride);
    struct cpu_guard y = cpu_guard((size_t)n * sizeof(float), 0), partial = {0},
                     counters = cpu_guard((size_t)(s.tokens * s.heads) * 4, 0);
    int32_t *places = malloc((size_t)s.tokens * 2 * sizeof *places);
    for (int64_t t = 0; t < s.tokens; t++) { /* sequences change every seven tokens */
        places[2 * t] = (int32_t)(t / 7 % s.sequences);
        places[2 * t + 1] = s.first + (int32_t)t;
    }
    if (s.tokens > 4) { /* two outside */
        places[2 * 1 + 1] = (int32_t)s.room;
        places[2 * 4] = -1;
    }
    struct cuda_attention a = {.q = {q, stride, s.depth},
                               .k = k.cache,
                               .v = v.cache,
                               .places = {places, 2},
                               .n_tokens = s.tokens,
                               .n_heads = s.heads,
                               .depth = s.depth,
                               .longest = s.room,
                               .scale = 0.25f,
                               .y = (float *)(void *)y.data,
                               .counters = (uint32_t *)(void *)counters.data};
    partial = cpu_guard(geul_cuda_attention_partial_bytes(&a), 0);
    a.partial = (float *)(void *)partial.data;
    memset(counters.data, 0, counters.bytes);
    double *want = malloc((size_t)n * sizeof *want);
    attend(&s, q, stride, k.values, v.values, places, 0.25, want);
    char what[128];
    snprintf(what, sizeof what, "%s in %s, %d tokens, depth %d", geul_type_name(s.type), form ? "tiles" : "chunks",
             (int)s.tokens, (int)s.depth);
    /* Float32 sums of up to `room` positions. Tiles round queries and probabilities to 2^-12 of themselves on average:
     * scores of size sqrt(depth) / 4 are off by that, and so are the probabilities. */
    double size = sqrt((double)s.depth) / 4, rounding = s.type == GEUL_TYPE_BF16 ? 0x1p-16 : 0x1p-10;
    double absolute = form == TILES ? rounding * (1 + size) : 2e-6 * (1 + size);
    cuda_host_shared_most(227 << 10);
    for (EACH_SCHEDULE(schedule)) {
        struct cuda_stream stream = {0};
        memset(y.data, 0x55, y.bytes);
        memset(partial.data, 0xff, partial.bytes);
        CHECK_LAUNCH(form == TILES ? geul_cuda_launch_attention_tiles(&stream, &a)
                                   : geul_cuda_launch_attention_chunks(&stream, &a));
        cpu_close(what, a.y, want, n, absolute, 1e-5);
    }
    for (int64_t i = 0; i < s.tokens * s.heads; i++)
        CHECK_INT(a.counters[i], 0);
    free(q), free(places), free(want);
    cache_free(&k, what), cache_free(&v, what);
    cpu_guard_free(&y, what), cpu_guard_free(&partial, what), cpu_guard_free(&counters, what);
}

TEST(cuda_attention_in_chunks)
{
    static const struct shape shapes[] = {
        {GEUL_TYPE_F32, 1, 1, 1, 1, 1, 0},        {GEUL_TYPE_F16, 1, 2, 300, 64, 1, 266},
        {GEUL_TYPE_BF16, 5, 3, 40, 24, 2, 3},     {GEUL_TYPE_F32, 9, 2, 130, 33, 1, 120},
        {GEUL_TYPE_F16, 6, 1, 190, 80, 1, 125},   {GEUL_TYPE_Q8_0, 2, 2, 600, 96, 2, 500},
        {GEUL_TYPE_BF16, 1, 1, 128, 128, 1, 127}, {GEUL_TYPE_F16, 1, 1, 200, 256, 1, 150},
        {GEUL_TYPE_F32, 1, 1, 140, 520, 1, 130},  {GEUL_TYPE_F16, 3, 1, 60, 7, 1, 30},
        {GEUL_TYPE_Q8_0, 1, 1, 50, 288, 1, 40}};
    uint64_t seed = CPU_SEED;
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        one_attention(&seed, shapes[i], CHUNKS);
}

TEST(cuda_attention_in_tiles)
{
    static const struct shape shapes[] = {
        {GEUL_TYPE_F16, 1, 1, 40, 64, 1, 0},      {GEUL_TYPE_F16, 70, 2, 150, 64, 1, 60},
        {GEUL_TYPE_BF16, 20, 1, 140, 80, 2, 100}, {GEUL_TYPE_Q8_0, 65, 1, 70, 96, 3, 0},
        {GEUL_TYPE_F16, 33, 1, 100, 128, 2, 40},  {GEUL_TYPE_BF16, 17, 1, 80, 128, 1, 50},
        {GEUL_TYPE_F16, 18, 1, 70, 256, 2, 45},   {GEUL_TYPE_Q8_0, 9, 1, 40, 256, 1, 30},
        {GEUL_TYPE_F16, 16, 1, 80, 80, 1, 60}};
    uint64_t seed = CPU_SEED;
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        CHECK(geul_cuda_attention_has_tiles((enum cuda_type)shapes[i].type, shapes[i].depth));
        one_attention(&seed, shapes[i], TILES);
    }
}

/* Without a cache: sequences of 9 and 5 tokens one after the other. */
TEST(cuda_attention_of_the_tokens_themselves)
{
    enum { T = 14, H = 2, D = 16, W = H * D };
    uint64_t seed = CPU_SEED;
    float *qkv = randoms(&seed, T * 3 * W), y[T * W];
    static float partial[T * H * (D + 2)];
    uint32_t counters[T * H] = {0};
    int32_t places[2 * T];
    double want[T * W];
    for (int t = 0; t < T; t++) {
        places[2 * t] = t < 9 ? 3 : 0;
        places[2 * t + 1] = t < 9 ? t : t - 9;
    }
    for (int t = 0; t < T; t++)
        for (int h = 0; h < H; h++) {
            double p[T], total = 0;
            int from = t - places[2 * t + 1];
            for (int c = from; c <= t; c++) {
                p[c] = 0;
                for (int d = 0; d < D; d++)
                    p[c] += 0.25 * (double)qkv[t * 3 * W + h * D + d] * (double)qkv[c * 3 * W + W + h * D + d];
                total += p[c] = exp(p[c]);
            }
            for (int d = 0; d < D; d++) {
                want[t * W + h * D + d] = 0;
                for (int c = from; c <= t; c++)
                    want[t * W + h * D + d] += p[c] / total * (double)qkv[c * 3 * W + 2 * W + h * D + d];
            }
        }
    struct cuda_cache side = {.data = qkv + W, .type = CUDA_F32, .head_stride = D * 4, .position_stride = 3 * W * 4};
    struct cuda_attention a = {.q = {qkv, 3 * W, D},
                               .k = side,
                               .v = side,
                               .places = {places, 2},
                               .n_tokens = T,
                               .n_heads = H,
                               .depth = D,
                               .longest = T,
                               .scale = 0.25f,
                               .y = y,
                               .partial = partial,
                               .counters = counters};
    a.v.data = qkv + 2 * W;
    for (EACH_SCHEDULE(schedule)) {
        struct cuda_stream stream = {0};
        CHECK_LAUNCH(geul_cuda_launch_attention_chunks(&stream, &a));
        cpu_close("attention without a cache", y, want, T * W, 2e-6, 1e-5);
    }
    free(qkv);
}

/* A token's bits depend on its own sequence alone: not on its neighbours, nor on the size of the cache. */
TEST(cuda_attention_in_chunks_sums_in_one_order)
{
    enum { T = 6, H = 2, D = 64, W = H * D, FIRST = 270 };
    uint64_t seed = CPU_SEED;
    struct shape s = {GEUL_TYPE_F16, T, H, 400, D, 1, FIRST};
    struct cache k = cache_new(&seed, &s), v = cache_new(&seed, &s);
    float *q = randoms(&seed, T * W), *partial = malloc((size_t)T * H * 4 * (D + 2) * 4);
    static float whole[T * W], alone[T * W];
    uint32_t counters[T * H] = {0};
    int32_t places[2 * T];
    for (int t = 0; t < T; t++) {
        places[2 * t] = 0;
        places[2 * t + 1] = FIRST + t;
    }
    struct cuda_attention a = {.q = {q, W, D},
                               .k = k.cache,
                               .v = v.cache,
                               .places = {places, 2},
                               .n_tokens = T,
                               .n_heads = H,
                               .depth = D,
                               .longest = 400,
                               .scale = 0.2f,
                               .y = whole,
                               .partial = partial,
                               .counters = counters};
    struct cuda_stream stream = {0};
    CHECK_LAUNCH(geul_cuda_launch_attention_chunks(&stream, &a));
    for (int t = 0; t < T; t++) {
        a.q.data = q + t * W;
        a.places.data = places + 2 * t;
        a.n_tokens = 1;
        a.y = alone + t * W;
        a.longest = a.k.n_positions = a.v.n_positions = t % 2 ? 400 : FIRST + t + 1;
        CHECK_LAUNCH(geul_cuda_launch_attention_chunks(&stream, &a));
    }
    CHECK(memcmp(whole, alone, sizeof whole) == 0);
    cache_free(&k, "k"), cache_free(&v, "v");
    free(q), free(partial);
}

TEST(cuda_attention_leaves_rounded_rows)
{
    enum { T = 2, H = 3, D = 96, W = H * D };
    uint64_t seed = CPU_SEED;
    struct shape s = {GEUL_TYPE_F16, T, H, 200, D, 1, 150};
    struct cache k = cache_new(&seed, &s), v = cache_new(&seed, &s);
    float *q = randoms(&seed, T * W), y[T * W], partial[T * H * 2 * (D + 2)], scale[T * W / 32];
    int8_t rounded[T * W];
    int32_t places[] = {0, 150, 0, 20}, sum[T * W / 32];
    uint32_t counters[T * H] = {0};
    struct cuda_attention a = {.q = {q, W, D},
                               .k = k.cache,
                               .v = v.cache,
                               .places = {places, 2},
                               .n_tokens = T,
                               .n_heads = H,
                               .depth = D,
                               .longest = 200,
                               .scale = 0.2f,
                               .y = y,
                               .rounded = {rounded, scale, sum},
                               .partial = partial,
                               .counters = counters};
    for (EACH_SCHEDULE(schedule)) {
        struct cuda_stream stream = {0};
        CHECK_LAUNCH(geul_cuda_launch_attention_chunks(&stream, &a));
        int8_t again[T * W];
        float again_scale[T * W / 32];
        int32_t again_sum[T * W / 32];
        struct cuda_round round = {y, W, T, W, {again, again_scale, again_sum}};
        CHECK_LAUNCH(geul_cuda_launch_round(&stream, &round));
        CHECK(memcmp(again, rounded, sizeof again) == 0 && memcmp(again_scale, scale, sizeof scale) == 0 &&
              memcmp(again_sum, sum, sizeof sum) == 0);
    }
    cache_free(&k, "k"), cache_free(&v, "v");
    free(q);
}

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

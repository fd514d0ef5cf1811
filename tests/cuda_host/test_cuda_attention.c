/* test_cuda_attention.c: the three kernels of attention against double precision, under every schedule. */
#include "backends/cuda/cuda_attention.h"
#include "core/tensor.h"
#include "tests/cuda_host/cuda_caches.h"
#include "tests/cuda_host/cuda_rig.h"

enum form { CHUNKS, PARTS, PLAIN, TILES, DIVIDED };
static const char *const form_names[] = {"chunks", "chunks of many blocks", "plain", "tiles", "divided tiles"};

/* ------------------------------------------------------------------------------- by the book -- */

/* What a kernel rounds, by unit relative to the value: a float32 sum of n terms is off by at most n 2^-24 times the sum
 * of their magnitudes; halves by 2^-11 of the value, or 2^-25 below 2^-14. */
struct rounding {
    double q, k, v, p; /* of what is multiplied */
    double tiny;       /* at least this */
};

static struct rounding rounding_of(enum form form, enum geul_type type)
{
    const double half = 0x1p-11, other = type == GEUL_TYPE_F16 || type == GEUL_TYPE_BF16 ? 0 : half;
    return form >= TILES ? (struct rounding){half, other, other, half, 0x1p-25} : (struct rounding){0};
}

/* A row of keys or values, and the largest error of what is computed from it. */
struct book {
    int64_t depth;
    double scale;
    struct rounding rounding;
    double *p, *out, *bound; /* (positions), (depth), (depth) */
};

/* Attention of q over n positions, and by how much a kernel may be off. Scores are off by at most e; then weights
 * relative to each other by exp(2 e), as are sums of positive weights. */
static void attend_row(const struct book *b, const float *q, const float *k, const float *v, int64_t step, int64_t n)
{
    const double unit = 0x1p-24;
    const struct rounding *r = &b->rounding;
    double highest = -INFINITY, total = 0, e = 0;
    for (int64_t c = 0; c < n; c++) {
        double size = 0, sizes = 0;
        b->p[c] = 0;
        for (int64_t d = 0; d < b->depth; d++) {
            double x = (double)q[d], y = (double)k[c * step + d];
            b->p[c] += b->scale * x * y;
            size += b->scale * fabs(x * y);
            sizes += b->scale * fabs(x) + fabs(y);
        }
        /* The factor and its product with q, the sum, and the exponent, whose error counts as that of the score. */
        e = fmax(e, size * (r->q + r->k + (double)(b->depth + 4) * unit) + r->tiny * sizes);
        highest = fmax(highest, b->p[c]);
    }
    for (int64_t c = 0; c < n; c++)
        total += b->p[c] = exp(b->p[c] - highest);
    for (int64_t d = 0; d < b->depth; d++) {
        double sum = 0, size = 0, plain = 0;
        for (int64_t c = 0; c < n; c++) {
            double x = (double)v[c * step + d];
            sum += b->p[c] / total * x;
            size += b->p[c] / total * fabs(x);
            plain += fabs(x);
        }
        b->out[d] = sum;
        /* exp2f() is good to 2 units, and is taken about once a position when maxima rise */
        b->bound[d] = size * (expm1(2 * e) + r->p + r->v + (double)(4 * n + 8) * unit) + r->tiny * (plain + (double)n);
    }
}

/* What attention of a batch is, and may be off by. Sequences of keys are s->room positions long; without a cache a
 * token's own are found `step` floats before its row. */
static void attend(const struct shape *s, enum form form, const float *q, int64_t q_stride, const struct cache *k,
                   const struct cache *v, const int32_t *places, double scale, double *want, double *bound)
{
    struct book b = {s->depth, scale, rounding_of(form, s->type), malloc((size_t)s->room * sizeof(double)), NULL, NULL};
    for (int64_t t = 0; t < s->tokens; t++)
        for (int64_t h = 0; h < s->heads; h++) {
            int64_t sequence = places[2 * t], last = places[2 * t + 1];
            bool inside = sequence >= 0 && sequence < s->sequences && last >= 0 && last < s->room;
            int64_t base = (sequence * s->heads + h) * s->room * s->depth;
            b.out = want + (t * s->heads + h) * s->depth;
            b.bound = bound + (t * s->heads + h) * s->depth;
            for (int64_t d = 0; d < s->depth; d++)
                b.out[d] = NAN;
            if (inside)
                attend_row(&b, q + t * q_stride + h * s->depth, k->values + base, v->values + base, s->depth, last + 1);
        }
    free(b.p);
}

static void check_rows(const char *what, const float *got, const double *want, const double *bound, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        bool same = isnan(want[i]) ? isnan(got[i]) : fabs((double)got[i] - want[i]) <= bound[i];
        if (!CHECK_MSG(same, "%s: element %d is %g, expected %g, within %g", what, (int)i, (double)got[i], want[i],
                       bound[i]))
            break;
    }
}

/* ------------------------------------------------------------------------------------- cases -- */

static int run_form(struct cuda_stream *stream, const struct cuda_attention *a, enum form form)
{
    static int (*const launches[])(struct cuda_stream *, const void *) = {
        geul_cuda_launch_attention_chunks, geul_cuda_launch_attention_chunks, geul_cuda_launch_attention_plain,
        geul_cuda_launch_attention_tiles, geul_cuda_launch_attention_tiles};
    return launches[form](stream, a);
}

enum { TILE_PARTS = 3 };

/* A batch over two caches, and memory for all that a kernel may want. */
struct batch {
    struct shape s;
    struct cache k, v;
    float *q;
    int32_t *places;
    struct cpu_guard y, partial, counters, q8, scale, sum;
    struct cuda_attention args;
};

static struct batch batch_new(uint64_t *seed, struct shape s, int64_t run)
{
    int64_t width = s.heads * s.depth, stride = width + 5, n = s.tokens * width;
    int64_t parts = (s.room + CUDA_ATTENTION_CHUNK - 1) / CUDA_ATTENTION_CHUNK;
    struct batch b = {
        .s = s, .k = cache_new(seed, &s), .v = cache_new(seed, &s), .q = randoms(seed, s.tokens * stride)};
    b.y = cpu_guard((size_t)n * 4, 0);
    size_t chunks = (size_t)(s.tokens * s.heads * parts * (s.depth + 2)) * 4;
    size_t tiles = TILE_PARTS * geul_cuda_attention_tile_partial(&(struct cuda_attention){
                                    .n_tokens = s.tokens, .n_heads = s.heads, .depth = s.depth});
    b.partial = cpu_guard(chunks > tiles ? chunks : tiles, 0);
    b.counters = cpu_guard((size_t)(s.tokens * s.heads) * 4, 0);
    b.q8 = cpu_guard((size_t)n, 0);
    b.scale = cpu_guard((size_t)(n + 31) / 32 * 4, 0);
    b.sum = cpu_guard((size_t)(n + 31) / 32 * 4, 0);
    b.places = malloc((size_t)s.tokens * 2 * sizeof *b.places);
    for (int64_t t = 0; t < s.tokens; t++) { /* sequences change after every run */
        b.places[2 * t] = (int32_t)(t / run % s.sequences);
        b.places[2 * t + 1] = s.first + (int32_t)t;
    }
    memset(b.counters.data, 0, b.counters.bytes);
    b.args = (struct cuda_attention){.q = {b.q, stride, s.depth},
                                     .k = b.k.cache,
                                     .v = b.v.cache,
                                     .places = {b.places, 2},
                                     .n_tokens = s.tokens,
                                     .n_heads = s.heads,
                                     .depth = s.depth,
                                     .scale = 1 / sqrtf((float)s.depth),
                                     .y = (float *)(void *)b.y.data,
                                     .partial = (float *)(void *)b.partial.data,
                                     .counters = (uint32_t *)(void *)b.counters.data};
    return b;
}

static void batch_free(struct batch *b, const char *what)
{
    struct cpu_guard *guards[] = {&b->y, &b->partial, &b->counters, &b->q8, &b->scale, &b->sum};
    for (size_t i = 0; i < sizeof guards / sizeof *guards; i++)
        cpu_guard_free(guards[i], what);
    cache_free(&b->k, what), cache_free(&b->v, what);
    free(b->q), free(b->places);
}

static void use_form(struct batch *b, enum form form)
{
    b->args.parts = form == PARTS     ? (b->s.room + CUDA_ATTENTION_CHUNK - 1) / CUDA_ATTENTION_CHUNK
                    : form == DIVIDED ? TILE_PARTS
                                      : 0;
    memset(b->y.data, 0x55, b->y.bytes);
    memset(b->partial.data, 0xff, b->partial.bytes);
}

/* Every form of [from, to] on the batch, against the book; chunks have the same bits whoever takes them. */
static void check_batch(struct batch *b, enum form from, enum form to)
{
    const struct shape *s = &b->s;
    int64_t n = s->tokens * s->heads * s->depth;
    double *want = malloc((size_t)n * sizeof *want), *bound = malloc((size_t)n * sizeof *bound);
    float *first = malloc((size_t)n * sizeof *first);
    for (enum form form = from; form <= to; form++) {
        char what[128];
        snprintf(what, sizeof what, "%s in %s, %d tokens, depth %d", geul_type_name(s->type), form_names[form],
                 (int)s->tokens, (int)s->depth);
        attend(s, form, b->q, b->args.q.token_stride, &b->k, &b->v, b->places, (double)b->args.scale, want, bound);
        for (EACH_SCHEDULE(schedule)) {
            struct cuda_stream stream = {0};
            use_form(b, form);
            CHECK_LAUNCH(run_form(&stream, &b->args, form));
            check_rows(what, b->args.y, want, bound, n);
            if (form == from && schedule == 0)
                memcpy(first, b->args.y, (size_t)n * sizeof *first);
            if (form <= PARTS)
                CHECK_MSG(memcmp(first, b->args.y, (size_t)n * sizeof *first) == 0, "%s: other bits", what);
        }
    }
    for (int64_t i = 0; i < s->tokens * s->heads; i++)
        CHECK_INT(b->args.counters[i], 0);
    free(want), free(bound), free(first);
}

TEST(cuda_attention_in_chunks)
{
    static const struct shape shapes[] = {
        {GEUL_TYPE_F32, 1, 1, 1, 8, 1, 0},       {GEUL_TYPE_F16, 1, 2, 300, 64, 1, 266},
        {GEUL_TYPE_BF16, 5, 3, 40, 24, 2, 3},    {GEUL_TYPE_F32, 9, 2, 130, 32, 1, 120},
        {GEUL_TYPE_F16, 6, 1, 190, 80, 1, 125},  {GEUL_TYPE_Q8_0, 2, 2, 600, 96, 2, 500},
        {GEUL_TYPE_BF16, 1, 1, 64, 128, 1, 63},  {GEUL_TYPE_F16, 1, 1, 200, 256, 1, 150},
        {GEUL_TYPE_F32, 1, 1, 140, 256, 1, 128}, {GEUL_TYPE_Q8_0, 1, 1, 70, 256, 1, 64}};
    uint64_t seed = CPU_SEED;
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        struct batch b = batch_new(&seed, shapes[i], 7);
        CHECK(geul_cuda_attention_has_chunks((enum cuda_type)shapes[i].type, shapes[i].depth));
        if (shapes[i].tokens > 4) { /* two outside */
            b.places[2 * 1 + 1] = (int32_t)shapes[i].room;
            b.places[2 * 4] = -1;
        }
        check_batch(&b, CHUNKS, PARTS);
        batch_free(&b, "attention in chunks");
    }
}

TEST(cuda_attention_plain)
{
    static const struct shape shapes[] = {
        {GEUL_TYPE_F32, 1, 1, 1, 1, 1, 0},       {GEUL_TYPE_F32, 5, 2, 140, 33, 2, 126},
        {GEUL_TYPE_F32, 1, 1, 140, 520, 1, 130}, {GEUL_TYPE_F16, 5, 1, 80, 7, 1, 61},
        {GEUL_TYPE_BF16, 1, 2, 70, 130, 1, 65},  {GEUL_TYPE_Q8_0, 1, 1, 50, 288, 1, 40}};
    uint64_t seed = CPU_SEED;
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        struct batch b = batch_new(&seed, shapes[i], 7);
        CHECK(!geul_cuda_attention_has_chunks((enum cuda_type)shapes[i].type, shapes[i].depth));
        CHECK(!geul_cuda_attention_has_tiles(shapes[i].depth));
        if (shapes[i].tokens > 4) {
            b.places[2 * 1] = 2;
            b.places[2 * 4 + 1] = -1;
        }
        check_batch(&b, PLAIN, PLAIN);
        batch_free(&b, "attention, plain");
    }
}

TEST(cuda_attention_in_tiles)
{
    static const struct {
        struct shape s;
        int64_t run; /* tokens of a sequence */
    } cases[] = {{{GEUL_TYPE_F16, 1, 1, 40, 64, 1, 0}, 7},      {{GEUL_TYPE_F16, 70, 2, 150, 64, 1, 60}, 7},
                 {{GEUL_TYPE_BF16, 20, 1, 140, 80, 2, 100}, 9}, {{GEUL_TYPE_Q8_0, 66, 1, 70, 96, 3, 0}, 19},
                 {{GEUL_TYPE_F16, 33, 1, 100, 128, 2, 40}, 16}, {{GEUL_TYPE_BF16, 17, 1, 80, 128, 1, 50}, 7},
                 {{GEUL_TYPE_F16, 18, 1, 70, 256, 2, 45}, 9},   {{GEUL_TYPE_Q8_0, 9, 1, 40, 256, 1, 30}, 7},
                 {{GEUL_TYPE_F32, 12, 1, 90, 80, 1, 70}, 7},    {{GEUL_TYPE_F32, 16, 1, 64, 64, 1, 48}, 7},
                 {{GEUL_TYPE_F16, 16, 1, 65, 64, 1, 49}, 16}};
    uint64_t seed = CPU_SEED;
    cuda_host_shared_most(96 << 10);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct batch b = batch_new(&seed, cases[i].s, cases[i].run);
        CHECK(geul_cuda_attention_has_tiles(b.s.depth));
        if (b.s.tokens > 4) {
            b.places[2 * 1 + 1] = (int32_t)b.s.room;
            b.places[2 * 4] = -1;
        }
        check_batch(&b, TILES, DIVIDED);
        batch_free(&b, "attention in tiles");
    }
    /* Deep enough for two and for three parts of each tile; the last with runs of few positions among long ones. */
    static const struct shape deep[] = {{GEUL_TYPE_F16, 3, 2, 600, 64, 1, 520},
                                        {GEUL_TYPE_Q8_0, 17, 1, 800, 64, 1, 780},
                                        {GEUL_TYPE_BF16, 9, 1, 420, 256, 1, 400},
                                        {GEUL_TYPE_F16, 12, 1, 300, 80, 3, 280}};
    for (size_t i = 0; i < sizeof deep / sizeof *deep; i++) {
        struct batch b = batch_new(&seed, deep[i], 4);
        if (i == 3)
            for (int t = 4; t < 8; t++)
                b.places[2 * t + 1] = t;
        check_batch(&b, TILES, DIVIDED);
        batch_free(&b, "attention in divided tiles");
    }
    CHECK(!geul_cuda_attention_has_tiles(72) && geul_cuda_attention_tile_shared(72) == 0);
    CHECK(geul_cuda_attention_tile_shared(128) <= 48 << 10);
}

/* Rows that do not lie on 16 bytes: every launch serves them. */
TEST(cuda_attention_of_rows_anywhere)
{
    uint64_t seed = CPU_SEED;
    struct shape s = {GEUL_TYPE_F16, 17, 1, 40, 64, 1, 10};
    struct batch b = batch_new(&seed, s, 7);
    struct cpu_guard k = cpu_guard(b.k.memory.bytes, 2), v = cpu_guard(b.v.memory.bytes, 6);
    memcpy(k.data, b.k.memory.data, k.bytes);
    memcpy(v.data, b.v.memory.data, v.bytes);
    b.args.k.data = k.data;
    b.args.v.data = v.data;
    check_batch(&b, CHUNKS, TILES);
    cpu_guard_free(&k, "keys"), cpu_guard_free(&v, "values");
    batch_free(&b, "rows anywhere");
}

/* Without a cache: sequences one after the other, in fused rows. */
TEST(cuda_attention_of_the_tokens_themselves)
{
    enum { T = 75, H = 2, D = 64, W = H * D };
    uint64_t seed = CPU_SEED;
    float *qkv = randoms(&seed, T * 3 * W), *y = malloc(T * W * sizeof *y);
    int32_t places[2 * T];
    double *want = malloc(T * W * sizeof *want), *bound = malloc(T * W * sizeof *bound), p[T];
    for (int t = 0; t < T; t++) { /* the second sequence begins at token 66, the third at 70 */
        places[2 * t] = 3;
        places[2 * t + 1] = t < 66 ? t : t < 70 ? t - 66 : t - 70;
    }
    places[2 * 3 + 1] = 4; /* before the first token: outside */
    places[2 * 5 + 1] = -1;
    const int64_t step = 3 * W;
    struct cuda_cache side = {
        .data = qkv + W, .type = CUDA_F32, .head_stride = D * 4, .position_stride = step * (int64_t)sizeof(float)};
    struct cuda_attention a = {.q = {qkv, step, D},
                               .k = side,
                               .v = side,
                               .places = {places, 2},
                               .n_tokens = T,
                               .n_heads = H,
                               .depth = D,
                               .scale = 0.2f,
                               .y = y};
    a.v.data = qkv + 2 * W;
    static const enum form forms[] = {CHUNKS, PLAIN, TILES}; /* parts are of caches alone */
    for (int f = 0; f < 3; f++) {
        const enum form form = forms[f];
        struct book b = {D, (double)a.scale, rounding_of(form, GEUL_TYPE_F32), p, NULL, NULL};
        for (int i = 0; i < T * H; i++) {
            int t = i / H, at = i % H * D, first = t - places[2 * t + 1];
            b.out = want + i * D;
            b.bound = bound + i * D;
            for (int d = 0; d < D; d++)
                b.out[d] = NAN;
            if (first >= 0 && first <= t)
                attend_row(&b, qkv + t * step + at, qkv + first * step + W + at, qkv + first * step + 2 * W + at, step,
                           t - first + 1);
        }
        for (EACH_SCHEDULE(schedule)) {
            struct cuda_stream stream = {0};
            CHECK_LAUNCH(run_form(&stream, &a, form));
            check_rows(form_names[form], y, want, bound, T * W);
        }
    }
    free(qkv), free(y), free(want), free(bound);
}

/* Where sums have one order, a token's bits depend on its own sequence alone: not on the tokens before and after it,
 * nor on the size of the cache, nor on how chunks are divided. */
static void one_order(enum geul_type type, int64_t depth, enum form form)
{
    enum { T = 6, FIRST = 125, ROOM = 200 };
    uint64_t seed = CPU_SEED;
    struct shape s = {type, T, 2, ROOM, depth, 2, FIRST};
    struct batch b = batch_new(&seed, s, 3);
    int64_t width = 2 * depth;
    float *whole = malloc((size_t)(T * width) * sizeof *whole);
    struct cuda_stream stream = {0};
    use_form(&b, form);
    CHECK_LAUNCH(run_form(&stream, &b.args, form));
    memcpy(whole, b.args.y, b.y.bytes);
    const struct cuda_attention all = b.args;
    for (int64_t t = 0, n; t < T; t += n) { /* one alone, then two, then three */
        n = t == 0 ? 1 : t == 1 ? 2 : 3;
        use_form(&b, t == 3 && form == CHUNKS ? PARTS : form);
        b.args.q.data = all.q.data + t * all.q.token_stride;
        b.args.places.data = all.places.data + 2 * t;
        b.args.n_tokens = n;
        b.args.k.n_positions = b.args.v.n_positions = FIRST + t + n; /* what lies behind is another cache's */
        CHECK_LAUNCH(run_form(&stream, &b.args, form));
        CHECK_MSG(memcmp(b.args.y, whole + t * width, (size_t)(n * width) * sizeof *whole) == 0,
                  "%s, depth %d, %s: tokens from %d on", geul_type_name(type), (int)depth, form_names[form], (int)t);
    }
    b.args = all;
    free(whole);
    batch_free(&b, "one order");
}

TEST(cuda_attention_sums_in_one_order)
{
    static const enum geul_type types[] = {GEUL_TYPE_F32, GEUL_TYPE_F16, GEUL_TYPE_BF16, GEUL_TYPE_Q8_0};
    for (int i = 0; i < 4; i++) {
        one_order(types[i], 64, CHUNKS);
        one_order(types[i], 96, PLAIN);
    }
}

/* What is left rounded is what rounding the result would give; then the result itself may be left out. */
TEST(cuda_attention_leaves_rounded_rows)
{
    uint64_t seed = CPU_SEED;
    static const struct shape shapes[] = {{GEUL_TYPE_F16, 18, 3, 100, 96, 1, 60}, {GEUL_TYPE_Q8_0, 3, 1, 70, 64, 1, 5}};
    for (int i = 0; i < 2; i++) {
        struct batch b = batch_new(&seed, shapes[i], 7);
        int64_t n = b.s.tokens * b.s.heads * b.s.depth;
        b.places[2 * 1] = 1; /* outside */
        float *y = malloc((size_t)n * sizeof *y), *scale = malloc((size_t)n / 32 * sizeof *scale);
        int8_t *q = malloc((size_t)n);
        int32_t *sum = malloc((size_t)n / 32 * sizeof *sum);
        b.args.rounded =
            (struct cuda_int8_rows){(int8_t *)b.q8.data, (float *)(void *)b.scale.data, (int32_t *)(void *)b.sum.data};
        for (enum form form = CHUNKS; form <= TILES; form++)
            for (EACH_SCHEDULE(schedule)) {
                struct cuda_stream stream = {0};
                use_form(&b, form);
                b.args.rounded_only = false;
                CHECK_LAUNCH(run_form(&stream, &b.args, form));
                struct cuda_round round = {b.args.y, n / b.s.tokens, b.s.tokens, n / b.s.tokens, {q, scale, sum}};
                CHECK_LAUNCH(geul_cuda_launch_round(&stream, &round));
                memset(b.q8.data, 0x55, b.q8.bytes);
                memset(b.scale.data, 0x55, b.scale.bytes);
                use_form(&b, form);
                b.args.rounded_only = true;
                CHECK_LAUNCH(run_form(&stream, &b.args, form));
                CHECK_MSG(memcmp(q, b.q8.data, b.q8.bytes) == 0 && memcmp(scale, b.scale.data, b.scale.bytes) == 0 &&
                              memcmp(sum, b.sum.data, b.sum.bytes) == 0,
                          "%s", form_names[form]);
                CHECK(isnan(scale[b.s.heads * b.s.depth / 32]));
            }
        free(y), free(scale), free(q), free(sum);
        batch_free(&b, "rounded rows");
    }
}

/* Numbers that float16 cannot hold, in one of K, V and Q each time. */
enum damage { BROKEN_TOKEN, HUGE_KEY, HUGE_VALUE, HUGE_QUERY, DAMAGES };
enum { BROKEN_AT = 40, HUGE_AT = 5 };

static void do_damage(struct batch *b, enum damage damage)
{
    const int64_t depth = b->s.depth, n = b->s.room * depth;
    if (damage == BROKEN_TOKEN) { /* of the same batch, came out as NaN */
        b->v.values[BROKEN_AT * depth + 3] = NAN;
        b->k.values[BROKEN_AT * depth + 7] = NAN;
    } else if (damage == HUGE_KEY || damage == HUGE_QUERY) { /* scores of some size all the same */
        const int64_t d = damage == HUGE_KEY ? 3 : 2;        /* the high and the low half of a word */
        b->k.values[HUGE_AT * depth + d] = damage == HUGE_KEY ? -8e5f : -1e-5f;
        for (int64_t t = 0; t < b->s.tokens; t++)
            b->q[t * b->args.q.token_stride + d] *= damage == HUGE_KEY ? 1e-5f : 1e7f;
        for (int64_t c = 0; c < b->s.room && damage == HUGE_QUERY; c++)
            b->k.values[c * depth + d] *= 1e-5f;
    } else {
        b->v.values[HUGE_AT * depth + 9] = 3e6f;
    }
    geul_encode(b->s.type, b->k.values, b->k.memory.data, n);
    geul_encode(b->s.type, b->v.values, b->v.memory.data, n);
}

/* Damage stays where it belongs: rows that do not attend to it are as they would be without it. */
static void one_damage(enum geul_type type, enum damage damage, enum form form)
{
    uint64_t seed = CPU_SEED;
    struct shape s = {type, 20, 1, 64, 64, 1, 30};
    struct batch b = batch_new(&seed, s, 20);
    const int64_t depth = s.depth, n = s.tokens * depth;
    double *want = malloc((size_t)n * sizeof *want), *bound = malloc((size_t)n * sizeof *bound);
    do_damage(&b, damage);
    /* rows that are computed anew are float32's */
    attend(&b.s, damage == BROKEN_TOKEN ? form : PLAIN, b.q, b.args.q.token_stride, &b.k, &b.v, b.places,
           (double)b.args.scale, want, bound);
    for (EACH_SCHEDULE(schedule)) {
        struct cuda_stream stream = {0};
        char what[128];
        snprintf(what, sizeof what, "%s in %s, damage %d", geul_type_name(type), form_names[form], (int)damage);
        use_form(&b, form);
        CHECK_LAUNCH(run_form(&stream, &b.args, form));
        for (int64_t t = 0; t < s.tokens; t++)
            if (damage != BROKEN_TOKEN || b.places[2 * t + 1] < BROKEN_AT)
                check_rows(what, b.args.y + t * depth, want + t * depth, bound + t * depth, depth);
            else
                for (int64_t d = 0; d < depth; d++)
                    CHECK_MSG(isnan(b.args.y[t * depth + d]), "%s: token %d is not NaN", what, (int)t);
    }
    free(want), free(bound);
    batch_free(&b, "damage");
}

TEST(cuda_attention_keeps_damage_where_it_belongs)
{
    for (enum form form = CHUNKS; form <= DIVIDED; form++) {
        one_damage(GEUL_TYPE_F16, BROKEN_TOKEN, form);
        for (enum damage damage = 0; damage < DAMAGES; damage++)
            one_damage(GEUL_TYPE_F32, damage, form);
    }
}

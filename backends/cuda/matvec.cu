/* matvec.cu: see matvec.h. What bounds it is reading the weights: a block has 8 warps, each with a few weight rows, so
 * that enough of them are under way (table). Activations come from the first-level cache. */
#include "backends/cuda/matvec.h"

#include "backends/cuda/blocks.h"
#include "backends/cuda/epilogue.h"
#include "backends/cuda/plain.h"
#include "backends/cuda/round_group.h"

enum {
    WARPS = 8,
    TOKENS = 4, /* tokens at a time, at most */
    GROUP = 32, /* values rounded together */
    THREADS = WARPS * WARP,
};

/* Weight rows that a warp multiplies at a time, by type and number of tokens: 1, 2 or 4 (GROUP / WARPS). The bits of a
 * result do not depend on them. A H100 needs 18 KB under way on each multiprocessor (gpu.md). What is there at most is
 * a unit for each lane and row, times the blocks that registers leave room for (ptxas, sm_90, rows enough for them
 * all):
 *
 *     2 rows                      1 token 27 to 64 KB    4 tokens 18 to 53 KB, but F16 and BF16 16, IQ4_XS 17
 *     4 rows, those, 3-4 tokens   32 and 34 KB, without spills; types of 256 values but IQ4_XS spill with 4 tokens
 *
 * This is arithmetic: no card has measured these rows yet. */
/* clang-format off */
static constexpr struct {
    cuda_type type;
    int rows[TOKENS];
} table[] = {
    {CUDA_F32,    {2, 2, 2, 2}},
    {CUDA_F16,    {2, 2, 4, 4}},
    {CUDA_BF16,   {2, 2, 4, 4}},
    {CUDA_Q8_0,   {2, 2, 2, 2}},
    {CUDA_Q4_0,   {2, 2, 2, 2}},
    {CUDA_Q4_1,   {2, 2, 2, 2}},
    {CUDA_Q5_0,   {2, 2, 2, 2}},
    {CUDA_Q5_1,   {2, 2, 2, 2}},
    {CUDA_Q2_K,   {2, 2, 2, 2}},
    {CUDA_Q3_K,   {2, 2, 2, 2}},
    {CUDA_Q4_K,   {2, 2, 2, 2}},
    {CUDA_Q5_K,   {2, 2, 2, 2}},
    {CUDA_Q6_K,   {2, 2, 2, 2}},
    {CUDA_IQ4_NL, {2, 2, 2, 2}},
    {CUDA_IQ4_XS, {2, 2, 4, 4}},
};
/* clang-format on */

/* 0: no row of the table. */
static constexpr int rows_of(cuda_type type, int tokens)
{
    for (size_t i = 0; i < sizeof table / sizeof *table; i++)
        if (table[i].type == type)
            return table[i].rows[tokens - 1];
    return 0;
}

/* How a block is divided. */
template <cuda_type type, int T> struct division {
    enum { rows = rows_of(type, T) };
    static_assert(rows == 1 || rows == 2 || rows == 4, "a row of the table");
    enum {
        pass = WARPS * rows,   /* weight rows of a block in a pass */
        passes = GROUP / pass, /* of a block that rounds its results */
    };
};

/* ---------------------------------------------------------------------------------- rounding -- */

KERNEL(THREADS, 4) void round_rows(cuda_round a)
{
    int64_t per_row = a.n_cols / GROUP, n = a.n_rows * per_row;
    for (int64_t g = (int64_t)block_x() * WARPS + warp_number(); g < n; g += (int64_t)grid_x() * WARPS) {
        int64_t row = g / per_row, first = g % per_row * GROUP;
        float scale;
        int32_t sum;
        int q = round_lane(a.x[row * a.stride + first + lane()], &scale, &sum);
        a.out.q[g * GROUP + lane()] = (int8_t)q;
        if (lane() == 0) {
            a.out.scale[g] = scale;
            a.out.sum[g] = sum;
        }
    }
}

int geul_cuda_launch_round(struct cuda_stream *stream, const void *args)
{
    const struct cuda_round *a = (const struct cuda_round *)args;
    int64_t blocks = blocks_for(a->n_rows * (a->n_cols / GROUP), WARPS, 65536);
    return LAUNCH(stream, round_rows, GRID(blocks, 1, 1), THREADS, 0, *a);
}

/* --------------------------------------------------------------------------------- epilogues -- */

/* The warp's sums of rows row .. row + R - 1 and tokens token .. token + T - 1: each lane finishes one of them.
 * kept: where a block that rounds keeps them, (T, GROUP), from the warp's first row on; NULL: it does not. */
template <int T, int R>
DEVICE void leave_sums(const cuda_matvec &a, const float (&sum)[R][T], int64_t row, int64_t token, float *kept)
{
    float mine = 0;
    UNROLL
    for (int r = 0; r < R; r++)
        UNROLL
    for (int t = 0; t < T; t++)
        mine = lane() == r * T + t ? sum[r][t] : mine;
    int r = lane() / T, t = lane() % T;
    if (r >= R || row + r >= a.n || token + t >= a.n_tokens)
        return;
    float v = finish(a.out, mine, token + t, row + r);
    if (a.out.y)
        a.out.y[(token + t) * a.out.y_stride + row + r] = v;
    if (kept)
        kept[t * GROUP + r] = v;
}

/* Rounds the GROUP results from first_row on of each of T tokens. */
template <int T> DEVICE void leave_rounded(const cuda_matvec &a, const float *kept, int64_t first_row, int64_t token)
{
    barrier();
    for (int t = warp_number(); t < T; t += WARPS) {
        if (token + t >= a.n_tokens)
            continue;
        int64_t at = (token + t) * a.n + first_row;
        float scale;
        int32_t sum;
        int q = round_lane(kept[t * GROUP + lane()], &scale, &sum);
        a.out.rounded.q[at + lane()] = (int8_t)q;
        if (lane() == 0) {
            a.out.rounded.scale[at / GROUP] = scale;
            a.out.rounded.sum[at / GROUP] = sum;
        }
    }
}

/* ------------------------------------------------------------------------------- block types -- */

/* Adds unit u's products with the values of one token that begin at x, whose groups have scales xs and sums xsum. What
 * is rounded once is written out: left to the compiler, it could differ from one number of tokens to another. */
template <cuda_type type>
DEVICE void add_unit(const unpacked<type> &u, int unit, const int8_t *x, const float *xs, const int32_t *xsum,
                     float *sum)
{
    typedef shape_of<type> shape;
    const int per_scale = shape::group / 16; /* parts */
    UNROLL
    for (int p = 0; p < shape::parts; p += per_scale) {
        int products = 0, ones = 0;
        for (int part = p; part < p + per_scale; part++) {
            words4 v = load16(x + part_offset<type>(unit, part));
            UNROLL
            for (int j = 0; j < 4; j++) {
                products = dot4((int)u.word[part][j], (int)v.w[j], products);
                if (shape::minimum && shape::group == 16)
                    ones = dot4(0x01010101, (int)v.w[j], ones);
            }
        }
        int group = part_offset<type>(unit, p) / GROUP;
        float product = u.scale[p] * (float)products;
        if (shape::minimum)
            product = fmaf(-u.minimum[p], (float)(shape::group == 16 ? ones : xsum[group]), product);
        *sum = fmaf(xs[group], product, *sum);
    }
}

/* Lane i takes units i, i + 32, ... of its rows. Rows and tokens behind the last are computed as the last one. */
template <cuda_type type, int T> KERNEL(THREADS, 2) void matvec_blocks(cuda_matvec a, int passes)
{
    typedef shape_of<type> shape;
    enum { R = division<type, T>::rows, P = division<type, T>::pass };
    SHARED(float, kept, T *GROUP);
    const int64_t token = (int64_t)block_y() * T, groups = a.k / GROUP;
    const int units = (int)(a.k / shape::unit);
    for (int pass = 0; pass < passes; pass++) {
        const int in_block = pass * P + warp_number() * R;
        const int64_t row = (int64_t)block_x() * passes * P + in_block;
        const uint8_t *from[R];
        float sum[R][T] = {};
        UNROLL
        for (int r = 0; r < R; r++)
            from[r] = (const uint8_t *)a.weights + (row + r < a.n ? row + r : a.n - 1) * a.row_bytes;
        for (int i = lane(); i < units; i += WARP) {
            int block = i / shape::units, unit = i % shape::units;
            unpacked<type> u[R];
            UNROLL
            for (int r = 0; r < R; r++)
                unpack<type>(from[r] + (int64_t)block * shape::bytes, unit, &u[r]);
            UNROLL
            for (int t = 0; t < T; t++) {
                int64_t at = token + t < a.n_tokens ? token + t : a.n_tokens - 1;
                int64_t first = at * a.k + (int64_t)block * shape::values,
                        group = at * groups + (int64_t)block * shape::values / GROUP;
                UNROLL
                for (int r = 0; r < R; r++)
                    add_unit<type>(u[r], unit, a.rounded.q + first, a.rounded.scale + group, a.rounded.sum + group,
                                   &sum[r][t]);
            }
        }
        UNROLL
        for (int r = 0; r < R; r++) {
            UNROLL
            for (int t = 0; t < T; t++)
                sum[r][t] = warp_sum(sum[r][t]);
        }
        leave_sums<T, R>(a, sum, row, token, a.out.rounded.q ? kept + in_block : NULL);
    }
    if (a.out.rounded.q)
        leave_rounded<T>(a, kept, (int64_t)block_x() * GROUP, token);
}

/* ------------------------------------------------------------------------------- plain types -- */

template <cuda_type type> struct plain {
    enum { bytes = 2 };
};
template <> struct plain<CUDA_F32> {
    enum { bytes = 4 };
};

/* Value i of words that hold values of a plain type. */
template <cuda_type type> DEVICE float plain_value(const uint32_t *words, int i)
{
    if constexpr (type == CUDA_F32)
        return float_of(words[i]);
    uint16_t h = (uint16_t)(words[i / 2] >> 16 * (i % 2));
    return type == CUDA_F16 ? half_to_float(h) : bfloat_to_float(h);
}

/* x as the product reads it: rounded to bfloat16 first, or not. */
DEVICE float activation_of(float x, bool bfloat)
{
    return bfloat ? bfloat_to_float(float_to_bfloat(x)) : x;
}

enum { TAKEN = 8 }; /* values that a lane takes at a time */

/* Words of values at p, which lies on 16 bytes, or else on a value. again: they are read again soon. */
template <cuda_type type, int n, bool aligned, bool again = false> DEVICE void load_plain(const uint8_t *p, uint32_t *w)
{
    if constexpr (aligned) {
        load_words_at_16<n, again>(p, w);
    } else if constexpr (type == CUDA_F32) {
        load_words_at_4<n>(p, w);
    } else {
        UNROLL
        for (int i = 0; i < n; i++)
            w[i] = ((const uint16_t *)p)[2 * i] | (uint32_t)((const uint16_t *)p)[2 * i + 1] << 16;
    }
}

/* Lane i takes 8 values at 8 i, 8 (i + 32), ..., and the rest one by one, wherever rows lie. aligned: those of both lie
 * on 16 bytes. */
template <cuda_type type, int T, bool aligned> KERNEL(THREADS, 2) void matvec_plain(cuda_matvec a, int passes)
{
    enum { R = division<type, T>::rows, P = division<type, T>::pass, WORDS = TAKEN * plain<type>::bytes / 4 };
    SHARED(float, kept, T *GROUP);
    const int64_t token = (int64_t)block_y() * T, whole = a.k / TAKEN * TAKEN;
    for (int pass = 0; pass < passes; pass++) {
        const int in_block = pass * P + warp_number() * R;
        const int64_t row = (int64_t)block_x() * passes * P + in_block;
        const uint8_t *from[R];
        const float *x[T];
        float sum[R][T] = {};
        UNROLL
        for (int r = 0; r < R; r++)
            from[r] = (const uint8_t *)a.weights + (row + r < a.n ? row + r : a.n - 1) * a.row_bytes;
        UNROLL
        for (int t = 0; t < T; t++)
            x[t] = a.x + (token + t < a.n_tokens ? token + t : a.n_tokens - 1) * a.x_stride;
        for (int64_t i = lane() * TAKEN; i < whole; i += WARP * TAKEN) {
            uint32_t w[R][WORDS];
            UNROLL
            for (int r = 0; r < R; r++)
                load_plain<type, WORDS, aligned>(from[r] + i * plain<type>::bytes, w[r]);
            UNROLL
            for (int t = 0; t < T; t++) {
                UNROLL
                for (int half = 0; half < TAKEN; half += 4) {
                    uint32_t v[4];
                    load_plain<CUDA_F32, 4, aligned, true>((const uint8_t *)(x[t] + i + half), v);
                    UNROLL
                    for (int j = 0; j < 4; j++) {
                        const float value = activation_of(float_of(v[j]), a.bfloat);
                        UNROLL
                        for (int r = 0; r < R; r++)
                            sum[r][t] = fmaf(plain_value<type>(w[r], half + j), value, sum[r][t]);
                    }
                }
            }
        }
        for (int64_t i = whole + lane(); i < a.k; i += WARP) {
            UNROLL
            for (int t = 0; t < T; t++) {
                UNROLL
                for (int r = 0; r < R; r++)
                    sum[r][t] = fmaf(plain_at<type>(from[r], i), activation_of(x[t][i], a.bfloat), sum[r][t]);
            }
        }
        UNROLL
        for (int r = 0; r < R; r++) {
            UNROLL
            for (int t = 0; t < T; t++)
                sum[r][t] = warp_sum(sum[r][t]);
        }
        leave_sums<T, R>(a, sum, row, token, a.out.rounded.q ? kept + in_block : NULL);
    }
    if (a.out.rounded.q)
        leave_rounded<T>(a, kept, (int64_t)block_x() * GROUP, token);
}

/* -------------------------------------------------------------------------------- launching -- */

typedef int launch_matvec(struct cuda_stream *stream, const cuda_matvec &a);

/* passes of `pass` weight rows for each block, T tokens. */
static grid grid_for(const cuda_matvec &a, int T, int pass, int passes)
{
    const int64_t rows = (int64_t)pass * passes;
    return GRID((a.n + rows - 1) / rows, (a.n_tokens + T - 1) / T, 1);
}

/* Of a block. */
template <cuda_type type, int T> static int passes_of(const cuda_matvec &a)
{
    return a.out.rounded.q ? (int)division<type, T>::passes : 1;
}

template <cuda_type type, int T> static int launch_blocks(struct cuda_stream *stream, const cuda_matvec &a)
{
    const int passes = passes_of<type, T>(a);
    const grid g = grid_for(a, T, division<type, T>::pass, passes);
    return LAUNCH(stream, (matvec_blocks<type, T>), g, THREADS, 0, a, passes);
}

template <cuda_type type, int T> static int launch_plain(struct cuda_stream *stream, const cuda_matvec &a)
{
    const int passes = passes_of<type, T>(a);
    const grid g = grid_for(a, T, division<type, T>::pass, passes);
    uintptr_t places =
        (uintptr_t)a.weights | (uintptr_t)a.row_bytes | (uintptr_t)a.x | (uintptr_t)a.x_stride * sizeof(float);
    if (places % 16 == 0)
        return LAUNCH(stream, (matvec_plain<type, T, true>), g, THREADS, 0, a, passes);
    return LAUNCH(stream, (matvec_plain<type, T, false>), g, THREADS, 0, a, passes);
}

/* By type and number of tokens. */
#define TOKEN_COUNTS(launch, type)                                                                                     \
    {                                                                                                                  \
        launch<type, 1>, launch<type, 2>, launch<type, 3>, launch<type, 4>                                             \
    }
static const struct {
    cuda_type type;
    launch_matvec *launch[TOKENS];
} launches[] = {{CUDA_F32, TOKEN_COUNTS(launch_plain, CUDA_F32)},
                {CUDA_F16, TOKEN_COUNTS(launch_plain, CUDA_F16)},
                {CUDA_BF16, TOKEN_COUNTS(launch_plain, CUDA_BF16)},
#define ROW(type) {CUDA_##type, TOKEN_COUNTS(launch_blocks, CUDA_##type)},
                EACH_BLOCK_TYPE(ROW)
#undef ROW
};

int geul_cuda_launch_matvec(struct cuda_stream *stream, const void *args)
{
    const struct cuda_matvec *a = (const struct cuda_matvec *)args;
    if (a->n_tokens <= 0 || a->n <= 0)
        return 0;
    int tokens = a->n_tokens < TOKENS ? (int)a->n_tokens : TOKENS;
    for (size_t i = 0; i < sizeof launches / sizeof *launches; i++)
        if (launches[i].type == a->type)
            return launches[i].launch[tokens - 1](stream, *a);
    return 1; /* cudaErrorInvalidValue: no such type of weights */
}

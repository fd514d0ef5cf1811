/* elementwise.cu: see elementwise.h. A thread takes one quad; memory bounds it all. */
#include "backends/cuda/elementwise.h"

#include "backends/cuda/activations.h"
#include "backends/cuda/quads.h"
#include "backends/cuda/round_group.h"

enum { THREADS = 256, SEGMENT = 1024 };

/* -------------------------------------------------------------------------------------- random -- */

/* geul_random_key() and geul_random_element() of core/random.h. */
DEVICE uint64_t random_key(uint64_t key, uint64_t i)
{
    uint64_t h = key + (i + 1) * 0x9e3779b97f4a7c15u;
    h = (h ^ h >> 29) * 0x6a09e667f3bcc909u;
    h = (h ^ h >> 32) * 0xbb67ae8584caa73bu;
    return h ^ h >> 31;
}

DEVICE uint32_t random_element(uint64_t key, uint32_t i)
{
    uint32_t h = (i + (uint32_t)key) * 0x9e3779b1u;
    h = (h ^ h >> 15 ^ (uint32_t)(key >> 32)) * 0x6a09e667u;
    h = (h ^ h >> 13) * 0xbb67ae85u;
    return h ^ h >> 16;
}

/* Element i of the row-major order: a key for each segment of 1024, as the CPU draws them. */
DEVICE bool is_dropped(const cuda_elementwise &a, int64_t i)
{
    uint64_t seed = (uint64_t)a.seed[1] << 32 | a.seed[0];
    uint64_t key = random_key(random_key(seed, a.salt), (uint64_t)i / SEGMENT);
    return random_element(key, (uint32_t)(i % SEGMENT)) < a.limit;
}

/* ------------------------------------------------------------------------------------ elements -- */

DEVICE float clamp(float x, float limit)
{
    return x < -limit ? -limit : x > limit ? limit : x;
}

/* The slopes, as the CPU has them: beyond the limits both ends are reached. */
DEVICE float gelu_erf_slope(float x)
{
    float v = clamp(x, 14);
    return 0.5f * erfcf(v * -0.70710678118654752f) + v * 0.39894228f * expf(-0.5f * v * v);
}

DEVICE float gelu_tanh_slope(float x)
{
    float v = clamp(x, 10), square = v * v;
    float e = expf(1.59576912f * v * (1 + 0.044715f * square)), rest = 1 / (1 + e), s = e * rest;
    return s + v * s * rest * 1.59576912f * (1 + 0.134145f * square);
}

/* Number i of the row-major order. */
template <int kind> DEVICE float element(const cuda_elementwise &args, float a, float b, int64_t i)
{
    if (kind == CUDA_ADD)
        return a + b;
    if (kind == CUDA_SCALE)
        return a * args.factor;
    if (kind == CUDA_GELU)
        return activate(a, args.activation);
    if (kind == CUDA_GELU_BACK)
        return a * (args.activation == CUDA_GELU_ERF ? gelu_erf_slope(b) : gelu_tanh_slope(b));
    if (kind == CUDA_DROPOUT)
        return is_dropped(args, i) ? 0 : a * args.factor;
    return kind == CUDA_COPY ? a : 0;
}

template <cuda_type type> DEVICE float value_at(const void *p, int64_t i)
{
    if (type == CUDA_F16)
        return half_to_float(((const uint16_t *)p)[i]);
    if (type == CUDA_BF16)
        return bfloat_to_float(((const uint16_t *)p)[i]);
    return ((const float *)p)[i];
}

/* The quad at column `col` of a row that begins at element `row` of the operand. */
template <cuda_type type>
DEVICE quad load_operand(const cuda_operand &o, int64_t row, int64_t col, int64_t left, bool aligned)
{
    if (type == CUDA_F32 && o.step == 1)
        return load_quad((const float *)o.data + row + col, left, aligned);
    quad q;
    for (int j = 0; j < QUAD; j++)
        q.v[j] = j < left ? value_at<type>(o.data, row + (col + j) * o.step) : 0;
    return q;
}

DEVICE void store_operand(const cuda_operand &o, int64_t row, int64_t col, const quad &q, int64_t left, bool aligned)
{
    float *p = (float *)o.data + row;
    if (o.step == 1) {
        store_quad(p + col, q, left, aligned);
        return;
    }
    for (int j = 0; j < QUAD; j++)
        if (j < left)
            p[(col + j) * o.step] = q.v[j];
}

/* Which quad a thread has. Those behind the last one stay to the end, since rounding takes whole warps. */
struct position {
    int64_t row, col;
    bool there;
};

DEVICE position position_of(int64_t n_rows, int64_t n_cols)
{
    int64_t i = (int64_t)block_x() * THREADS + thread(), per_row = (n_cols + QUAD - 1) / QUAD;
    position p = {0, 0, i < n_rows * per_row};
    if (!p.there)
        return p;
    if (n_rows == 1)
        p.col = i;
    else
        divide(i, per_row, &p.row, &p.col);
    p.col *= QUAD;
    return p;
}

template <int kind, cuda_type type> KERNEL(THREADS, 4) void elementwise(cuda_elementwise args)
{
    const position p = position_of(args.n_rows, args.n_cols);
    const int64_t left = p.there ? args.n_cols - p.col : 0;
    quad a = {{0, 0, 0, 0}}, b = {{0, 0, 0, 0}}, y;
    if (kind != CUDA_ZERO)
        a = load_operand<type>(args.a, row_offset(p.row, args.leading, args.a.stride), p.col, left, args.aligned);
    if (kind == CUDA_ADD || kind == CUDA_GELU_BACK)
        b = load_operand<CUDA_F32>(args.b, row_offset(p.row, args.leading, args.b.stride), p.col, left, args.aligned);
    const int64_t at = p.row * args.n_cols + p.col;
    for (int j = 0; j < QUAD; j++)
        y.v[j] = element<kind>(args, a.v[j], b.v[j], at + j);
    if (kind != CUDA_GELU || !args.no_out)
        store_operand(args.out, row_offset(p.row, args.leading, args.out.stride), p.col, y, left, args.aligned);
    if (kind == CUDA_GELU && args.rounded.q)
        round_quad(y.v, args.rounded, at, p.there);
}

/* ---------------------------------------------------------------------------------------- sums -- */

KERNEL(THREADS, 4) void accumulate(cuda_accumulate args)
{
    const position p = position_of(args.n_rows, args.n_cols);
    const int64_t left = p.there ? args.n_cols - p.col : 0;
    const int64_t out = row_offset(p.row, args.leading, args.out.stride);
    const int64_t x = row_offset(p.row, args.leading, args.x.stride);
    quad sum = load_operand<CUDA_F32>(args.out, out, p.col, left, args.aligned);
    for (int64_t i = 0; p.there && i < args.times; i++) {
        int64_t from = x + row_offset(i, args.over, args.over_stride);
        quad q = load_operand<CUDA_F32>(args.x, from, p.col, left, args.aligned);
        for (int j = 0; j < QUAD; j++)
            sum.v[j] += q.v[j];
    }
    store_operand(args.out, out, p.col, sum, left, args.aligned);
}

/* -------------------------------------------------------------------------------------- launch -- */

static bool operand_aligned(const cuda_operand &o)
{
    return !o.data || (o.step == 1 && is_aligned(o.data, o.stride));
}

static grid blocks_of(int64_t n_rows, int64_t n_cols)
{
    return GRID((n_rows * ((n_cols + QUAD - 1) / QUAD) + THREADS - 1) / THREADS, 1, 1);
}

template <int kind, cuda_type type> static int launch(struct cuda_stream *stream, const cuda_elementwise &a)
{
    return LAUNCH(stream, (elementwise<kind, type>), blocks_of(a.n_rows, a.n_cols), THREADS, 0, a);
}

int geul_cuda_launch_elementwise(struct cuda_stream *stream, const void *args)
{
    static const struct {
        int kind;
        cuda_type type;
        int (*launch)(struct cuda_stream *stream, const cuda_elementwise &a);
    } launches[] = {
        {CUDA_ADD, CUDA_F32, launch<CUDA_ADD, CUDA_F32>},
        {CUDA_SCALE, CUDA_F32, launch<CUDA_SCALE, CUDA_F32>},
        {CUDA_GELU, CUDA_F32, launch<CUDA_GELU, CUDA_F32>},
        {CUDA_GELU_BACK, CUDA_F32, launch<CUDA_GELU_BACK, CUDA_F32>},
        {CUDA_DROPOUT, CUDA_F32, launch<CUDA_DROPOUT, CUDA_F32>},
        {CUDA_COPY, CUDA_F32, launch<CUDA_COPY, CUDA_F32>},
        {CUDA_COPY, CUDA_F16, launch<CUDA_COPY, CUDA_F16>},
        {CUDA_COPY, CUDA_BF16, launch<CUDA_COPY, CUDA_BF16>},
        {CUDA_ZERO, CUDA_F32, launch<CUDA_ZERO, CUDA_F32>},
    };
    cuda_elementwise a = *(const cuda_elementwise *)args;
    a.aligned = operand_aligned(a.out) && operand_aligned(a.a) && operand_aligned(a.b);
    for (size_t i = 0; i < sizeof launches / sizeof *launches; i++)
        if (launches[i].kind == (int)a.kind && launches[i].type == a.type)
            return launches[i].launch(stream, a);
    return 1; /* cudaErrorInvalidValue */
}

int geul_cuda_launch_accumulate(struct cuda_stream *stream, const void *args)
{
    cuda_accumulate a = *(const cuda_accumulate *)args;
    a.aligned = operand_aligned(a.out) && operand_aligned(a.x) && is_aligned(nullptr, a.over_stride);
    return LAUNCH(stream, accumulate, blocks_of(a.n_rows, a.n_cols), THREADS, 0, a);
}

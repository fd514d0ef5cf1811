/* attention_float.h: the attention kernels over the vector type of kernels_float.h, which includes this.
 *
 * A query alone and many queries at once go through different kernels, but every one of their sums is made of the same
 * operations in the same order, so a token's result does not depend on what is computed with it:
 *   score   lane l of a vector sums up the products of elements l, l + VF_WIDTH, ... in order; vf_sums() then adds the
 *           lanes as the same tree for every row. Cached values of every type become float32 exactly.
 *   mix     an element of the result takes the rows one after the other, each by one multiply-add.
 * The including unit says how many queries a score tile takes (VF_QUERIES) and how many vectors a mix tile (VF_MIX),
 * and adds vf_sums(v), the sum of each of VF_WIDTH vectors, and vf_load_i8(p), VF_WIDTH signed bytes as floats. */

enum {
    CHUNK = 32, /* elements that are loaded together: a block of Q8_0 */
    PARTS = CHUNK / VF_WIDTH,
    Q8_0_BLOCK_BYTES = 34,
    TILE_QUERIES = 4, /* of mix_tile, and of keys in score_tile */
};

/* CHUNK elements from element i on, a multiple of CHUNK, of a cached row. */
typedef void chunk_loader(vf *out, const uint8_t *row, size_t i);
/* n < VF_WIDTH elements from element i on. NULL for block types, whose rows end with a whole chunk. */
typedef vf rest_loader(const uint8_t *row, size_t i, size_t n);

INLINE void chunk_f32(vf *out, const uint8_t *row, size_t i)
{
    UNROLL for (size_t j = 0; j < PARTS; j++) out[j] = vf_load((const float *)(const void *)row + i + j * VF_WIDTH);
}

INLINE void chunk_f16(vf *out, const uint8_t *row, size_t i)
{
    UNROLL for (size_t j = 0; j < PARTS; j++) out[j] = vf_load_f16(row + 2 * (i + j * VF_WIDTH));
}

INLINE void chunk_bf16(vf *out, const uint8_t *row, size_t i)
{
    UNROLL for (size_t j = 0; j < PARTS; j++) out[j] = vf_load_bf16(row + 2 * (i + j * VF_WIDTH));
}

/* The products with the scale are exact: 11 bits times 8. */
INLINE void chunk_q8_0(vf *out, const uint8_t *row, size_t i)
{
    const uint8_t *block = row + i / CHUNK * Q8_0_BLOCK_BYTES;
    vf scale = vf_set1(vf_scale_f16(block));
    UNROLL for (size_t j = 0; j < PARTS; j++) out[j] = vf_mul(vf_load_i8(block + 2 + j * VF_WIDTH), scale);
}

INLINE vf rest_f32(const uint8_t *row, size_t i, size_t n)
{
    return vf_load_n((const float *)(const void *)row + i, n);
}

INLINE vf rest_f16(const uint8_t *row, size_t i, size_t n)
{
    return vf_load_f16_n(row + 2 * i, n);
}

INLINE vf rest_bf16(const uint8_t *row, size_t i, size_t n)
{
    return vf_load_bf16_n(row + 2 * i, n);
}

/* The elements after the last whole chunk, VF_WIDTH at a time. */
#define EACH_REST(i, n, depth)                                                                                         \
    for (size_t i = (depth) / CHUNK * CHUNK, n; n = (depth)-i < VF_WIDTH ? (depth)-i : VF_WIDTH, i < (depth);          \
         i += VF_WIDTH)

/* R rows times one query: a vector of partial sums each. */
INLINE void score_rows(vf *sum, const uint8_t *k, size_t stride, const float *q, size_t depth, const int R,
                       size_t chunk_bytes, chunk_loader *load, rest_loader *load_rest)
{
    enum { AHEAD = 2048 }; /* prefetch distance in bytes: further than the hardware prefetches when rows are short */
    UNROLL for (int r = 0; r < R; r++) sum[r] = vf_zero();
    for (size_t i = 0; i + CHUNK <= depth; i += CHUNK) {
        vf x[PARTS];
        chunk_f32(x, (const uint8_t *)q, i);
        UNROLL for (int r = 0; r < R; r++)
        {
            vf row[PARTS];
            __builtin_prefetch(k + (size_t)r * stride + i / CHUNK * chunk_bytes + AHEAD);
            load(row, k + (size_t)r * stride, i);
            UNROLL for (int j = 0; j < PARTS; j++) sum[r] = vf_fma(row[j], x[j], sum[r]);
        }
    }
    if (load_rest)
        EACH_REST(i, n, depth)
        {
            vf x = vf_load_n(q + i, n);
            UNROLL for (int r = 0; r < R; r++) sum[r] = vf_fma(load_rest(k + (size_t)r * stride, i, n), x, sum[r]);
        }
}

INLINE void score_any(float *out, const void *k, size_t stride, const float *q, size_t rows, size_t depth,
                      size_t chunk_bytes, chunk_loader *load, rest_loader *load_rest)
{
    const uint8_t *row = k;
    for (size_t r = 0; r < rows; r += VF_WIDTH) {
        size_t n = rows - r < VF_WIDTH ? rows - r : VF_WIDTH, i = 0;
        vf sum[VF_WIDTH];
        for (; i + 4 <= n; i += 4, row += 4 * stride)
            score_rows(sum + i, row, stride, q, depth, 4, chunk_bytes, load, load_rest);
        for (; i < n; i++, row += stride)
            score_rows(sum + i, row, stride, q, depth, 1, chunk_bytes, load, load_rest);
        for (; i < VF_WIDTH; i++)
            sum[i] = vf_zero();
        vf_store_n(out + r, vf_sums(sum), n);
    }
}

/* C chunks of the result from element i on: all rows. */
INLINE void mix_chunks(float *out, const uint8_t *v, size_t stride, const float *p, size_t rows, size_t i, const int C,
                       size_t chunk_bytes, chunk_loader *load)
{
    enum { MOST = 4, AHEAD = 2048 };
    vf sum[MOST][PARTS];
    UNROLL for (size_t c = 0; c < (size_t)C; c++) chunk_f32(sum[c], (const uint8_t *)out, i + c * CHUNK);
    for (size_t r = 0; r < rows; r++, v += stride) {
        vf weight = vf_set1(p[r]);
        UNROLL for (size_t c = 0; c < (size_t)C; c++)
        {
            vf row[PARTS];
            __builtin_prefetch(v + (i / CHUNK + c) * chunk_bytes + AHEAD);
            load(row, v, i + c * CHUNK);
            UNROLL for (int j = 0; j < PARTS; j++) sum[c][j] = vf_fma(weight, row[j], sum[c][j]);
        }
    }
    UNROLL for (size_t c = 0; c < (size_t)C; c++) UNROLL for (size_t j = 0; j < PARTS; j++)
        vf_store(out + i + c * CHUNK + j * VF_WIDTH, sum[c][j]);
}

INLINE void mix_any(float *out, const void *v, size_t stride, const float *p, size_t rows, size_t depth,
                    size_t chunk_bytes, chunk_loader *load, rest_loader *load_rest)
{
    enum { WIDE = VF_WIDTH == 16 ? 4 : 2 }; /* chunks in registers */
    size_t i = 0;
    for (; i + WIDE * CHUNK <= depth; i += WIDE * CHUNK)
        mix_chunks(out, v, stride, p, rows, i, WIDE, chunk_bytes, load);
    for (; i + CHUNK <= depth; i += CHUNK)
        mix_chunks(out, v, stride, p, rows, i, 1, chunk_bytes, load);
    if (load_rest)
        EACH_REST(from, n, depth)
        {
            vf sum = vf_load_n(out + from, n);
            for (size_t r = 0; r < rows; r++)
                sum = vf_fma(vf_set1(p[r]), load_rest(at(v, r, stride), from, n), sum);
            vf_store_n(out + from, sum, n);
        }
}

INLINE void widen_any(float *out, const void *x, size_t stride, size_t rows, size_t depth, chunk_loader *load,
                      rest_loader *load_rest)
{
    for (size_t r = 0; r < rows; r++, out += depth) {
        const uint8_t *row = at(x, r, stride);
        for (size_t i = 0; i + CHUNK <= depth; i += CHUNK) {
            vf values[PARTS];
            load(values, row, i);
            UNROLL for (size_t j = 0; j < PARTS; j++) vf_store(out + i + j * VF_WIDTH, values[j]);
        }
        if (load_rest)
            EACH_REST(i, n, depth) vf_store_n(out + i, load_rest(row, i, n), n);
    }
}

/* The three kernels of one type of cache. */
#define ATTENTION_KERNELS(type, chunk_bytes, rest)                                                                     \
    static void score_##type(float *out, const void *k, size_t stride, const float *q, size_t rows, size_t depth)      \
    {                                                                                                                  \
        score_any(out, k, stride, q, rows, depth, chunk_bytes, chunk_##type, rest);                                    \
    }                                                                                                                  \
    static void mix_##type(float *out, const void *v, size_t stride, const float *p, size_t rows, size_t depth)        \
    {                                                                                                                  \
        mix_any(out, v, stride, p, rows, depth, chunk_bytes, chunk_##type, rest);                                      \
    }                                                                                                                  \
    static void widen_##type(float *out, const void *x, size_t stride, size_t rows, size_t depth)                      \
    {                                                                                                                  \
        widen_any(out, x, stride, rows, depth, chunk_##type, rest);                                                    \
    }
ATTENTION_KERNELS(f32, CHUNK * sizeof(float), rest_f32)
ATTENTION_KERNELS(f16, CHUNK * 2, rest_f16)
ATTENTION_KERNELS(bf16, CHUNK * 2, rest_bf16)
ATTENTION_KERNELS(q8_0, Q8_0_BLOCK_BYTES, NULL)
#undef ATTENTION_KERNELS

/* VF_QUERIES queries times 4 keys. */
INLINE void score_block(float *out, size_t out_stride, const float *q, const float *k, size_t depth)
{
    vf sum[VF_QUERIES * TILE_QUERIES];
    UNROLL for (int j = 0; j < VF_QUERIES * TILE_QUERIES; j++) sum[j] = vf_zero();
    for (size_t i = 0; i + VF_WIDTH <= depth; i += VF_WIDTH) {
        vf key[TILE_QUERIES];
        UNROLL for (size_t j = 0; j < TILE_QUERIES; j++) key[j] = vf_load(k + j * depth + i);
        UNROLL for (size_t t = 0; t < VF_QUERIES; t++)
        {
            vf x = vf_load(q + t * depth + i);
            UNROLL for (size_t j = 0; j < TILE_QUERIES; j++) sum[t * TILE_QUERIES + j] =
                vf_fma(key[j], x, sum[t * TILE_QUERIES + j]);
        }
    }
    if (depth % VF_WIDTH) {
        size_t i = depth / VF_WIDTH * VF_WIDTH, n = depth - i;
        UNROLL for (size_t t = 0; t < VF_QUERIES; t++)
        {
            vf x = vf_load_n(q + t * depth + i, n);
            UNROLL for (size_t j = 0; j < TILE_QUERIES; j++) sum[t * TILE_QUERIES + j] =
                vf_fma(vf_load_n(k + j * depth + i, n), x, sum[t * TILE_QUERIES + j]);
        }
    }
    UNROLL for (size_t j = 0; j < VF_QUERIES * TILE_QUERIES; j += VF_WIDTH)
    {
        float scores[VF_WIDTH];
        vf_store(scores, vf_sums(sum + j));
        UNROLL for (size_t t = 0; t < VF_WIDTH / TILE_QUERIES; t++)
            memcpy(out + (j / TILE_QUERIES + t) * out_stride, scores + t * TILE_QUERIES, TILE_QUERIES * sizeof *scores);
    }
}

static void score_tile(float *out, size_t out_stride, const float *q, size_t queries, const float *k, size_t keys,
                       size_t depth)
{
    enum { NEAR = 16 }; /* keys that stay in the first-level cache while the queries pass */
    for (size_t k0 = 0; k0 < keys; k0 += NEAR)
        for (size_t t = 0; t < queries; t += VF_QUERIES)
            for (size_t j = k0; j < keys && j < k0 + NEAR; j += TILE_QUERIES)
                score_block(out + t * out_stride + j, out_stride, q + t * depth, k + j * depth, depth);
}

/* 4 queries, V vectors of the result, of which the last holds n elements. */
INLINE void mix_block(float *out, size_t depth, const float *v, const float *p, size_t p_stride, size_t p_step,
                      size_t keys, const int V, const bool whole, size_t n)
{
    vf sum[TILE_QUERIES][VF_MIX];
    UNROLL for (size_t t = 0; t < TILE_QUERIES; t++) UNROLL for (size_t j = 0; j < (size_t)V; j++)
    {
        float *from = out + t * depth + j * VF_WIDTH;
        sum[t][j] = whole ? vf_load(from) : vf_load_n(from, n);
    }
    for (size_t r = 0; r < keys; r++, v += depth, p += p_step) {
        vf row[VF_MIX];
        UNROLL for (size_t j = 0; j < (size_t)V; j++) row[j] =
            whole ? vf_load(v + j * VF_WIDTH) : vf_load_n(v + j * VF_WIDTH, n);
        UNROLL for (size_t t = 0; t < TILE_QUERIES; t++)
        {
            vf weight = vf_set1(p[t * p_stride]);
            UNROLL for (size_t j = 0; j < (size_t)V; j++) sum[t][j] = vf_fma(weight, row[j], sum[t][j]);
        }
    }
    UNROLL for (size_t t = 0; t < TILE_QUERIES; t++) UNROLL for (size_t j = 0; j < (size_t)V; j++)
    {
        float *to = out + t * depth + j * VF_WIDTH;
        if (whole)
            vf_store(to, sum[t][j]);
        else
            vf_store_n(to, sum[t][j], n);
    }
}

/* Column by column, so that a strip of the values stays in the first-level cache while the queries pass. */
static void mix_tile(float *out, const float *v, const float *p, size_t p_stride, size_t p_step, size_t queries,
                     size_t keys, size_t depth)
{
    for (size_t i = 0, width; i < depth; i += width) {
        size_t left = depth - i;
        width = left >= VF_MIX * VF_WIDTH ? VF_MIX * VF_WIDTH : VF_WIDTH;
        for (size_t t = 0; t < queries; t += TILE_QUERIES) {
            float *to = out + t * depth + i;
            if (left >= VF_MIX * VF_WIDTH)
                mix_block(to, depth, v + i, p + t * p_stride, p_stride, p_step, keys, VF_MIX, true, 0);
            else
                mix_block(to, depth, v + i, p + t * p_stride, p_stride, p_step, keys, 1, left >= VF_WIDTH, left);
        }
    }
}

static void blend(float *out, float a, const float *x, float b, size_t n)
{
    size_t i = 0;
    for (; i + VF_WIDTH <= n; i += VF_WIDTH)
        vf_store(out + i, vf_fma(vf_load(x + i), vf_set1(b), vf_mul(vf_load(out + i), vf_set1(a))));
    if (i < n) {
        vf old = vf_mul(vf_load_n(out + i, n - i), vf_set1(a));
        vf_store_n(out + i, vf_fma(vf_load_n(x + i, n - i), vf_set1(b), old), n - i);
    }
}

/* The maximum skips NaN, which then reaches the sum. The order of the sum follows from n alone. */
static float softmax(float *s, size_t n, float factor, float *max, float *sum)
{
    float old = *max, new = old, total = 0;
    size_t i = 0;
    vf f = vf_set1(factor), high = vf_set1(old), totals = vf_zero();
    for (; i + VF_WIDTH <= n; i += VF_WIDTH)
        high = vf_max(vf_mul(vf_load(s + i), f), high);
    new = vf_largest(high);
    for (; i < n; i++)
        new = s[i] * factor > new ? s[i] * factor : new;
    vf below = vf_set1(-new);
    for (i = 0; i + VF_WIDTH <= n; i += VF_WIDTH) {
        vf v = vf_exp2(vf_fma(vf_load(s + i), f, below));
        vf_store(s + i, v);
        totals = vf_add(totals, v);
    }
    if (i < n) {
        vf_store_n(s + i, vf_exp2(vf_fma(vf_load_n(s + i, n - i), f, below)), n - i);
        for (; i < n; i++)
            total += s[i];
    }
    float before = old == new ? 1 : exp2f(old - new);
    *max = new;
    *sum = *sum * before + (vf_sum(totals) + total);
    return before;
}

static void softmax_back(float *s, float *dp, size_t n, float factor, float max, float inverse, float delta,
                         float scale)
{
    vf f = vf_set1(factor), below = vf_set1(-max), rest = vf_set1(-delta * scale);
    vf share = vf_set1(inverse), by = vf_set1(scale);
    size_t i = 0;
    for (; i + VF_WIDTH <= n; i += VF_WIDTH) {
        vf p = vf_mul(vf_exp2(vf_fma(vf_load(s + i), f, below)), share);
        vf_store(s + i, p);
        vf_store(dp + i, vf_mul(p, vf_fma(vf_load(dp + i), by, rest)));
    }
    if (i < n) {
        vf p = vf_mul(vf_exp2(vf_fma(vf_load_n(s + i, n - i), f, below)), share);
        vf_store_n(s + i, p, n - i);
        vf_store_n(dp + i, vf_mul(p, vf_fma(vf_load_n(dp + i, n - i), by, rest)), n - i);
    }
}

static void narrow_f16(void *out, const float *x, size_t n)
{
    size_t i = 0;
    for (; i + VF_WIDTH <= n; i += VF_WIDTH)
        vf_store_f16((uint8_t *)out + 2 * i, vf_load(x + i));
    if (i < n)
        geul_encode(GEUL_TYPE_F16, x + i, (uint8_t *)out + 2 * i, (int64_t)(n - i));
}

/* As the reference encodes, which also takes the blocks that are infinite, undefined or next to nothing. Halves are
 * rounded away from zero: a little less than a half is added, and the rest cut off. */
static void narrow_q8_0(void *out, const float *x, size_t n)
{
    const float smallest = 0x1p-100f, half = 0x1.fffffep-2f;
    for (uint8_t *block = out; n >= CHUNK; n -= CHUNK, x += CHUNK, block += Q8_0_BLOCK_BYTES) {
        uint32_t largest = 0, bits[CHUNK];
        memcpy(bits, x, sizeof bits);
        for (int i = 0; i < CHUNK; i++) {
            uint32_t u = bits[i] & 0x7fffffff;
            largest = u > largest ? u : largest;
        }
        float amax;
        memcpy(&amax, &largest, sizeof amax);
        if (largest >= 0x7f800000 || amax < smallest) {
            geul_encode(GEUL_TYPE_Q8_0, x, block, CHUNK);
            continue;
        }
        float d = amax / 127.0f, inverse = 1.0f / d;
        uint16_t h = geul_f32_to_f16(d);
        int8_t q[CHUNK];
        for (int i = 0; i < CHUNK; i++) {
            float v = x[i] * inverse;
            q[i] = (int8_t)(int32_t)(v + copysignf(half, v));
        }
        memcpy(block, &h, sizeof h);
        memcpy(block + 2, q, sizeof q);
    }
}

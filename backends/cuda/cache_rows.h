/* cache_rows.h: for kernels: rows of keys and values. */
#ifndef GEUL_CUDA_CACHE_ROWS_H
#define GEUL_CUDA_CACHE_ROWS_H

#include "backends/cuda/cuda_attention.h"
#include "backends/cuda/blocks.h"
#include "backends/cuda/round_group.h"

enum { OCTET = 8, Q8_0_VALUES = 32, Q8_0_BYTES = 34 };

/* Eight values as they lie in memory; of Q8_0 their codes, then the scale. */
template <cuda_type type> struct octet {
    uint32_t w[type == CUDA_F32 ? 8 : type == CUDA_Q8_0 ? 3 : 4];
};

/* Values at .. at + 7 of a row that lies on 16 bytes, at a multiple of 8. (Rows of Q8_0 lie on 2 bytes.) */
template <cuda_type type> DEVICE octet<type> load_octet(const uint8_t *row, int at)
{
    octet<type> o;
    if constexpr (type == CUDA_Q8_0) {
        const uint8_t *block = row + at / Q8_0_VALUES * Q8_0_BYTES;
        load_words_at_2<2>(block + 2 + at % Q8_0_VALUES, o.w);
        o.w[2] = *(const uint16_t *)block;
    } else {
        UNROLL
        for (int i = 0; i < (type == CUDA_F32 ? 2 : 1); i++) {
            words4 w = load16(row + (type == CUDA_F32 ? 4 : 2) * at + 16 * i);
            UNROLL
            for (int j = 0; j < 4; j++)
                o.w[4 * i + j] = w.w[j];
        }
    }
    return o;
}

template <cuda_type type> DEVICE void widen_octet(float v[OCTET], const octet<type> &o)
{
    UNROLL
    for (int i = 0; i < OCTET; i++) {
        if constexpr (type == CUDA_Q8_0)
            v[i] = half_to_float((uint16_t)o.w[2]) * (float)(int8_t)(o.w[i / 4] >> 8 * (i % 4));
        else if constexpr (type == CUDA_F32)
            v[i] = float_of(o.w[i]);
        else if constexpr (type == CUDA_F16)
            v[i] = half_to_float((uint16_t)(o.w[i / 2] >> 16 * (i % 2)));
        else
            v[i] = bfloat_to_float((uint16_t)(o.w[i / 2] >> 16 * (i % 2)));
    }
}

/* Value i of a row of any alignment. */
DEVICE float value_at(cuda_type type, const uint8_t *row, int i)
{
    if (type == CUDA_F32)
        return ((const float *)row)[i];
    if (type == CUDA_Q8_0) {
        const uint8_t *block = row + i / Q8_0_VALUES * Q8_0_BYTES;
        return half_to_float(*(const uint16_t *)block) * (float)(int8_t)block[2 + i % Q8_0_VALUES];
    }
    uint16_t h = ((const uint16_t *)row)[i];
    return type == CUDA_F16 ? half_to_float(h) : bfloat_to_float(h);
}

/* Where a token's keys (or values) of a head begin, and bytes from position to position; NULL: its place is outside. */
struct cache_walk {
    const uint8_t *first;
    int64_t step;
};

DEVICE cache_walk walk_of(const cuda_cache &c, const int32_t *place, int64_t token, int head)
{
    cache_walk w = {NULL, c.position_stride};
    if (c.n_positions == 0) { /* the tokens themselves */
        if (place[1] >= 0 && place[1] <= token)
            w.first = (const uint8_t *)c.data + (token - place[1]) * c.position_stride + head * c.head_stride;
    } else if (place[0] >= 0 && place[0] < c.n_sequences && place[1] >= 0 && place[1] < c.n_positions) {
        w.first = (const uint8_t *)c.data + place[0] * c.sequence_stride + head * c.head_stride;
    }
    return w;
}

/* Whether all rows lie on 16 bytes, or are blocks. */
static inline bool has_aligned_rows(const cuda_cache &c)
{
    uint64_t places = (uint64_t)(uintptr_t)c.data | (uint64_t)c.sequence_stride | (uint64_t)c.head_stride |
                      (uint64_t)c.position_stride;
    return c.type == CUDA_Q8_0 || places % 16 == 0;
}

/* What makes a dot product an exponent of 2. */
DEVICE float exponent_factor(const cuda_attention &a)
{
    return a.scale * 1.4426950408889634f;
}

/* What a largest score is subtracted as: all may be -infinity. */
DEVICE float finite_or_0(float highest)
{
    return highest == -INFINITY ? 0 : highest;
}

/* Whether this block is the last of n to end that share a counter: then it sees what the others left. order: shared. */
DEVICE bool ends_last(uint32_t *counter, int n, uint32_t *order)
{
    fence();
    barrier();
    if (thread() == 0) {
        order[0] = atomic_add(counter, 1);
        if (order[0] == (uint32_t)n - 1)
            *counter = 0;
    }
    barrier();
    fence();
    return order[0] == (uint32_t)n - 1;
}

/* Leaves 32 values of a result rounded, one a lane, which are elements at .. at + 31 of y. */
DEVICE void round_result(const cuda_attention &a, int64_t at, float v)
{
    float scale;
    int32_t sum;
    int q = round_lane(v, &scale, &sum);
    a.rounded.q[at + lane()] = (int8_t)q;
    if (lane() == 0) {
        a.rounded.scale[at / WARP] = scale;
        a.rounded.sum[at / WARP] = sum;
    }
}

#endif

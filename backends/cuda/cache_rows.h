/* cache_rows.h: for kernels: rows of keys and values, eight values at a time. */
#ifndef GEUL_CUDA_CACHE_ROWS_H
#define GEUL_CUDA_CACHE_ROWS_H

#include "backends/cuda/blocks.h"
#include "backends/cuda/heads.h"

#include <string.h>

enum { OCTET = 8, Q8_0_ROW_BYTES = 34 };

/* Bytes of a row of n values. */
template <cuda_type type> DEVICE int64_t row_bytes(int64_t n)
{
    return type == CUDA_Q8_0 ? n / 32 * Q8_0_ROW_BYTES : type == CUDA_F32 ? 4 * n : 2 * n;
}

DEVICE float float_of(uint32_t bits)
{
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

/* Values at .. at + 7 of a row, at a multiple of 8. whole: rows lie on 16 bytes and their length is a multiple of 8;
 * otherwise those behind n are 0. */
template <cuda_type type, bool whole> DEVICE void load_octet(float v[OCTET], const uint8_t *row, int at, int n)
{
    if constexpr (type == CUDA_Q8_0) {
        const uint8_t *block = row + at / 32 * Q8_0_ROW_BYTES;
        uint32_t w[2];
        load_words_at_2<2>(block + 2 + at % 32, w);
        float d = half_at(block);
        UNROLL
        for (int i = 0; i < OCTET; i++)
            v[i] = d * (float)(int8_t)(w[i / 4] >> 8 * (i % 4));
    } else if constexpr (!whole) {
        UNROLL
        for (int i = 0; i < OCTET; i++) {
            v[i] = 0;
            if (at + i < n && type == CUDA_F32)
                v[i] = ((const float *)row)[at + i];
            else if (at + i < n)
                v[i] = type == CUDA_F16 ? half_to_float(((const uint16_t *)row)[at + i])
                                        : bfloat_to_float(((const uint16_t *)row)[at + i]);
        }
    } else if constexpr (type == CUDA_F32) {
        UNROLL
        for (int i = 0; i < OCTET; i += 4) {
            words4 w = load16(row + 4 * (at + i));
            UNROLL
            for (int j = 0; j < 4; j++)
                v[i + j] = float_of(w.w[j]);
        }
    } else {
        words4 w = load16(row + 2 * at);
        UNROLL
        for (int i = 0; i < OCTET; i++) {
            uint16_t h = (uint16_t)(w.w[i / 2] >> 16 * (i % 2));
            v[i] = type == CUDA_F16 ? half_to_float(h) : bfloat_to_float(h);
        }
    }
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

#endif

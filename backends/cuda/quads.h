/* quads.h: for kernels: four neighbouring elements of a row of float32, as most kernels take them, and where rows lie.
 */
#ifndef GEUL_CUDA_QUADS_H
#define GEUL_CUDA_QUADS_H

#include "backends/cuda/cuda_rows.h"
#include "backends/cuda/warp.h"

enum { QUAD = 4 };

struct alignas(16) quad {
    float v[QUAD];
};

/* The quad at p, of which `left` elements are there (none or less than none: all are 0). aligned: every whole quad that
 * the kernel asks for lies on 16 bytes. */
DEVICE quad load_quad(const float *p, int64_t left, bool aligned)
{
    quad q;
    if (aligned && left >= QUAD)
        return *(const quad *)p;
    for (int j = 0; j < QUAD; j++)
        q.v[j] = j < left ? p[j] : 0;
    return q;
}

DEVICE void store_quad(float *p, const quad &q, int64_t left, bool aligned)
{
    if (aligned && left >= QUAD) {
        *(quad *)p = q;
        return;
    }
    for (int j = 0; j < QUAD; j++)
        if (j < left)
            p[j] = q.v[j];
}

/* i / n and i % n. 64-bit division is slow on cards, and rarely needed. */
DEVICE void divide(int64_t i, int64_t n, int64_t *quotient, int64_t *rest)
{
    if ((i | n) >> 32 == 0) {
        *quotient = (uint32_t)i / (uint32_t)n;
        *rest = (uint32_t)i % (uint32_t)n;
    } else {
        *quotient = i / n;
        *rest = i % n;
    }
}

/* Elements from the first of the tensor to the first of that row. */
DEVICE int64_t row_offset(int64_t row, const cuda_leading &leading, const int64_t stride[CUDA_LEADING])
{
    int64_t offset = 0;
    for (int d = CUDA_LEADING - 1; d >= 0; d--) {
        int64_t at = row, next = 0;
        if (d > 0 && leading.n[d] > 1)
            divide(row, leading.n[d], &next, &at);
        else if (leading.n[d] == 1)
            next = row, at = 0;
        offset += at * stride[d];
        row = next;
    }
    return offset;
}

/* For launches: whether p, with rows that far apart (NULL: packed in quads), lies on 16 bytes everywhere. */
static inline bool is_aligned(const void *p, const int64_t *stride)
{
    bool aligned = (uintptr_t)p % sizeof(quad) == 0;
    for (int d = 0; stride && d < CUDA_LEADING; d++)
        aligned = aligned && stride[d] % QUAD == 0;
    return aligned;
}

#endif

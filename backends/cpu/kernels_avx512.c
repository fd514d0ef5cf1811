/* kernels_avx512.c: AVX-512 F, BW, DQ, VL: the float32 kernels, 16 wide. int8 products stay with AVX2 or VNNI. */
#include <immintrin.h>
#include <stddef.h>
#include <stdint.h>

#define VF_WIDTH   16
#define VF_ROWS    2
#define VF_TOKENS  12
#define VF_QUERIES 4
#define VF_MIX     4
#include "backends/cpu/vector_avx512.h"
#include "backends/cpu/kernels_float.h"
#include "backends/cpu/search_lanes.h"

/* --------------------------------------------------------------------------------- one token -- */

static void copy_token(void *packed, const float *x, size_t k)
{
    memcpy(packed, x, k * sizeof *x);
}

/* rows <= 16 rows, 16 values of each transposed, so that a vector holds one of every row: the sums of the panel, in its
 * order. Beyond rows the last one is read again. */
INLINE void dot_sixteen(float *out, const uint8_t *w, size_t stride, const float *x, size_t k, int rows,
                        const float *start, size_t bytes, loader *load, struct geul_cpu_prefetch *prefetch)
{
    vf sum = start ? vf_load_n(start, (size_t)rows) : vf_zero();
    const uint8_t *next = prefetch->at;
    for (size_t i = 0; i < k; i += 16) {
        vf column[16];
        const uint8_t *row = w + i * bytes;
        UNROLL for (int r = 0; r < 16; r++)
        {
            column[r] = load(row);
            row += r + 1 < rows ? stride : 0;
            if (r < 4 * (int)bytes)
                __builtin_prefetch(next + 64 * r);
        }
        next += 16 * 16 * bytes;
        turn(column, column);
        UNROLL for (size_t j = 0; j < 16; j++) sum = vf_fma(column[j], vf_set1(x[i + j]), sum);
    }
    vf_store_n(out, sum, (size_t)rows);
    prefetch->at = next < prefetch->end ? next : prefetch->end;
}

INLINE void dot_plain(float *out, const uint8_t *w, size_t stride, const float *x, size_t k, int rows,
                      const float *start, size_t bytes, loader *load, struct geul_cpu_prefetch *prefetch)
{
    for (int r = 0; r < rows; r += 16)
        dot_sixteen(out + r, w + (size_t)r * stride, stride, x, k, rows - r < 16 ? rows - r : 16,
                    start ? start + r : NULL, bytes, load, prefetch);
}

static void dot_f32(float *out, const void *w, size_t stride, const void *x, size_t k, int rows, const float *start,
                    struct geul_cpu_prefetch *prefetch)
{
    dot_plain(out, w, stride, x, k, rows, start, sizeof(float), load_any_f32, prefetch);
}

static void dot_f16(float *out, const void *w, size_t stride, const void *x, size_t k, int rows, const float *start,
                    struct geul_cpu_prefetch *prefetch)
{
    dot_plain(out, w, stride, x, k, rows, start, 2, vf_load_f16, prefetch);
}

static const struct geul_cpu_dot f32_dot = {16, 64, copy_token, dot_f32}, f16_dot = {16, 64, copy_token, dot_f16};

const struct geul_cpu_kernels geul_cpu_kernels_avx512 = {
    FLOAT_KERNELS, .search = search, .dot = {[GEUL_TYPE_F32] = &f32_dot, [GEUL_TYPE_F16] = &f16_dot},
    .panel = {FLOAT_PANELS}};

/* kernels_neon.c: NEON as every aarch64 has it: the float32 kernels, 4 wide, and int8 products by widening
 * multiplication: two products of at most 128 * 127 fit int16. */
#include <arm_neon.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define WORD 4
#include "backends/cpu/blocks_neon.h"
#undef UNROLL
#undef INLINE

#define VF_WIDTH  4
#define VF_ROWS   4
#define VF_TOKENS 6
#include "backends/cpu/vector_neon.h"
#include "backends/cpu/kernels_float.h"

/* 8 + 8 bytes times 8 + 8 bytes, pairs of products added. */
static inline int16x8_t sixteen(int8x16_t a, int8x16_t b)
{
    return vmlal_s8(vmull_s8(vget_low_s8(a), vget_low_s8(b)), vget_high_s8(a), vget_high_s8(b));
}

static inline int32x4_t block_product(int8x16x2_t w, int8x16x2_t x)
{
    return vpadalq_s16(vpaddlq_s16(sixteen(w.val[0], x.val[0])), sixteen(w.val[1], x.val[1]));
}

/* A vector of weights holds 4 bytes of 4 rows; two steps are added in int16, the pairs of a row in the end. */
static inline void tile_products(int32x4_t product[NR][2], const struct weights *w, const struct tokens *x)
{
    for (int v = 0; v < 2; v++)
        for (int t = 0; t < NR; t++) {
            int32x4_t low = vdupq_n_s32(0), high = low;
            UNROLL for (int s = 0; s < BLOCK / WORD; s += 2)
            {
                int8x16_t a = vld1q_s8(w->q[s][4 * v]), b = vld1q_s8(w->q[s + 1][4 * v]);
                int32_t fours[2];
                memcpy(&fours[0], x->q[s][t], 4);
                memcpy(&fours[1], x->q[s + 1][t], 4);
                int8x8_t c = vreinterpret_s8_s32(vdup_n_s32(fours[0])), d = vreinterpret_s8_s32(vdup_n_s32(fours[1]));
                low = vpadalq_s16(low, vmlal_s8(vmull_s8(vget_low_s8(a), c), vget_low_s8(b), d));
                high = vpadalq_s16(high, vmlal_s8(vmull_s8(vget_high_s8(a), c), vget_high_s8(b), d));
            }
            product[t][v] = vpaddq_s32(low, high);
        }
}

const struct geul_cpu_kernels geul_cpu_kernels_neon = {FLOAT_KERNELS, .dot = {FLOAT_DOTS, BLOCK_DOTS},
                                                       .panel = {FLOAT_PANELS, BLOCK_PANELS}};

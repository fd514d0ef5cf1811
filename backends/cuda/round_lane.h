/* round_lane.h: for kernels: 32 values rounded to int8 as one group, a value to each lane of a warp. */
#ifndef GEUL_CUDA_ROUND_LANE_H
#define GEUL_CUDA_ROUND_LANE_H

#include "backends/cuda/warp.h"

#include <string.h>

/* Rounds v as the CPU does, to q = v * 127 / amax and the scale amax / 127 of the group; a group with NaN or infinity
 * has the scale NaN, and one of zeros, or of numbers below 2^-100, the scale 0. All lanes get scale and sum. */
DEVICE int round_lane(float v, float *scale, int32_t *sum)
{
    uint32_t bits;
    memcpy(&bits, &v, sizeof bits);
    int32_t largest =
        (int32_t)(bits & 0x7fffffff); /* as integers magnitudes have the order of floats, NaN the highest */
    for (int mask = WARP / 2; mask > 0; mask /= 2) {
        int32_t other = shuffle_xor(largest, mask);
        largest = other > largest ? other : largest;
    }
    float amax;
    memcpy(&amax, &largest, sizeof amax);
    bool finite = largest < 0x7f800000, zero = !(amax >= 0x1p-100f);
    int q = finite && !zero ? round_to_int(v * (127.0f / amax)) : 0;
    *scale = !finite ? NAN : zero ? 0 : amax / 127.0f;
    *sum = warp_sum(q);
    return q;
}

#endif

/* round_quad.h: for kernels: rows rounded to int8 in the epilogue of what computes them (cuda.h: struct cuda_rounded).
 */
#ifndef GEUL_CUDA_ROUND_QUAD_H
#define GEUL_CUDA_ROUND_QUAD_H

#include "backends/cuda/results.h"
#include "backends/cuda/warp.h"

#include <string.h>

enum { ROUND_GROUP = 32 };

/* Rounds the 32 values of a group, four in each of 8 neighbouring lanes of which the first is a multiple of 8: q = v *
 * 127 / amax, as round_lane(). at: the number of this lane's first value among all of the rows. Every lane of the warp
 * comes here; groups are there, or not, as a whole. */
DEVICE void round_quad(const float v[4], const cuda_int8_rows &out, int64_t at, bool there)
{
    int32_t largest = 0; /* as integers magnitudes have the order of floats, with NaN above infinity */
    for (int j = 0; j < 4; j++) {
        int32_t bits;
        memcpy(&bits, &v[j], sizeof bits);
        bits &= 0x7fffffff;
        largest = bits > largest ? bits : largest;
    }
    for (int mask = 4; mask > 0; mask /= 2) {
        int32_t other = shuffle_xor(largest, mask);
        largest = other > largest ? other : largest;
    }
    float amax;
    memcpy(&amax, &largest, sizeof amax);
    bool finite = largest < 0x7f800000, zero = !(amax >= 0x1p-100f);
    float inverse = 127.0f / amax;
    uint32_t word = 0;
    int32_t total = 0;
    for (int j = 0; j < 4 && finite && !zero; j++) {
        int32_t rounded = round_to_int(v[j] * inverse);
        word |= (uint32_t)(uint8_t)rounded << (8 * j);
        total += rounded;
    }
    total = warp_sum<8>(total);
    if (!there)
        return;
    memcpy(out.q + at, &word, sizeof word);
    if (lane() % 8 == 0) {
        out.scale[at / ROUND_GROUP] = !finite ? NAN : zero ? 0 : amax / 127.0f;
        out.sum[at / ROUND_GROUP] = total;
    }
}

#endif

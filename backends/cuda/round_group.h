/* round_group.h: for kernels: groups of 32 values rounded to int8 as the CPU rounds them, in the epilogue of what
 * computes them (cuda.h: struct cuda_int8_rows): to q = v * 127 / amax and the scale amax / 127. A group with NaN or
 * infinity has the scale NaN; one of zeros, or of numbers below 2^-100, the scale 0. Their q are 0. */
#ifndef GEUL_CUDA_ROUND_GROUP_H
#define GEUL_CUDA_ROUND_GROUP_H

#include "backends/cuda/results.h"
#include "backends/cuda/warp.h"

enum { ROUND_GROUP = 32 };

/* |v| as an integer: magnitudes have the order of floats then, with NaN above infinity, where fmaxf() would drop it. */
DEVICE int32_t magnitude(float v)
{
    return (int32_t)(bits_of(v) & 0x7fffffff);
}

/* The largest over `width` neighbouring lanes, for all of them. */
template <int width> DEVICE int32_t largest_of(int32_t v)
{
    UNROLL
    for (int mask = width / 2; mask > 0; mask /= 2) {
        int32_t other = shuffle_xor(v, mask);
        v = other > v ? other : v;
    }
    return v;
}

/* How a group is rounded whose largest magnitude is known. */
struct group_rounding {
    float scale, inverse; /* inverse 0: every q is 0 */
};

DEVICE group_rounding rounding_for(int32_t largest)
{
    const float amax = float_of((uint32_t)largest);
    const bool finite = largest < 0x7f800000, zero = !(amax >= 0x1p-100f);
    group_rounding r = {!finite ? NAN : zero ? 0 : amax / 127.0f, finite && !zero ? 127.0f / amax : 0};
    return r;
}

DEVICE int round_value(float v, const group_rounding &r)
{
    return r.inverse > 0 ? round_to_int(v * r.inverse) : 0; /* an infinite v times 0 would be NaN */
}

/* A value to each lane of a warp. All lanes get scale and sum. */
DEVICE int round_lane(float v, float *scale, int32_t *sum)
{
    const group_rounding r = rounding_for(largest_of<WARP>(magnitude(v)));
    const int q = round_value(v, r);
    *scale = r.scale;
    *sum = warp_sum(q);
    return q;
}

/* Four values to each of 8 neighbouring lanes, which are stored: at is the number of this lane's first value among all
 * of the rows. Every lane of the warp comes here; groups are there, or not, as a whole. */
DEVICE void round_quad(const float v[4], const cuda_int8_rows &out, int64_t at, bool there)
{
    int32_t largest = 0;
    UNROLL
    for (int j = 0; j < 4; j++) {
        const int32_t size = magnitude(v[j]);
        largest = size > largest ? size : largest;
    }
    const group_rounding r = rounding_for(largest_of<8>(largest));
    uint32_t word = 0;
    int32_t total = 0;
    UNROLL
    for (int j = 0; j < 4; j++) {
        const int q = round_value(v[j], r);
        word |= (uint32_t)(uint8_t)q << 8 * j;
        total += q;
    }
    total = warp_sum<8>(total);
    if (!there)
        return;
    memcpy(out.q + at, &word, sizeof word);
    if (lane() % 8 == 0) {
        out.scale[at / ROUND_GROUP] = r.scale;
        out.sum[at / ROUND_GROUP] = total;
    }
}

#endif

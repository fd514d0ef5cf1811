/* block_choose.c: see block_choose.h. */
#include "core/block_choose.h"

#include <math.h>
#include <string.h>

#define LARGEST_F16 65520.0 /* from here on float16 rounds to infinity */

/* The value of largest magnitude among n, with its sign; NaN when one is not finite. */
static float extreme_of(const float *x, int n)
{
    float extreme = 0;
    for (int i = 0; i < n; i++) {
        if (!isfinite(x[i]))
            return NAN;
        if (fabsf(x[i]) > fabsf(extreme))
            extreme = x[i];
    }
    return extreme;
}

/* What the smallest integers give under scale d, for a block that is not to be, or is, finite. */
static void flat(const struct geul_block_format *f, float d, struct geul_block *block)
{
    block->d = d;
    block->m = 0;
    for (int g = 0; g < f->block / f->group; g++) {
        block->scale[g] = (int16_t)f->scale_high;
        block->min[g] = f->min_high == 1;
    }
    memset(block->q, 0, (size_t)f->block * sizeof *block->q);
}

static int clamp(double x, int low, int high)
{
    return x >= high ? high : x > low ? (int)x : low; /* a NaN gives low */
}

void geul_choose_nearest(const struct geul_block_format *f, const float *x, struct geul_block *block)
{
    float d = fabsf(extreme_of(x, f->block)) / (float)f->q_high;
    float inverse = d > 0 ? 1.0f / d : 0.0f;
    flat(f, d, block);
    for (int i = 0; i < f->block; i++)
        block->q[i] = (int16_t)clamp((double)roundf(x[i] * inverse), f->q_low, f->q_high);
}

/* The whole number below x * inverse + offset, each operation rounded to float32 as gguf does. The way over double
 * gives the same roundings and keeps compilers from fusing the two. */
static int code_of(float x, float inverse, float offset, int high)
{
    float product = (float)((double)x * (double)inverse);
    return clamp((double)(float)((double)product + (double)offset), 0, high);
}

void geul_choose_extreme(const struct geul_block_format *f, const float *x, struct geul_block *block)
{
    float d = extreme_of(x, f->block) / (float)f->q_low;
    float inverse = d != 0 ? 1.0f / d : 0.0f;
    flat(f, d, block);
    for (int i = 0; i < f->block; i++)
        block->q[i] = (int16_t)(code_of(x[i], inverse, 0.5f - (float)f->q_low, f->q_high - f->q_low) + f->q_low);
}

void geul_choose_affine(const struct geul_block_format *f, const float *x, struct geul_block *block)
{
    float low = x[0], high = x[0];
    for (int i = 1; i < f->block; i++) {
        low = x[i] < low ? x[i] : low;
        high = x[i] > high ? x[i] : high;
    }
    float d = isnan(extreme_of(x, f->block)) ? NAN : (high - low) / (float)f->q_high;
    float inverse = d != 0 ? 1.0f / d : 0.0f;
    flat(f, d, block);
    block->m = -low;
    for (int i = 0; i < f->block; i++)
        block->q[i] = (int16_t)code_of(x[i] - low, inverse, 0.5f, f->q_high);
}

/* The float16 scale for steps of which the largest is most >= 0 and gets the integer high: rounded up where rounding
 * down (only among float16's smallest) would leave the largest out of reach. Infinite when float16 cannot hold it. */
static float super_scale(double most, int high)
{
    if (most / high >= LARGEST_F16)
        return INFINITY;
    uint16_t h = geul_f32_to_f16((float)(most / high));
    while ((double)geul_f16_to_f32(h) * (high + 0.5) < most)
        h++;
    return geul_f16_to_f32(h);
}

/* numerator / denominator, 0 for a denominator of 0. */
static double ratio(double numerator, double denominator)
{
    return denominator != 0 ? numerator / denominator : 0;
}

void geul_choose_offset(const struct geul_block_format *f, const float *x, struct geul_block *block)
{
    double step[GEUL_GROUPS_MAX], below[GEUL_GROUPS_MAX], most_step = 0, most_below = 0;
    int n_groups = f->block / f->group;
    for (int g = 0; g < n_groups; g++) {
        double low = 0, high = (double)x[g * f->group];
        for (int i = 0; i < f->group; i++) {
            low = fmin(low, (double)x[g * f->group + i]);
            high = fmax(high, (double)x[g * f->group + i]);
        }
        step[g] = (high - low) / f->q_high;
        below[g] = -low;
        most_step = fmax(most_step, step[g]);
        most_below = fmax(most_below, below[g]);
    }
    bool finite = !isnan(extreme_of(x, f->block));
    flat(f, finite ? super_scale(most_step, f->scale_high) : NAN, block);
    block->m = finite ? super_scale(most_below, f->min_high) : 0;
    for (int g = 0; finite && g < n_groups; g++) {
        int scale = clamp(rint(ratio(step[g], (double)block->d)), 0, f->scale_high);
        int min = clamp(rint(ratio(below[g], (double)block->m)), 0, f->min_high);
        double d = (double)block->d * scale, m = (double)block->m * min;
        block->scale[g] = (int16_t)scale;
        block->min[g] = (int16_t)min;
        for (int i = g * f->group; i < (g + 1) * f->group; i++)
            block->q[i] = (int16_t)clamp(rint(ratio((double)x[i] + m, d)), 0, f->q_high);
    }
}

/* The integer whose level is nearest to v. */
static int nearest_level(const struct geul_block_format *f, double v)
{
    if (!f->codebook)
        return clamp(rint(v), f->q_low, f->q_high);
    int q = f->q_low;
    while (q < f->q_high && 2 * v > f->codebook[q] + f->codebook[q + 1])
        q++;
    return q;
}

void geul_choose_centred(const struct geul_block_format *f, const float *x, struct geul_block *block)
{
    double step[GEUL_GROUPS_MAX], most = 0;
    int n_groups = f->block / f->group, lowest = f->codebook ? f->codebook[f->q_low] : f->q_low;
    for (int g = 0; g < n_groups; g++) {
        step[g] = (double)extreme_of(x + g * f->group, f->group) / lowest;
        if (!(fabs(step[g]) <= fabs(most)))
            most = step[g];
    }
    bool scaled = f->scale_high > 1, finite = !isnan(extreme_of(x, f->block));
    int end = scaled && f->scale_low < 0 ? f->scale_low : 1; /* the integer of the largest step */
    float d = super_scale(fabs(most), end < 0 ? -end : end);
    flat(f, finite ? (most / end < 0 ? -d : d) : NAN, block);
    for (int g = 0; finite && g < n_groups; g++) {
        if (scaled)
            block->scale[g] = (int16_t)clamp(rint(ratio(step[g], (double)block->d)), f->scale_low, f->scale_high);
        double by = (double)block->d * block->scale[g];
        for (int i = g * f->group; i < (g + 1) * f->group; i++)
            block->q[i] = (int16_t)nearest_level(f, ratio((double)x[i], by));
    }
}

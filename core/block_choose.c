/* block_choose.c: see block_choose.h. */
#include "core/block_choose.h"

#include "core/half.h"

#include <math.h>
#include <string.h>

#define LARGEST_F16  65520.0  /* from here on float16 rounds to infinity */
#define SMALLEST_F16 0x1p-24f /* the step between its subnormals */

/* The largest magnitude among n values, a multiple of 16; NaN when one is not finite. Without its sign a float32 orders
 * as its bits do, and 16 lanes become vector instructions. */
static float largest(const float *x, int n)
{
    int32_t top[16] = {0}, most = 0;
    float value;
    for (int k = 0; k < n; k += 16)
        for (int i = 0; i < 16; i++) {
            int32_t bits;
            memcpy(&bits, x + k + i, sizeof bits);
            bits &= 0x7fffffff;
            top[i] = bits > top[i] ? bits : top[i];
        }
    for (int i = 0; i < 16; i++)
        most = top[i] > most ? top[i] : most;
    memcpy(&value, &most, sizeof value);
    return isfinite(value) ? value : NAN;
}

/* The first value of largest magnitude, with its sign; NaN when one is not finite. */
static float extreme_of(const float *x, int n)
{
    float most = largest(x, n);
    for (int i = 0; i < n; i++)
        if (fabsf(x[i]) == most)
            return x[i];
    return most;
}

/* Scale d, no minimum, every q 0: what a choice starts from, and with d NaN all there is of a damaged block. */
static void start(const struct geul_block_format *f, float d, struct geul_block *block)
{
    block->d = d;
    block->m = 0;
    for (int g = 0; g < f->block / f->group; g++) {
        block->scale[g] = (int16_t)f->scale_high;
        block->min[g] = f->min_high == 1;
    }
    memset(block->q, 0, (size_t)f->block * sizeof *block->q);
}

/* The whole number nearest to x (halves up) from low to high; low for a NaN. */
static int nearest(double x, int low, int high)
{
    return x >= high ? high : x > low ? (int)(x - low + 0.5) + low : low;
}

void geul_choose_nearest(const struct geul_block_format *f, const float *x, struct geul_block *block)
{
    float d = largest(x, f->block) / (float)f->q_high;
    float inverse = d > 0 ? 1.0f / d : 0.0f;
    start(f, d, block);
    for (int i = 0; i < f->block; i++) {
        int q = nearest((double)fabsf(x[i] * inverse), 0, f->q_high); /* halves away from zero */
        block->q[i] = (int16_t)(x[i] < 0 ? -q : q);
    }
}

/* The whole number below x >= 0, at most high; 0 for a NaN. */
static int below(float x, int high)
{
    return x >= (float)high ? high : x > 0 ? (int)x : 0;
}

void geul_choose_extreme(const struct geul_block_format *f, const float *x, struct geul_block *block)
{
    float d = extreme_of(x, f->block) / (float)f->q_low;
    /* x / d >= q_low, so with the offset it is >= 0.5 but for rounding, and cutting off its fraction rounds it. */
    float inverse = d != 0 ? 1.0f / d : 0.0f, offset = 0.5f - (float)f->q_low;
    start(f, d, block);
    for (int i = 0; i < f->block; i++)
        block->q[i] = (int16_t)(below(x[i] * inverse + offset, f->q_high - f->q_low) + f->q_low);
}

void geul_choose_affine(const struct geul_block_format *f, const float *x, struct geul_block *block)
{
    float low = x[0], high = x[0];
    for (int i = 1; i < f->block; i++) {
        low = x[i] < low ? x[i] : low;
        high = x[i] > high ? x[i] : high;
    }
    /* the comparisons above pass over a NaN */
    float d = isnan(largest(x, f->block)) ? NAN : (high - low) / (float)f->q_high;
    float inverse = d != 0 ? 1.0f / d : 0.0f;
    start(f, d, block);
    block->m = -low;
    for (int i = 0; i < f->block; i++)
        block->q[i] = (int16_t)below((x[i] - low) * inverse + 0.5f, f->q_high);
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

/* Starts a block with groups. false when there is nothing to choose: all values are nearer to 0 than to float16's
 * smallest step, or one is not finite. */
static bool start_groups(const struct geul_block_format *f, const float *x, struct geul_block *block)
{
    float most = largest(x, f->block);
    start(f, isnan(most) ? NAN : 0, block);
    return most >= SMALLEST_F16 / 2;
}

/* numerator / denominator, 0 for a denominator of 0. */
static double ratio(double numerator, double denominator)
{
    return denominator != 0 ? numerator / denominator : 0;
}

/* The integer for a group's step under super-scale d; not 0 unless the step is 0, since that would erase the group. */
static int scale_of(const struct geul_block_format *f, double step, double d)
{
    int scale = nearest(ratio(step, d), f->scale_low, f->scale_high);
    return scale != 0 || step == 0 ? scale : step / d < 0 ? -1 : 1;
}

/* From the outside in: super-scales for the largest step and the deepest minimum, then each group's integers under
 * them, then q. Each is chosen against the rounded values above it, as they will be decoded, not against the exact
 * ones, so rounding errors do not add up. */
void geul_choose_offset(const struct geul_block_format *f, const float *x, struct geul_block *block)
{
    double step[GEUL_GROUPS_MAX], under[GEUL_GROUPS_MAX], most_step = 0, most_under = 0;
    int n_groups = f->block / f->group;
    if (!start_groups(f, x, block))
        return;
    for (int g = 0; g < n_groups; g++) {
        double low = 0, high = (double)x[g * f->group]; /* a minimum is subtracted, never added: low <= 0 */
        for (int i = 0; i < f->group; i++) {
            low = fmin(low, (double)x[g * f->group + i]);
            high = fmax(high, (double)x[g * f->group + i]);
        }
        step[g] = (high - low) / f->q_high;
        under[g] = -low;
        most_step = fmax(most_step, step[g]);
        most_under = fmax(most_under, under[g]);
    }
    block->d = super_scale(most_step, f->scale_high);
    block->m = super_scale(most_under, f->min_high);
    for (int g = 0; g < n_groups; g++) {
        block->scale[g] = (int16_t)scale_of(f, step[g], (double)block->d);
        block->min[g] = (int16_t)nearest(ratio(under[g], (double)block->m), 0, f->min_high);
        double d = (double)block->d * block->scale[g], m = (double)block->m * block->min[g];
        for (int i = g * f->group; i < (g + 1) * f->group; i++)
            block->q[i] = (int16_t)nearest(ratio((double)x[i] + m, d), 0, f->q_high);
    }
}

/* The integer whose level is nearest to v. */
static int nearest_level(const struct geul_block_format *f, double v)
{
    if (!f->codebook)
        return nearest(v, f->q_low, f->q_high);
    int q = f->q_low;
    for (int i = f->q_low; i < f->q_high; i++)
        q += 2 * v > f->codebook[i] + f->codebook[i + 1];
    return q;
}

void geul_choose_centred(const struct geul_block_format *f, const float *x, struct geul_block *block)
{
    double step[GEUL_GROUPS_MAX], most = 0;
    int n_groups = f->block / f->group, lowest = f->codebook ? f->codebook[f->q_low] : f->q_low;
    if (!start_groups(f, x, block))
        return;
    for (int g = 0; g < n_groups; g++) {
        step[g] = (double)extreme_of(x + g * f->group, f->group) / lowest;
        if (fabs(step[g]) > fabs(most))
            most = step[g];
    }
    /* The largest step gets the integer farthest from 0, of which there is no positive counterpart; d's sign makes up
     * for it. scale_low is 1 for formats that store no scales: d is then the step itself. */
    int end = f->scale_low;
    float d = super_scale(fabs(most), end < 0 ? -end : end);
    block->d = most / end < 0 ? -d : d;
    for (int g = 0; g < n_groups; g++) {
        block->scale[g] = (int16_t)scale_of(f, step[g], (double)block->d);
        double by = (double)block->d * block->scale[g];
        for (int i = g * f->group; i < (g + 1) * f->group; i++)
            block->q[i] = (int16_t)nearest_level(f, ratio((double)x[i], by));
    }
}

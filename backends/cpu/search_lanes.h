/* search_lanes.h: the search for scales over 16 lanes, for one instruction set per inclusion: plain loops that the
 * compiler turns into that set's vectors. No FMA, and sums across lanes only in order, so every set finds the same.
 *
 * A group's elements x with weights w become s v(q) - m: v(q) is the integer q, or the codebook's value at q. Of every
 * choice of integers, made by rounding x * inverse + shift, only five sums over the group are needed:
 *   w, wx, wv, wvv, wxv: the sums of w, w x, w v, w v v, w x v
 * For given integers the error, the sum of w (x - s v + m)^2, is least where
 *   s = wxv / wvv                                                        without a minimum
 *   s = (w wxv - wx wv) / (w wvv - wv^2)     m = (s wv - wx) / w         with one
 *
 *   1 each group alone: many ways to lay the grid of integers over its range (search_spans, search_reaches), each with
 *     its best s and m; the one with the smallest error, improved by rounding under them again (search_groups)
 *   2 each block: d and m such that d * integer and m * integer come near the groups' s and m (search_start)
 *   3 SEARCH_REFITS times: the groups' integer scales and minima with d and m fixed (search_neighbours), then d and m
 *     with all integers fixed (search_refit)
 * In 2 and 3 errors are computed with d and m rounded to float16, as they are stored, and a change is taken only where
 * the error falls. Blocks of one group need no integer scales: search_single takes the place of 2 and 3. */
#include "backends/cpu/unroll.h"
#include "backends/search_tile.h"
#include "core/half.h"

#include <math.h>
#include <string.h>

enum { LANES = GEUL_SEARCH_LANES, CODES = 16, SEARCH_DESCENTS = 2, SEARCH_REFITS = 2 };

typedef float lanes[LANES];

struct search {
    const struct geul_block_format *format;
    struct geul_search_tile *tile;
    int n;           /* elements per group */
    int groups;      /* lanes per block */
    float low, high; /* ends of v(q) */
    bool has_min;
    float step[CODES], middle[CODES]; /* codebooks: from code j - 1 to code j, and the point half-way */
    lanes w, wx;                      /* of all elements */
    lanes least, largest, extreme;    /* of x, 0 included unless the minimum is free; the larger one in magnitude */
    lanes scale, min;                 /* s and m that are best for each group alone */
};

/* Sums of one choice of integers v(q). */
struct search_sums {
    lanes wv, wvv, wxv;
};

/* A choice for every block of the tile: d and m of the block, repeated in its lanes, the lanes' integer scales and
 * minima, and the errors it leaves. */
struct search_choice {
    lanes d, m, scale, min, error;
};

INLINE float search_limit(float v, float low, float high)
{
    v = v > low ? v : low;
    return v < high ? v : high;
}

/* The nearest whole number, |v| < 2^22: in the sum a unit in the last place is 1. */
INLINE float search_whole(float v)
{
    return (v + 0x1.8p23f) - 0x1.8p23f;
}

INLINE float search_inverse(float v)
{
    return fabsf(v) > 1e-30f ? 1 / v : 0;
}

/* v(q) of the integer nearest to t. */
INLINE float search_value(float t, float low, float high, const float *step, const float *middle, const bool codes)
{
    if (!codes)
        return search_whole(search_limit(t, low, high));
    float v = low;
    UNROLL for (int j = 1; j < CODES; j++)
    {
        float rise = step[j];
        v += t > middle[j] ? rise : 0;
    }
    return v;
}

/* codes is a constant in each caller, so that either loop is compiled without the rounding of the other. */
INLINE void search_sum_kind(const struct search *s, struct search_sums *sums, const lanes inverse, const lanes shift,
                            const bool codes)
{
    const float low = s->low, high = s->high;
    lanes wv = {0}, wvv = {0}, wxv = {0};
    for (int i = 0; i < s->n; i++) {
        const float *x = s->tile->x[i], *weight = s->tile->weight[i];
        for (int l = 0; l < LANES; l++) {
            float v = search_value(x[l] * inverse[l] + shift[l], low, high, s->step, s->middle, codes);
            float product = weight[l] * v;
            wv[l] += product;
            wvv[l] += product * v;
            wxv[l] += product * x[l];
        }
    }
    memcpy(sums->wv, wv, sizeof wv);
    memcpy(sums->wvv, wvv, sizeof wvv);
    memcpy(sums->wxv, wxv, sizeof wxv);
}

/* The sums when the integers are those nearest to x * inverse + shift. */
static void search_sum(const struct search *s, struct search_sums *sums, const lanes inverse, const lanes shift)
{
    if (s->format->codebook)
        search_sum_kind(s, sums, inverse, shift, true);
    else
        search_sum_kind(s, sums, inverse, shift, false);
}

INLINE void search_error_kind(const struct search *s, lanes error, const lanes scale, const lanes min,
                              const lanes inverse, const lanes shift, const bool codes)
{
    const float low = s->low, high = s->high;
    lanes sum = {0};
    for (int i = 0; i < s->n; i++) {
        const float *x = s->tile->x[i], *weight = s->tile->weight[i];
        for (int l = 0; l < LANES; l++) {
            float v = search_value(x[l] * inverse[l] + shift[l], low, high, s->step, s->middle, codes);
            float r = x[l] - (scale[l] * v - min[l]);
            sum[l] += weight[l] * (r * r);
        }
    }
    memcpy(error, sum, sizeof sum);
}

/* The error of each lane when its elements are rounded to scale * v(q) - min. */
static void search_error(const struct search *s, lanes error, const lanes scale, const lanes min)
{
    lanes inverse, shift;
    for (int l = 0; l < LANES; l++) {
        inverse[l] = search_inverse(scale[l]);
        shift[l] = min[l] * inverse[l];
    }
    if (s->format->codebook)
        search_error_kind(s, error, scale, min, inverse, shift, true);
    else
        search_error_kind(s, error, scale, min, inverse, shift, false);
}

/* ----------------------------------------------------------------------- one group by itself -- */

/* Takes the s and m of least squares in lanes where their gain, by which they reduce the error below that of zeros (the
 * sum of w x x), is above that of the best so far. A minimum of one per group may have any sign; those of super-blocks
 * are not negative, nor are their scales: where the best m is below 0 it is 0, and s is the best for that. */
static void search_take(struct search *s, const struct search_sums *sums, lanes gain)
{
    const bool free_min = s->format->min_high == 1;
    if (!s->has_min) {
        for (int l = 0; l < LANES; l++) {
            float fit = sums->wxv[l] * search_inverse(sums->wvv[l]), g = fit * sums->wxv[l];
            bool better = g > gain[l];
            gain[l] = better ? g : gain[l];
            s->scale[l] = better ? fit : s->scale[l];
        }
        return;
    }
    for (int l = 0; l < LANES; l++) {
        float w = s->w[l], wx = s->wx[l], wv = sums->wv[l], wvv = sums->wvv[l], wxv = sums->wxv[l];
        float spread = w * wvv - wv * wv, fit = (w * wxv - wx * wv) * search_inverse(spread);
        float m = (fit * wv - wx) * search_inverse(w);
        bool bounded = !free_min && m < 0;
        fit = bounded ? wxv * search_inverse(wvv) : fit;
        m = bounded ? 0 : m;
        float g = 2 * (fit * wxv - m * wx + fit * m * wv) - fit * fit * wvv - m * m * w;
        bool better = g > gain[l] && (free_min || fit > 0);
        gain[l] = better ? g : gain[l];
        s->scale[l] = better ? fit : s->scale[l];
        s->min[l] = better ? m : s->min[l];
    }
}

/* How to lay the grid over a group with a minimum: the range is that many steps longer than the integers reach, and
 * starts that many steps before them. Both lists were picked one by one, each time the candidate that lowers the error
 * most in addition to those before it, from fine grids of candidates, over weights of a trained model and normal ones,
 * even importance and log-normal, and all types that use the list; all candidates of the grids together gain 0.3 %
 * more. */
static const struct search_span {
    float more, late;
} search_spans[] = {{0.4f, 0.2f}, {0, 0.4f},      {0.2f, -0.2f}, {-1.0f, 0},   {-1.2f, -0.6f}, {1.8f, 1.2f},
                    {1.8f, 0.4f}, {-0.2f, 0},     {1.4f, 0.6f},  {1.8f, 1.6f}, {-1.2f, -0.4f}, {-0.8f, -0.6f},
                    {2.2f, 0.2f}, {-0.2f, -0.2f}, {0.4f, 0.4f},  {0.2f, -0.4f}};

/* A group without a minimum: its element of largest magnitude, whatever its sign, lies that many steps beyond the low
 * or the high end of the integers. A step of a codebook, for this purpose, is 16. */
static const struct search_reach {
    int high;
    float beyond;
} search_reaches[] = {{0, 0.2f}, {1, 0},     {0, 1.2f}, {0, -2.0f}, {1, -2.0f}, {0, -0.4f}, {1, 1.4f},
                      {0, 2.8f}, {0, -1.2f}, {0, 0.6f}, {1, 0.4f},  {1, 2.8f},  {1, -0.8f}, {0, 0}};

static void search_spans_all(struct search *s, lanes gain)
{
    struct search_sums sums;
    lanes inverse, shift;
    for (size_t c = 0; c < sizeof search_spans / sizeof search_spans[0]; c++) {
        for (int l = 0; l < LANES; l++) {
            inverse[l] = (s->high + search_spans[c].more) * search_inverse(s->largest[l] - s->least[l]);
            shift[l] = -s->least[l] * inverse[l] - search_spans[c].late;
        }
        search_sum(s, &sums, inverse, shift);
        search_take(s, &sums, gain);
    }
}

static void search_reaches_all(struct search *s, lanes gain)
{
    const float step = s->format->codebook ? 16 : 1;
    struct search_sums sums;
    lanes inverse, shift = {0};
    for (size_t c = 0; c < sizeof search_reaches / sizeof search_reaches[0]; c++) {
        float beyond = search_reaches[c].beyond * step;
        float end = search_reaches[c].high ? s->high + beyond : s->low - beyond;
        for (int l = 0; l < LANES; l++)
            inverse[l] = end * search_inverse(s->extreme[l]);
        search_sum(s, &sums, inverse, shift);
        search_take(s, &sums, gain);
    }
}

/* The best scale and minimum of every lane, as if they were stored exactly. Every descent rounds under the best so far
 * and solves again, which cannot raise the error. */
static void search_groups(struct search *s)
{
    lanes gain = {0}, inverse, shift;
    struct search_sums sums;
    if (s->has_min)
        search_spans_all(s, gain);
    else
        search_reaches_all(s, gain);
    for (int step = 0; step < SEARCH_DESCENTS; step++) {
        for (int l = 0; l < LANES; l++) {
            inverse[l] = search_inverse(s->scale[l]);
            shift[l] = s->min[l] * inverse[l];
        }
        search_sum(s, &sums, inverse, shift);
        search_take(s, &sums, gain);
    }
}

/* ------------------------------------------------------------------------- a block's d and m -- */

/* v rounded to what float16 can hold of v * unit, and back in x's scale. */
static float search_half(float v, float unit)
{
    return geul_f16_to_f32(geul_f32_to_f16(search_limit(v * unit, -65504, 65504))) / unit;
}

/* Rounds d and m of a choice as they are stored, and computes its errors. */
static void search_judge(const struct search *s, struct search_choice *c)
{
    lanes scale, min;
    for (int l = 0; l < LANES; l += s->groups) {
        float d = search_half(c->d[l], s->tile->unit[l]), m = search_half(c->m[l], s->tile->unit[l]);
        for (int g = l; g < l + s->groups; g++) {
            c->d[g] = d;
            c->m[g] = m;
        }
    }
    for (int l = 0; l < LANES; l++) {
        scale[l] = c->d[l] * c->scale[l];
        min[l] = c->m[l] * c->min[l];
    }
    search_error(s, c->error, scale, min);
}

static float search_total(const struct search *s, const lanes v, int from)
{
    float sum = 0;
    for (int l = from; l < from + s->groups; l++)
        sum += v[l];
    return sum;
}

/* Copies to best the blocks of other that leave less error, all groups of a block together: they share d and m. */
static void search_take_better(const struct search *s, struct search_choice *best, const struct search_choice *other)
{
    for (int l = 0; l < LANES; l += s->groups) {
        if (!(search_total(s, other->error, l) < search_total(s, best->error, l)))
            continue;
        for (int g = l; g < l + s->groups; g++) {
            best->d[g] = other->d[g];
            best->m[g] = other->m[g];
            best->scale[g] = other->scale[g];
            best->min[g] = other->min[g];
            best->error[g] = other->error[g];
        }
    }
}

/* The value of largest magnitude among a block's lanes, into all of them. */
static void search_spread_extreme(const struct search *s, lanes out, const lanes v)
{
    for (int l = 0; l < LANES; l += s->groups) {
        float extreme = 0;
        for (int g = l; g < l + s->groups; g++)
            extreme = fabsf(v[g]) > fabsf(extreme) ? v[g] : extreme;
        for (int g = l; g < l + s->groups; g++)
            out[g] = extreme;
    }
}

/* The integer scales for which d * scale is nearest to want. */
static void search_set_scales(const struct search *s, struct search_choice *c, const lanes want)
{
    const float low = (float)s->format->scale_low, high = (float)s->format->scale_high;
    for (int l = 0; l < LANES; l++)
        c->scale[l] = search_whole(search_limit(want[l] * search_inverse(c->d[l]), low, high));
}

/* The same of minima, which are not negative. */
static void search_set_mins(const struct search *s, struct search_choice *c, const lanes want)
{
    const float high = (float)s->format->min_high;
    for (int l = 0; l < LANES; l++)
        c->min[l] = search_whole(search_limit(want[l] * search_inverse(c->m[l]), 0, high));
}

/* The minimum that is best for each lane's integers, when they are chosen under the scale d * scale and the minimum
 * min. */
static void search_fit_mins(const struct search *s, const struct search_choice *c, const lanes min, lanes fit)
{
    struct search_sums sums;
    lanes inverse, shift;
    for (int l = 0; l < LANES; l++) {
        inverse[l] = search_inverse(c->d[l] * c->scale[l]);
        shift[l] = min[l] * inverse[l];
    }
    search_sum(s, &sums, inverse, shift);
    for (int l = 0; l < LANES; l++)
        fit[l] = (c->d[l] * c->scale[l] * sums.wv[l] - s->wx[l]) * search_inverse(s->w[l]);
}

/* Starts a block from the best of several d and m, under which the largest scale of the groups becomes the largest
 * integer or a share of it, and so does the largest minimum. Signed scales are tried both ways round. */
static void search_start(const struct search *s, struct search_choice *best)
{
    static const float shares[] = {1, 0.97f, 0.94f, 0.91f, 0.88f, 0.85f, 0.8f};
    struct search_choice c = *best;
    lanes widest, deepest, fit;
    const int ends = s->format->scale_low < 0 ? 2 : 1;
    search_spread_extreme(s, widest, s->scale);
    search_spread_extreme(s, deepest, s->min);
    for (size_t i = 0; i < sizeof shares / sizeof shares[0]; i++)
        for (int e = 0; e < ends; e++) {
            float end = (float)(e ? s->format->scale_low : s->format->scale_high) * shares[i];
            for (int l = 0; l < LANES; l++) {
                c.d[l] = widest[l] / end;
                c.m[l] = s->has_min ? deepest[l] / (float)s->format->min_high : 0;
            }
            search_set_scales(s, &c, s->scale);
            if (s->has_min) {
                search_fit_mins(s, &c, s->min, fit);
                search_set_mins(s, &c, fit);
            }
            search_judge(s, &c);
            search_take_better(s, best, &c);
        }
    if (!s->has_min)
        return;
    /* Under the integer scales other minima are best: m once more, with the best d. */
    c = *best;
    search_fit_mins(s, &c, s->min, fit);
    search_spread_extreme(s, deepest, fit);
    for (size_t i = 1; i < sizeof shares / sizeof shares[0]; i++) {
        for (int l = 0; l < LANES; l++) {
            c.d[l] = best->d[l];
            c.scale[l] = best->scale[l];
            c.m[l] = fabsf(deepest[l]) / ((float)s->format->min_high * shares[i]);
        }
        search_set_mins(s, &c, fit);
        search_judge(s, &c);
        search_take_better(s, best, &c);
    }
}

/* Copies to best the lanes of other that leave less error. Both have the same d and m, so groups are independent. */
static void search_take_better_lanes(const struct search *s, struct search_choice *best, struct search_choice *other)
{
    lanes scale, min;
    for (int l = 0; l < LANES; l++) {
        scale[l] = other->d[l] * other->scale[l];
        min[l] = other->m[l] * other->min[l];
    }
    search_error(s, other->error, scale, min);
    for (int l = 0; l < LANES; l++) {
        bool better = other->error[l] < best->error[l];
        best->error[l] = better ? other->error[l] : best->error[l];
        best->scale[l] = better ? other->scale[l] : best->scale[l];
        best->min[l] = better ? other->min[l] : best->min[l];
    }
}

/* Tries for every group the neighbouring integer scales (with minima the present one too), each with the integer
 * minimum that suits it best and the two next to that. */
static void search_neighbours(const struct search *s, struct search_choice *best)
{
    static const float moves[] = {1, -1, 0};
    const float low = (float)s->format->scale_low, high = (float)s->format->scale_high;
    const float deepest = (float)s->format->min_high;
    const int n_moves = s->has_min ? 3 : 2;
    struct search_choice c = *best;
    lanes start, min, fit;
    memcpy(start, best->scale, sizeof start);
    for (int l = 0; l < LANES; l++)
        min[l] = best->min[l] * best->m[l];
    for (int i = 0; i < n_moves; i++) {
        for (int l = 0; l < LANES; l++)
            c.scale[l] = search_limit(start[l] + moves[i], low, high);
        if (s->has_min) {
            search_fit_mins(s, &c, min, fit);
            search_set_mins(s, &c, fit);
            memcpy(fit, c.min, sizeof fit);
        }
        search_take_better_lanes(s, best, &c);
        for (int j = 0; s->has_min && j < 2; j++) {
            for (int l = 0; l < LANES; l++)
                c.min[l] = search_limit(fit[l] + moves[j], 0, deepest);
            search_take_better_lanes(s, best, &c);
        }
    }
}

/* The d and m of every block that are best for all its integers together: least squares in two unknowns, where an
 * element's value is d * (scale v) - m * min. Without minima, or where the two are nearly proportional, d alone. */
static void search_refit(const struct search *s, struct search_choice *best)
{
    struct search_choice c = *best;
    struct search_sums sums;
    lanes inverse, shift, aa, ab, bb, ax, bx;
    for (int l = 0; l < LANES; l++) {
        inverse[l] = search_inverse(c.d[l] * c.scale[l]);
        shift[l] = c.m[l] * c.min[l] * inverse[l];
    }
    search_sum(s, &sums, inverse, shift);
    for (int l = 0; l < LANES; l++) {
        aa[l] = c.scale[l] * c.scale[l] * sums.wvv[l];
        ab[l] = c.scale[l] * c.min[l] * sums.wv[l];
        bb[l] = c.min[l] * c.min[l] * s->w[l];
        ax[l] = c.scale[l] * sums.wxv[l];
        bx[l] = c.min[l] * s->wx[l];
    }
    for (int l = 0; l < LANES; l += s->groups) {
        float a2 = search_total(s, aa, l), cross = search_total(s, ab, l), b2 = search_total(s, bb, l);
        float xa = search_total(s, ax, l), xb = search_total(s, bx, l), spread = a2 * b2 - cross * cross;
        bool both = s->has_min && spread > 1e-6f * a2 * b2;
        float d = both ? (xa * b2 - xb * cross) / spread : xa * search_inverse(a2);
        float m = both ? (xa * cross - xb * a2) / spread : c.m[l];
        for (int g = l; g < l + s->groups; g++) {
            c.d[g] = d;
            c.m[g] = m;
        }
    }
    search_judge(s, &c);
    search_take_better(s, best, &c);
}

/* --------------------------------------------------------------------------------- the whole -- */

/* What all steps need of the tile. A range without 0 would be of use only where the minimum may have any sign. */
static void search_prepare(struct search *s)
{
    const int8_t *codes = s->format->codebook;
    for (int j = 1; codes && j < CODES; j++) {
        s->step[j] = (float)(codes[j] - codes[j - 1]);
        s->middle[j] = 0.5f * (float)(codes[j] + codes[j - 1]);
    }
    memset(s->w, 0, sizeof s->w);
    memset(s->wx, 0, sizeof s->wx);
    memset(s->least, 0, sizeof s->least);
    memset(s->largest, 0, sizeof s->largest);
    if (s->format->min_high == 1)
        for (int l = 0; l < LANES; l++)
            s->least[l] = s->largest[l] = s->tile->x[0][l];
    for (int i = 0; i < s->n; i++) {
        const float *x = s->tile->x[i], *weight = s->tile->weight[i];
        for (int l = 0; l < LANES; l++) {
            s->w[l] += weight[l];
            s->wx[l] += weight[l] * x[l];
            s->least[l] = x[l] < s->least[l] ? x[l] : s->least[l];
            s->largest[l] = x[l] > s->largest[l] ? x[l] : s->largest[l];
        }
    }
    for (int l = 0; l < LANES; l++)
        s->extreme[l] = s->largest[l] > -s->least[l] ? s->largest[l] : s->least[l];
}

/* Writes the integers that belong to the choice. */
static void search_finish(const struct search *s, const struct search_choice *c)
{
    struct geul_search_tile *tile = s->tile;
    lanes inverse, shift;
    for (int l = 0; l < LANES; l++) {
        inverse[l] = search_inverse(c->d[l] * c->scale[l]);
        shift[l] = c->m[l] * c->min[l] * inverse[l];
    }
    for (int i = 0; i < s->n; i++)
        for (int l = 0; l < LANES; l++) {
            float t = tile->x[i][l] * inverse[l] + shift[l], index = 0;
            for (int j = 1; j < CODES; j++)
                index += t > s->middle[j] ? 1.0f : 0.0f;
            tile->q[i][l] = s->format->codebook ? index : search_whole(search_limit(t, s->low, s->high));
        }
    memcpy(tile->d, c->d, sizeof c->d);
    memcpy(tile->m, c->m, sizeof c->m);
    memcpy(tile->scale, c->scale, sizeof c->scale);
    memcpy(tile->min, c->min, sizeof c->min);
    memcpy(tile->error, c->error, sizeof c->error);
}

/* Blocks of one group: what is best for the group, or, where after rounding to float16 that is better, the range from
 * the smallest element to the largest. */
static void search_single(const struct search *s, struct search_choice *best)
{
    struct search_choice c = *best;
    memcpy(c.d, s->scale, sizeof c.d);
    memcpy(c.m, s->min, sizeof c.m);
    for (int l = 0; l < LANES; l++)
        c.scale[l] = c.min[l] = 1;
    search_judge(s, &c);
    search_take_better(s, best, &c);
    search_refit(s, best);
    for (int end = 0; end < 2; end++) {
        for (int l = 0; l < LANES; l++) {
            c.d[l] = s->has_min ? (s->largest[l] - s->least[l]) / s->high : s->extreme[l] / (end ? s->high : s->low);
            c.m[l] = s->has_min ? -s->least[l] : 0;
        }
        search_judge(s, &c);
        search_take_better(s, best, &c);
    }
}

/* The kernel. Errors start from infinity, so that the first choice is always taken. */
static void search(const struct geul_block_format *format, struct geul_search_tile *tile)
{
    const int8_t *codes = format->codebook;
    struct search s = {.format = format,
                       .tile = tile,
                       .n = format->group,
                       .groups = format->block / format->group,
                       .low = (float)(codes ? codes[0] : format->q_low),
                       .high = (float)(codes ? codes[CODES - 1] : format->q_high),
                       .has_min = format->min_high > 0};
    struct search_choice best = {{0}, {0}, {0}, {0}, {0}};
    search_prepare(&s);
    search_groups(&s);
    for (int l = 0; l < LANES; l++)
        best.error[l] = INFINITY;
    if (s.groups == 1) {
        search_single(&s, &best);
    } else {
        search_start(&s, &best);
        for (int i = 0; i < SEARCH_REFITS; i++) {
            search_neighbours(&s, &best);
            search_refit(&s, &best);
        }
    }
    search_finish(&s, &best);
}

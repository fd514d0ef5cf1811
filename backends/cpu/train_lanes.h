/* train_lanes.h: kernels whose bits must not depend on the machine, in plain C for the compiler to vectorise: dropout,
 * whose gradient may be computed elsewhere, and the optimizers, so that a step from the same gradients gives the same
 * weights everywhere. Every unit includes it once and compiles it with its own flags. A product and the sum it goes
 * into are rounded separately (-ffp-contract=off), and sums over elements are SUM_LANES partial sums, added up in
 * order, whatever the width of the vectors. */
#include "backends/cpu/kernels.h"
#include "backends/cpu/unroll.h"
#include "core/random.h"

#include <math.h>
#include <string.h>

enum { SUM_LANES = 16, DROPOUT_PIECE = 256 };

/* Selections are made by masking bits: compilers do not vectorise branches. */
INLINE uint32_t bits_of(float f)
{
    uint32_t u;
    memcpy(&u, &f, sizeof u);
    return u;
}

INLINE float float_of(uint32_t u)
{
    float f;
    memcpy(&f, &u, sizeof f);
    return f;
}

/* Through a local copy of constant length, which the compiler can vectorise although out may be x. */
static void dropout(float *out, const float *x, uint64_t key, uint32_t first, uint32_t limit, float factor, size_t n)
{
    for (size_t from = 0; from < n; from += DROPOUT_PIECE) {
        size_t part = n - from < DROPOUT_PIECE ? n - from : DROPOUT_PIECE;
        float piece[DROPOUT_PIECE] = {0};
        memcpy(piece, x + from, part * sizeof *piece);
        for (uint32_t i = 0; i < DROPOUT_PIECE; i++) {
            uint32_t kept = 0u - (uint32_t)(geul_random_element(key, first + (uint32_t)from + i) >= limit);
            piece[i] = float_of(bits_of(piece[i] * factor) & kept);
        }
        memcpy(out + from, piece, part * sizeof *piece);
    }
}

/* -------------------------------------------------------------------------------------- sums -- */

/* Adds up the SUM_LANES partial sums; element i went into number i % SUM_LANES. */
INLINE double sum_partial(const double *partial)
{
    double sum = 0;
    for (int l = 0; l < SUM_LANES; l++)
        sum += partial[l];
    return sum;
}

static double squares(const float *x, size_t n, uint64_t *others)
{
    double partial[SUM_LANES] = {0};
    uint32_t finite_count = 0;
    for (size_t i = 0; i < n; i += SUM_LANES) {
        float piece[SUM_LANES] = {0};
        size_t part = n - i < SUM_LANES ? n - i : SUM_LANES;
        if (part == SUM_LANES)
            memcpy(piece, x + i, sizeof piece);
        else
            memcpy(piece, x + i, part * sizeof *piece);
        for (size_t l = 0; l < SUM_LANES; l++) {
            uint32_t u = bits_of(piece[l]), is_finite = (u & 0x7fffffff) < 0x7f800000;
            double v = float_of(u & (0u - is_finite));
            partial[l] += v * v;
            finite_count += is_finite;
        }
        finite_count -= SUM_LANES - (uint32_t)part; /* the zeros behind the last element were counted too */
    }
    *others += n - finite_count;
    return sum_partial(partial);
}

/* ----------------------------------------------------------------------------- SGD and AdamW -- */

/* In PyTorch's form: the decay is a part of the gradient, so the momentum carries it on. */
static void sgd(float *restrict w, float *restrict g, float *restrict momentum, const struct geul_cpu_step *step,
                size_t n)
{
    const struct geul_cpu_step s = *step;
    for (size_t i = 0; i < n; i++) {
        momentum[i] = momentum[i] * s.decay[0] + (g[i] * s.scale + s.pull * w[i]);
        w[i] = w[i] - s.rate * momentum[i];
        g[i] = 0;
    }
}

/* In PyTorch's order. s.rate is the learning rate over the first moment's bias correction. */
static void adamw(float *restrict w, float *restrict g, float *restrict m, float *restrict v,
                  const struct geul_cpu_step *step, size_t n)
{
    const struct geul_cpu_step s = *step;
    for (size_t i = 0; i < n; i++) {
        float d = g[i] * s.scale;
        m[i] = m[i] + s.mix[0] * (d - m[i]);
        v[i] = v[i] * s.decay[1] + s.mix[1] * d * d;
        w[i] = w[i] * s.shrink - s.rate * m[i] / (sqrtf(v[i]) / s.root + s.epsilon);
        g[i] = 0;
    }
}

/* ------------------------------------------------------------------------------ 8-bit states -- */

/* A block is GEUL_STATE8_BLOCK codes, a byte each, and a float32 scale, its largest magnitude. A code is the top of the
 * float32 |value / scale|, shifted so that the highest code is 1.0, the scale itself; code 0 is 0:
 *
 *   |value / scale|    0 eeeeeeee mmm mmmmmmmmmmmmmmmmmmmm
 *                        \____11____/ \___ CODE_SHIFT ___/   rounded away
 *   second moment      cccccccc     the 11 bits - offset: 1..255, or 0
 *   first moment       sccccccc     the sign; the 11 bits - offset: 1..127, or 0
 *
 * Three bits of mantissa make steps of 1/8 of an octave's start, wherever a value lies, down to the least code:
 *   the second moment, never negative, has 5 bits of exponent: 255 codes over 31.75 octaves, a range of 6e4 in
 *   gradients. Below the least code it is rounded up: a second moment of 0 with a first moment that is not 0 would make
 *   the step huge, one too large makes it small.
 *   the first moment has a sign and 4 bits: 127 codes over 15.75 octaves. What is smaller becomes 0 or the least code
 *   at random, right on average.
 *
 * Rounding to the nearest code would stop the averages: with a decay of 0.999 the second moment changes by 0.1 % per
 * step, and codes that are 6 to 12 % apart would swallow that forever. (In the test of this, second moments that should
 * approach 0.96 ended at 6.7.) Values are therefore rounded stochastically: up or down by a hash of their position and
 * of the step, with the odds that keep the mean. Within an octave codes are evenly spaced, so it suffices to add random
 * bits below the three and to truncate. What remains is noise of a few per cent in AdamW's denominator. The result is a
 * function of values, position and step alone. */

enum {
    CODE_SHIFT = 20, /* bits of a float's mantissa below the three */
    ONE = 0x3f8,     /* 1.0f >> CODE_SHIFT */
    SCALE_AT = GEUL_STATE8_BLOCK,
    STATE8_BYTES = GEUL_STATE8_BLOCK + sizeof(float)
};
_Static_assert(STATE8_BYTES == GEUL_STATE8_WORDS * 4, "codes and a scale");

/* n values of a block. offset turns a code back into the top of a float; code 0 is left out of that. */
static void state8_read(float *x, const void *block, bool negative, size_t n)
{
    const uint8_t *bytes = block;
    const uint32_t top = negative ? 0x7f : 0xff, offset = ONE - top;
    uint8_t codes[GEUL_STATE8_BLOCK];
    float scale, values[GEUL_STATE8_BLOCK];
    memcpy(codes, bytes, sizeof codes);
    memcpy(&scale, bytes + SCALE_AT, sizeof scale);
    for (int i = 0; i < GEUL_STATE8_BLOCK; i++) {
        uint32_t code = codes[i] & top, sign = codes[i] & ~top;
        values[i] = scale * float_of((code ? (code + offset) << CODE_SHIFT : 0) | sign << 24);
    }
    memcpy(x, values, n * sizeof *x);
}

/* Bits of values to those of their magnitudes. NaN becomes 0, since the weight is NaN by then and shows it; infinity
 * becomes the largest float. Returns the bits of the largest. */
INLINE uint32_t magnitudes(uint32_t *bits)
{
    const uint32_t infinity = 0x7f800000;
    uint32_t largest = 0;
    for (int i = 0; i < GEUL_STATE8_BLOCK; i++) {
        uint32_t u = bits[i] & 0x7fffffff;
        u = u > infinity ? 0 : u == infinity ? infinity - 1 : u;
        bits[i] = u;
        largest = u > largest ? u : largest;
    }
    return largest;
}

/* Encodes a whole block of n values; the rest of it are zeros. Divides by the scale, so what comes to 1.0, the largest,
 * has no bits to round and keeps the highest code: rounding up never leaves the codes. */
static void state8_write(void *block, const float *x, bool negative, uint64_t key, size_t n)
{
    uint8_t codes[GEUL_STATE8_BLOCK];
    const uint32_t top = negative ? 0x7f : 0xff, offset = ONE - top, below = (1u << CODE_SHIFT) - 1;
    const uint32_t least = (1 + offset) << CODE_SHIFT;
    uint32_t signs[GEUL_STATE8_BLOCK] = {0}, bits[GEUL_STATE8_BLOCK];
    memcpy(signs, x, n * sizeof *x);
    memcpy(bits, signs, sizeof bits);
    uint32_t largest = magnitudes(bits);
    float scale = float_of(largest), divisor = largest ? scale : 1, to_chance = (float)(below + 1) / float_of(least);
    for (uint32_t i = 0; i < GEUL_STATE8_BLOCK; i++) {
        float relative = float_of(bits[i]) / divisor;
        uint32_t u = bits_of(relative), chance = geul_random_element(key, i) & below;
        /* Below the least code: it or 0, with odds in proportion (first moment), or always it (second). */
        uint32_t low = negative ? relative * to_chance > (float)(int32_t)chance : bits[i] != 0;
        uint32_t code = u < least ? low : ((u + chance) >> CODE_SHIFT) - offset;
        codes[i] = (uint8_t)(code | (signs[i] >> 24 & ~top));
    }
    memcpy(block, codes, sizeof codes);
    memcpy((uint8_t *)block + SCALE_AT, &scale, sizeof scale);
}

/* --------------------------------------------------------------------------------- Adafactor -- */

static double adafactor_sums(float *restrict columns, const float *restrict g, float scale, size_t n)
{
    double partial[SUM_LANES] = {0};
    size_t i = 0;
    for (; i + SUM_LANES <= n; i += SUM_LANES)
        for (size_t l = 0; l < SUM_LANES; l++) {
            float d = g[i + l] * scale, square = d * d;
            columns[i + l] += square;
            partial[l] += (double)square;
        }
    for (size_t l = 0; i + l < n; l++) {
        float d = g[i + l] * scale, square = d * d;
        columns[i + l] += square;
        partial[l] += (double)square;
    }
    return sum_partial(partial);
}

/* The gradient divided by the root of its second moment, which is at least s->epsilon. */
INLINE float adafactor_change(float g, float column, const struct geul_cpu_step *s)
{
    float moment = s->factor * column;
    return g * s->scale / sqrtf(moment < s->epsilon ? s->epsilon : moment);
}

static double adafactor_norm(const float *restrict g, const float *restrict columns, const struct geul_cpu_step *step,
                             size_t n)
{
    const struct geul_cpu_step s = *step;
    double partial[SUM_LANES] = {0};
    size_t i = 0;
    for (; i + SUM_LANES <= n; i += SUM_LANES)
        for (size_t l = 0; l < SUM_LANES; l++) {
            double change = (double)adafactor_change(g[i + l], columns[i + l], &s);
            partial[l] += change * change;
        }
    for (size_t l = 0; i + l < n; l++) {
        double change = (double)adafactor_change(g[i + l], columns[i + l], &s);
        partial[l] += change * change;
    }
    return sum_partial(partial);
}

static void adafactor_step(float *restrict w, float *restrict g, const float *restrict columns,
                           const struct geul_cpu_step *step, size_t n)
{
    const struct geul_cpu_step s = *step;
    for (size_t i = 0; i < n; i++) {
        w[i] = w[i] * s.shrink - s.rate * adafactor_change(g[i], columns[i], &s);
        g[i] = 0;
    }
}

#define TRAIN_LANES                                                                                                    \
    .dropout = dropout, .squares = squares, .sgd = sgd, .adamw = adamw, .state8_read = state8_read,                    \
    .state8_write = state8_write, .adafactor_sums = adafactor_sums, .adafactor_norm = adafactor_norm,                  \
    .adafactor_step = adafactor_step

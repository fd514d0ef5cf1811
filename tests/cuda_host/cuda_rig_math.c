/* cuda_rig_math.c: what the collectives of a warp compute, and conversions, bit for bit as CUDA has them. */
#include "tests/cuda_host/cuda_rig.h"

#include <math.h>
#include <string.h>

enum { LANES = 32, M = 16, N = 8, MOST_K = 32 };

/* ------------------------------------------------------------------------------- conversions -- */

static uint32_t bits_of(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, 4);
    return bits;
}

static float float_of(uint32_t bits)
{
    float x;
    memcpy(&x, &bits, 4);
    return x;
}

float cuda_host_half_to_float(uint16_t h)
{
    uint32_t sign = (uint32_t)(h & 0x8000) << 16, exponent = h >> 10 & 31, mantissa = h & 0x3ff;
    if (exponent == 31)
        return float_of(mantissa ? 0x7fffffff : sign | 0x7f800000); /* CUDA has one NaN */
    if (exponent == 0)
        return (sign ? -1.0f : 1.0f) * (float)mantissa * 0x1p-24f;
    return float_of(sign | (exponent + 112) << 23 | mantissa << 13);
}

uint16_t cuda_host_float_to_half(float x)
{
    if (isnan(x))
        return 0x7fff;
    uint32_t bits = bits_of(x), sign = bits >> 16 & 0x8000, magnitude = bits & 0x7fffffff;
    if (magnitude >= 0x477ff000) /* 65520 and up become infinite */
        return (uint16_t)(sign | 0x7c00);
    if (magnitude < 0x38800000) /* below 2^-14 the last place is 2^-24 */
        return (uint16_t)(sign | (uint32_t)(int)rintf(float_of(magnitude) * 0x1p24f));
    uint32_t rounded = magnitude + 0xfff + (magnitude >> 13 & 1);
    return (uint16_t)(sign | ((rounded >> 13) - (112 << 10)));
}

uint16_t cuda_host_float_to_bfloat(float x)
{
    if (isnan(x))
        return 0x7fff;
    uint32_t bits = bits_of(x);
    return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

/* As the GPU's conversion: NaN is 0, what is too large the largest. */
int cuda_host_round_to_int(float x)
{
    if (isnan(x))
        return 0;
    if (x >= 0x1p31f)
        return INT32_MAX;
    if (x < -0x1p31f)
        return INT32_MIN;
    return (int)rintf(x);
}

/* ------------------------------------------------------------------------------- collectives -- */

static void complete_shuffle(void *const *args)
{
    uint32_t values[LANES];
    for (int i = 0; i < LANES; i++)
        values[i] = ((struct cuda_host_shuffle_args *)args[i])->value;
    for (int i = 0; i < LANES; i++) {
        struct cuda_host_shuffle_args *a = args[i];
        a->value = values[a->from];
    }
}

static void complete_votes(void *const *args)
{
    uint32_t votes = 0;
    for (int i = 0; i < LANES; i++)
        votes |= (uint32_t)((struct cuda_host_votes_args *)args[i])->condition << i;
    for (int i = 0; i < LANES; i++)
        ((struct cuda_host_votes_args *)args[i])->votes = votes;
}

/* Gathers the fragments of the 32 lanes into matrices of bytes, M x K and N x K, K consecutive: the layout that warp.h
 * states, which in bytes is the same for all types. */
static void gather(void *const *args, uint8_t a[M][MOST_K], uint8_t b[N][MOST_K])
{
    for (int lane = 0; lane < LANES; lane++) {
        const struct cuda_host_multiply_args *l = args[lane];
        int g = lane / 4, t = lane % 4;
        for (int half = 0; half < 2; half++) {
            memcpy(&a[g][16 * half + 4 * t], &l->a[2 * half], 4);
            memcpy(&a[g + 8][16 * half + 4 * t], &l->a[2 * half + 1], 4);
            memcpy(&b[g][16 * half + 4 * t], &l->b[half], 4);
        }
    }
}

static void complete_multiply_int8(void *const *args)
{
    uint8_t a[M][MOST_K], b[N][MOST_K];
    gather(args, a, b);
    for (int lane = 0; lane < LANES; lane++) {
        int32_t *d = ((struct cuda_host_multiply_args *)args[lane])->d;
        int g = lane / 4, t = lane % 4;
        for (int i = 0; i < 4; i++) {
            const int8_t *row = (const int8_t *)a[g + i / 2 * 8], *column = (const int8_t *)b[2 * t + i % 2];
            int32_t sum = 0;
            for (int k = 0; k < MOST_K; k++)
                sum += row[k] * column[k];
            d[i] = (int32_t)((uint32_t)d[i] + (uint32_t)sum);
        }
    }
}

/* D is added to in float32 in the order of k, each product exact. (A card adds several products at once, with other
 * roundings.) */
static void multiply_16(void *const *args, float (*to_float)(uint16_t))
{
    enum { K = MOST_K / 2 };
    uint8_t raw[M + N][MOST_K];
    float values[M + N][K], columns[K][N], d[M][N];
    gather(args, raw, raw + M);
    for (int row = 0; row < M + N; row++)
        for (int k = 0; k < K; k++) {
            uint16_t h;
            memcpy(&h, &raw[row][2 * k], 2);
            values[row][k] = to_float(h);
        }
    for (int k = 0; k < K; k++)
        for (int n = 0; n < N; n++)
            columns[k][n] = values[M + n][k];
    for (int lane = 0; lane < LANES; lane++)
        for (int half = 0; half < 2; half++)
            memcpy(&d[lane / 4 + 8 * half][lane % 4 * 2],
                   (float *)((struct cuda_host_multiply_args *)args[lane])->d + 2 * half, 8);
    for (int m = 0; m < M; m++)
        for (int k = 0; k < K; k++)
            for (int n = 0; n < N; n++)
                d[m][n] += values[m][k] * columns[k][n];
    for (int lane = 0; lane < LANES; lane++)
        for (int half = 0; half < 2; half++)
            memcpy((float *)((struct cuda_host_multiply_args *)args[lane])->d + 2 * half,
                   &d[lane / 4 + 8 * half][lane % 4 * 2], 8);
}

static void complete_multiply_half(void *const *args)
{
    multiply_16(args, cuda_host_half_to_float);
}

static float bfloat_to_float(uint16_t h)
{
    return float_of((uint32_t)h << 16);
}

static void complete_multiply_bfloat(void *const *args)
{
    multiply_16(args, bfloat_to_float);
}

static void complete_load_matrices(void *const *args)
{
    const struct cuda_host_matrices_args *first = args[0];
    for (int m = 0; m < first->n; m++) {
        uint16_t matrix[8][8];
        for (int i = 0; i < 8; i++)
            memcpy(matrix[i], ((struct cuda_host_matrices_args *)args[8 * m + i])->row, sizeof matrix[i]);
        for (int lane = 0; lane < LANES; lane++) {
            int g = lane / 4, t = lane % 4;
            uint32_t lo = first->turned ? matrix[2 * t][g] : matrix[g][2 * t];
            uint32_t hi = first->turned ? matrix[2 * t + 1][g] : matrix[g][2 * t + 1];
            ((struct cuda_host_matrices_args *)args[lane])->r[m] = lo | hi << 16;
        }
    }
}

const struct cuda_host_collective cuda_host_barrier = {"barrier", NULL, true};
const struct cuda_host_collective cuda_host_warp_barrier = {"warp_barrier", NULL, false};
const struct cuda_host_collective cuda_host_shuffle = {"shuffle", complete_shuffle, false};
const struct cuda_host_collective cuda_host_votes = {"votes", complete_votes, false};
const struct cuda_host_collective cuda_host_multiply_int8 = {"multiply_int8", complete_multiply_int8, false};
const struct cuda_host_collective cuda_host_multiply_half = {"multiply_half", complete_multiply_half, false};
const struct cuda_host_collective cuda_host_multiply_bfloat = {"multiply_bfloat", complete_multiply_bfloat, false};
const struct cuda_host_collective cuda_host_load_matrices = {"load_matrices", complete_load_matrices, false};

/* half.c: see half.h. */
#include "core/half.h"

#include <string.h>

static uint32_t bits_of(float f)
{
    uint32_t u;
    memcpy(&u, &f, sizeof u);
    return u;
}

static float float_of(uint32_t u)
{
    float f;
    memcpy(&f, &u, sizeof f);
    return f;
}

float geul_f16_to_f32(uint16_t h)
{
    uint32_t sign = (uint32_t)(h & 0x8000) << 16, exponent = (h >> 10) & 31, mantissa = h & 0x3ff;
    if (exponent == 31)
        return float_of(sign | 0x7f800000 | mantissa << 13);
    if (exponent == 0) {
        float f = (float)mantissa * 0x1p-24f; /* zero and subnormals are exact in float32 */
        return sign ? -f : f;
    }
    return float_of(sign | (exponent + 112) << 23 | mantissa << 13); /* 112: the biases are 15 and 127 */
}

uint16_t geul_f32_to_f16(float f)
{
    uint32_t u = bits_of(f), sign = (u >> 16) & 0x8000;
    u &= 0x7fffffff;
    if (u > 0x7f800000)
        return (uint16_t)(sign | 0x7e00 | ((u >> 13) & 0x3ff)); /* NaN stays NaN */
    if (u >= 0x47800000)
        return (uint16_t)(sign | 0x7c00); /* 65536 and more: infinity */
    /* Below 2^-14 the result is subnormal, a multiple of 2^-24. That is what the last bit of a float32 from 0.5 to 1 is
     * worth, so adding 0.5 rounds to it. */
    if (u < 0x38800000) {
        uint32_t rounded = bits_of(float_of(u) + 0.5f) - bits_of(0.5f);
        return (uint16_t)(sign | rounded);
    }
    /* 13 bits go. The sum carries into the rest when they are more than half, or half and the rest is odd. A carry out
     * of the mantissa raises the exponent, which is right, up to infinity. 0x38000000: the biases differ by 112. */
    uint32_t rounded = u + 0xfff + ((u >> 13) & 1);
    return (uint16_t)(sign | ((rounded - 0x38000000) >> 13));
}

float geul_bf16_to_f32(uint16_t h)
{
    return float_of((uint32_t)h << 16);
}

uint16_t geul_f32_to_bf16(float f)
{
    uint32_t u = bits_of(f);
    if ((u & 0x7fffffff) > 0x7f800000)
        return (uint16_t)(u >> 16 | 0x40); /* NaN stays NaN */
    /* rounded as above; 16 bits go, and the bias stays */
    return (uint16_t)((u + 0x7fff + ((u >> 16) & 1)) >> 16);
}

static uint16_t load_u16(const uint8_t *p)
{
    return (uint16_t)(p[0] | p[1] << 8);
}

static void store_u16(uint8_t *p, uint16_t v)
{
    p[0] = (uint8_t)v;
    p[1] = (uint8_t)(v >> 8);
}

void geul_f16_decode(const uint8_t *src, float *dst, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        dst[i] = geul_f16_to_f32(load_u16(src + 2 * i));
}

void geul_f16_encode(const float *src, uint8_t *dst, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        store_u16(dst + 2 * i, geul_f32_to_f16(src[i]));
}

void geul_bf16_decode(const uint8_t *src, float *dst, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        dst[i] = geul_bf16_to_f32(load_u16(src + 2 * i));
}

void geul_bf16_encode(const float *src, uint8_t *dst, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        store_u16(dst + 2 * i, geul_f32_to_bf16(src[i]));
}

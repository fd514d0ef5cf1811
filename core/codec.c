/* codec.c: the reference encoding and decoding of every element type. Every faster kernel is tested against these. */
#include "core/tensor.h"

#include <math.h>
#include <string.h>

#define BLOCK 32

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
    return float_of(sign | (exponent + 112) << 23 | mantissa << 13);
}

uint16_t geul_f32_to_f16(float f)
{
    uint32_t u = bits_of(f), sign = (u >> 16) & 0x8000;
    u &= 0x7fffffff;
    if (u > 0x7f800000)
        return (uint16_t)(sign | 0x7e00 | ((u >> 13) & 0x3ff)); /* NaN stays NaN */
    if (u >= 0x47800000)
        return (uint16_t)(sign | 0x7c00); /* 65536 and more: infinity */
    if (u < 0x38800000) {                 /* below 2^-14: adding 2^-1 + ... rounds to a multiple of 2^-24 */
        uint32_t rounded = bits_of(float_of(u) + 0.5f) - bits_of(0.5f);
        return (uint16_t)(sign | rounded);
    }
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

static void decode_f32(const uint8_t *src, float *dst, int64_t n)
{
    memcpy(dst, src, (size_t)n * sizeof *dst);
}

static void encode_f32(const float *src, uint8_t *dst, int64_t n)
{
    memcpy(dst, src, (size_t)n * sizeof *src);
}

static void decode_f16(const uint8_t *src, float *dst, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        dst[i] = geul_f16_to_f32(load_u16(src + 2 * i));
}

static void encode_f16(const float *src, uint8_t *dst, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        store_u16(dst + 2 * i, geul_f32_to_f16(src[i]));
}

static void decode_bf16(const uint8_t *src, float *dst, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        dst[i] = geul_bf16_to_f32(load_u16(src + 2 * i));
}

static void encode_bf16(const float *src, uint8_t *dst, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        store_u16(dst + 2 * i, geul_f32_to_bf16(src[i]));
}

/* The element of largest magnitude of a block, with its sign; NaN when the block holds a NaN or infinity, so that
 * damage in a checkpoint is seen and not rounded away. */
static float block_extreme(const float *x)
{
    float extreme = 0;
    for (int i = 0; i < BLOCK; i++) {
        if (!isfinite(x[i]))
            return NAN;
        if (fabsf(x[i]) > fabsf(extreme))
            extreme = x[i];
    }
    return extreme;
}

/* Q8_0: float16 scale d, 32 int8 q; value d * q. */
static void decode_q8_0(const uint8_t *src, float *dst, int64_t n)
{
    for (int64_t b = 0; b < n / BLOCK; b++, src += 2 + BLOCK, dst += BLOCK) {
        float d = geul_f16_to_f32(load_u16(src));
        for (int i = 0; i < BLOCK; i++)
            dst[i] = d * (float)(int8_t)src[2 + i];
    }
}

static void encode_q8_0(const float *src, uint8_t *dst, int64_t n)
{
    for (int64_t b = 0; b < n / BLOCK; b++, src += BLOCK, dst += 2 + BLOCK) {
        float d = fabsf(block_extreme(src)) / 127.0f;
        float inverse = d > 0 ? 1.0f / d : 0.0f;
        store_u16(dst, geul_f32_to_f16(d));
        for (int i = 0; i < BLOCK; i++) {
            float q = roundf(src[i] * inverse);
            dst[2 + i] = (uint8_t)(int8_t)(q >= -128.0f && q <= 127.0f ? (int)q : q > 0 ? 127 : q < 0 ? -128 : 0);
        }
    }
}

/* Q4_0: float16 scale d, 16 bytes; byte i holds element i (low nibble) and i + 16 (high); value d * (q - 8). */
static void decode_q4_0(const uint8_t *src, float *dst, int64_t n)
{
    for (int64_t b = 0; b < n / BLOCK; b++, src += 2 + BLOCK / 2, dst += BLOCK) {
        float d = geul_f16_to_f32(load_u16(src));
        for (int i = 0; i < BLOCK / 2; i++) {
            dst[i] = d * (float)((src[2 + i] & 15) - 8);
            dst[i + BLOCK / 2] = d * (float)((src[2 + i] >> 4) - 8);
        }
    }
}

/* The product is formed in double so that rounding does not depend on whether the compiler fuses it with the sum; the
 * PyPI gguf package does the same. */
static int nibble(float x, float inverse)
{
    double q = (double)x * (double)inverse + 8.5;
    return q >= 16 ? 15 : q > 0 ? (int)q : 0;
}

static void encode_q4_0(const float *src, uint8_t *dst, int64_t n)
{
    for (int64_t b = 0; b < n / BLOCK; b++, src += BLOCK, dst += 2 + BLOCK / 2) {
        float d = block_extreme(src) / -8.0f;
        float inverse = d != 0 ? 1.0f / d : 0.0f;
        store_u16(dst, geul_f32_to_f16(d));
        for (int i = 0; i < BLOCK / 2; i++)
            dst[2 + i] = (uint8_t)(nibble(src[i], inverse) | nibble(src[i + BLOCK / 2], inverse) << 4);
    }
}

static void decode_none(const uint8_t *src, float *dst, int64_t n)
{
    (void)src;
    for (int64_t i = 0; i < n; i++)
        dst[i] = NAN;
}

static void encode_none(const float *src, uint8_t *dst, int64_t n)
{
    (void)src;
    (void)dst;
    (void)n;
}

static const struct {
    void (*decode)(const uint8_t *src, float *dst, int64_t n);
    void (*encode)(const float *src, uint8_t *dst, int64_t n);
} codecs[GEUL_TYPE_COUNT] = {
#define TYPE(id, name, gguf_id, block, bytes, act, codec) {decode_##codec, encode_##codec},
#include "geul_types.def"
#undef TYPE
};

void geul_decode(enum geul_type type, const void *src, float *dst, int64_t n)
{
    codecs[type].decode(src, dst, n);
}

void geul_encode(enum geul_type type, const float *src, void *dst, int64_t n)
{
    codecs[type].encode(src, dst, n);
}

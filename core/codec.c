/* codec.c: the reference encoding and decoding of every element type. Every faster kernel is tested against these. */
#include "core/block_choose.h"

#include <math.h>
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

/* A plain format has both functions; a block type has a choice of its integers, and what it means is in block.h. */
struct codec {
    void (*decode)(const uint8_t *src, float *dst, int64_t n);
    void (*encode)(const float *src, uint8_t *dst, int64_t n);
    geul_block_choice *choose;
};

static const struct codec codec_f32 = {decode_f32, encode_f32, NULL}, codec_f16 = {decode_f16, encode_f16, NULL},
                          codec_bf16 = {decode_bf16, encode_bf16, NULL}, codec_none = {decode_none, encode_none, NULL},
                          codec_nearest = {NULL, NULL, geul_choose_nearest},
                          codec_extreme = {NULL, NULL, geul_choose_extreme},
                          codec_affine = {NULL, NULL, geul_choose_affine},
                          codec_offset = {NULL, NULL, geul_choose_offset},
                          codec_centred = {NULL, NULL, geul_choose_centred};

static const struct codec *const codecs[GEUL_TYPE_COUNT] = {
#define TYPE(id, name, gguf_id, block, bytes, act, codec) &codec_##codec,
#include "geul_types.def"
#undef TYPE
};

void geul_decode(enum geul_type type, const void *src, float *dst, int64_t n)
{
    const struct geul_block_format *format = geul_block_format(type);
    if (!format) {
        codecs[type]->decode(src, dst, n);
        return;
    }
    struct geul_block block;
    const uint8_t *bytes = src;
    for (int64_t i = 0; i < n; i += format->block, bytes += geul_type_bytes(type)) {
        geul_block_unpack(type, bytes, &block);
        geul_block_values(format, &block, dst + i);
    }
}

void geul_encode(enum geul_type type, const float *src, void *dst, int64_t n)
{
    const struct geul_block_format *format = geul_block_format(type);
    if (!format) {
        codecs[type]->encode(src, dst, n);
        return;
    }
    struct geul_block block;
    uint8_t *bytes = dst;
    for (int64_t i = 0; i < n; i += format->block, bytes += geul_type_bytes(type)) {
        codecs[type]->choose(format, src + i, &block);
        geul_block_pack(type, &block, bytes);
    }
}

/* codec.c: the reference encoding and decoding of every element type. Every faster kernel is tested against these. */
#include "core/block_choose.h"
#include "core/half.h"

#include <math.h>
#include <string.h>

static void decode_f32(const uint8_t *src, float *dst, int64_t n)
{
    memcpy(dst, src, (size_t)n * sizeof *dst);
}

static void encode_f32(const float *src, uint8_t *dst, int64_t n)
{
    memcpy(dst, src, (size_t)n * sizeof *src);
}

/* I32 holds ids and positions, not weights. */
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

/* A plain format has both functions; a block type only the choice of its integers: block.h packs and decodes them. */
struct codec {
    void (*decode)(const uint8_t *src, float *dst, int64_t n);
    void (*encode)(const float *src, uint8_t *dst, int64_t n);
    geul_block_choice *choose;
};

static const struct codec codec_f32 = {decode_f32, encode_f32, NULL},
                          codec_f16 = {geul_f16_decode, geul_f16_encode, NULL},
                          codec_bf16 = {geul_bf16_decode, geul_bf16_encode, NULL},
                          codec_none = {decode_none, encode_none, NULL},
                          codec_nearest = {NULL, NULL, geul_choose_nearest},
                          codec_extreme = {NULL, NULL, geul_choose_extreme},
                          codec_affine = {NULL, NULL, geul_choose_affine},
                          codec_offset = {NULL, NULL, geul_choose_offset},
                          codec_centred = {NULL, NULL, geul_choose_centred};

static const struct codec *const codecs[GEUL_TYPE_COUNT] = {
#define TYPE(id, name, gguf_id, block, bytes, codec) &codec_##codec,
#include "geul_types.def"
#undef TYPE
};

bool geul_type_is_weight(enum geul_type type)
{
    return (unsigned)type < GEUL_TYPE_COUNT && codecs[type] != &codec_none;
}

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

int64_t geul_count_lost(enum geul_type type, const float *x, const void *encoded, int64_t n)
{
    /* No scale and no minimum is more than twice the largest value, and float16 holds up to 65504: below this nothing
     * can be lost, so what is usual is only looked at. Pieces hold whole blocks. */
    enum { PIECE = 256, SAFE = 16384 };
    float back[PIECE];
    const uint8_t *bytes = encoded;
    int64_t lost = 0, block = geul_type_block(type);
    for (int64_t at = 0; at < n; at += PIECE) {
        int64_t m = n - at < PIECE ? n - at : PIECE;
        bool safe = true;
        for (int64_t i = 0; i < m; i++)
            safe &= fabsf(x[at + i]) < SAFE; /* not so for NaN */
        if (safe)
            continue;
        geul_decode(type, bytes + (size_t)(at / block) * geul_type_bytes(type), back, m);
        for (int64_t i = 0; i < m; i++)
            lost += !isfinite(back[i]) || !isfinite(x[at + i]);
    }
    return lost;
}

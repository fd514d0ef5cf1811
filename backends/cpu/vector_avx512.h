/* vector_avx512.h: the vector type of kernels_float.h in AVX-512. Static: included once per unit. */
#include "backends/cpu/unroll.h"

typedef __m512 vf;

static inline __mmask16 first(size_t n)
{
    return (__mmask16)((1u << n) - 1);
}

static inline vf vf_zero(void)
{
    return _mm512_setzero_ps();
}
static inline vf vf_set1(float f)
{
    return _mm512_set1_ps(f);
}
static inline vf vf_load(const float *p)
{
    return _mm512_loadu_ps(p);
}
static inline void vf_store(float *p, vf v)
{
    _mm512_storeu_ps(p, v);
}
static inline vf vf_load_n(const float *p, size_t n)
{
    return _mm512_maskz_loadu_ps(first(n), p);
}
static inline void vf_store_n(float *p, vf v, size_t n)
{
    _mm512_mask_storeu_ps(p, first(n), v);
}
static inline vf vf_add(vf a, vf b)
{
    return _mm512_add_ps(a, b);
}
static inline vf vf_sub(vf a, vf b)
{
    return _mm512_sub_ps(a, b);
}
static inline vf vf_mul(vf a, vf b)
{
    return _mm512_mul_ps(a, b);
}
static inline vf vf_div(vf a, vf b)
{
    return _mm512_div_ps(a, b);
}
static inline vf vf_fma(vf a, vf b, vf c)
{
    return _mm512_fmadd_ps(a, b, c);
}
static inline vf vf_max(vf a, vf b)
{
    return _mm512_max_ps(a, b);
}
static inline vf vf_min(vf a, vf b)
{
    return _mm512_min_ps(a, b);
}
static inline float vf_sum(vf v)
{
    return _mm512_reduce_add_ps(v);
}
/* The sum of each of 16 vectors: lanes 8 apart, then 4 apart, then neighbours, then pairs of them. */
static inline vf vf_sums(const vf *v)
{
    vf h[8], s[4], p[2];
    for (int i = 0; i < 8; i++) {
        int at = i / 4 * 8 + i % 4;
        h[i] =
            _mm512_add_ps(_mm512_shuffle_f32x4(v[at], v[at + 4], 0x44), _mm512_shuffle_f32x4(v[at], v[at + 4], 0xee));
    }
    for (int i = 0; i < 4; i++)
        s[i] = _mm512_add_ps(_mm512_shuffle_f32x4(h[i], h[i + 4], 0x88), _mm512_shuffle_f32x4(h[i], h[i + 4], 0xdd));
    for (int i = 0; i < 2; i++) {
        __m512d a = _mm512_castps_pd(s[2 * i]), b = _mm512_castps_pd(s[2 * i + 1]);
        p[i] = _mm512_add_ps(_mm512_castpd_ps(_mm512_unpacklo_pd(a, b)), _mm512_castpd_ps(_mm512_unpackhi_pd(a, b)));
    }
    return _mm512_add_ps(_mm512_shuffle_ps(p[0], p[1], 0x88), _mm512_shuffle_ps(p[0], p[1], 0xdd));
}
static inline float vf_largest(vf v)
{
    return _mm512_reduce_max_ps(v);
}
static inline vf vf_round(vf v)
{
    return _mm512_roundscale_ps(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
static inline vf vf_pow2(vf n)
{
    __m512i e = _mm512_add_epi32(_mm512_cvtps_epi32(n), _mm512_set1_epi32(127));
    return _mm512_castsi512_ps(_mm512_slli_epi32(e, 23));
}
static inline vf vf_below_zero(vf x, vf a, vf b)
{
    return _mm512_mask_blend_ps(_mm512_cmp_ps_mask(x, _mm512_setzero_ps(), _CMP_LT_OQ), b, a);
}
static inline vf vf_load_f16(const void *p)
{
    return _mm512_cvtph_ps(_mm256_loadu_si256(p));
}
static inline vf vf_load_f16_n(const void *p, size_t n)
{
    return _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(first(n), p));
}
static inline void vf_store_f16(void *p, vf v)
{
    _mm256_storeu_si256(p, _mm512_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}
static inline float vf_scale_f16(const void *p)
{
    return _mm_cvtss_f32(_mm_cvtph_ps(_mm_loadu_si16(p)));
}
static inline vf vf_load_i8(const void *p)
{
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(p)));
}
static inline vf vf_load_bf16(const void *p)
{
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256(p)), 16));
}
static inline vf vf_load_bf16_n(const void *p, size_t n)
{
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(first(n), p)), 16));
}

/* Words 0..3 of rows j, j+4, j+8, j+12, one row per 128-bit lane. */
static inline __m512i four_rows(const uint8_t *p, size_t stride, size_t j)
{
    __m512i v = _mm512_castsi128_si512(_mm_loadu_si128((const void *)(p + j * stride)));
    v = _mm512_inserti32x4(v, _mm_loadu_si128((const void *)(p + (j + 4) * stride)), 1);
    v = _mm512_inserti32x4(v, _mm_loadu_si128((const void *)(p + (j + 8) * stride)), 2);
    return _mm512_inserti32x4(v, _mm_loadu_si128((const void *)(p + (j + 12) * stride)), 3);
}

/* Lane by lane, 4 x 4 words: out[c] gets word c of all 16 rows, in order. */
static inline void transpose_lanes(__m512i out[4], __m512i r0, __m512i r1, __m512i r2, __m512i r3)
{
    __m512i a = _mm512_unpacklo_epi32(r0, r1), b = _mm512_unpackhi_epi32(r0, r1);
    __m512i c = _mm512_unpacklo_epi32(r2, r3), d = _mm512_unpackhi_epi32(r2, r3);
    out[0] = _mm512_unpacklo_epi64(a, c);
    out[1] = _mm512_unpackhi_epi64(a, c);
    out[2] = _mm512_unpacklo_epi64(b, d);
    out[3] = _mm512_unpackhi_epi64(b, d);
}

/* 16 rows of 4 words into 4 vectors of 16. Strides in bytes. */
static inline void vf_transpose4(const void *src, size_t src_stride, void *dst, size_t dst_stride)
{
    __m512i t[4];
    transpose_lanes(t, four_rows(src, src_stride, 0), four_rows(src, src_stride, 1), four_rows(src, src_stride, 2),
                    four_rows(src, src_stride, 3));
    for (size_t c = 0; c < 4; c++)
        _mm512_storeu_si512((uint8_t *)dst + c * dst_stride, t[c]);
}

/* Transposes 16 x 16: row r, column c goes to row c, column r. out may be in. */
INLINE void turn(__m512 out[16], const __m512 in[16])
{
    __m512 a[16], b[16];
    UNROLL for (int i = 0; i < 16; i += 2)
    {
        a[i] = _mm512_unpacklo_ps(in[i], in[i + 1]);
        a[i + 1] = _mm512_unpackhi_ps(in[i], in[i + 1]);
    }
    UNROLL for (int i = 0; i < 16; i += 4) UNROLL for (int j = 0; j < 2; j++)
    {
        __m512d low = _mm512_castps_pd(a[i + j]), high = _mm512_castps_pd(a[i + 2 + j]);
        b[i + 2 * j] = _mm512_castpd_ps(_mm512_unpacklo_pd(low, high));
        b[i + 2 * j + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(low, high));
    }
    UNROLL for (int j = 0; j < 4; j++) /* lane l of b[4 i + j]: column 4 l + j of rows 4 i.. */
    {
        __m512 even[2] = {_mm512_shuffle_f32x4(b[j], b[4 + j], 0x88), _mm512_shuffle_f32x4(b[8 + j], b[12 + j], 0x88)};
        __m512 odd[2] = {_mm512_shuffle_f32x4(b[j], b[4 + j], 0xdd), _mm512_shuffle_f32x4(b[8 + j], b[12 + j], 0xdd)};
        out[j] = _mm512_shuffle_f32x4(even[0], even[1], 0x88);
        out[8 + j] = _mm512_shuffle_f32x4(even[0], even[1], 0xdd);
        out[4 + j] = _mm512_shuffle_f32x4(odd[0], odd[1], 0x88);
        out[12 + j] = _mm512_shuffle_f32x4(odd[0], odd[1], 0xdd);
    }
}

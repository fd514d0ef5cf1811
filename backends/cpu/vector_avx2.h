/* vector_avx2.h: the vector type of kernels_float.h in AVX2, FMA and F16C. Static: included once per unit. */
typedef __m256 vf;

/* All ones in the first n of 8 words. */
static inline __m256i first(size_t n)
{
    return _mm256_cmpgt_epi32(_mm256_set1_epi32((int)n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

static inline vf vf_zero(void)
{
    return _mm256_setzero_ps();
}
static inline vf vf_set1(float f)
{
    return _mm256_set1_ps(f);
}
static inline vf vf_load(const float *p)
{
    return _mm256_loadu_ps(p);
}
static inline void vf_store(float *p, vf v)
{
    _mm256_storeu_ps(p, v);
}
static inline vf vf_load_n(const float *p, size_t n)
{
    return _mm256_maskload_ps(p, first(n));
}
static inline void vf_store_n(float *p, vf v, size_t n)
{
    _mm256_maskstore_ps(p, first(n), v);
}
static inline vf vf_add(vf a, vf b)
{
    return _mm256_add_ps(a, b);
}
static inline vf vf_sub(vf a, vf b)
{
    return _mm256_sub_ps(a, b);
}
static inline vf vf_mul(vf a, vf b)
{
    return _mm256_mul_ps(a, b);
}
static inline vf vf_div(vf a, vf b)
{
    return _mm256_div_ps(a, b);
}
static inline vf vf_fma(vf a, vf b, vf c)
{
    return _mm256_fmadd_ps(a, b, c);
}
static inline vf vf_max(vf a, vf b)
{
    return _mm256_max_ps(a, b);
}
static inline vf vf_min(vf a, vf b)
{
    return _mm256_min_ps(a, b);
}
static inline float vf_sum(vf v)
{
    __m128 s = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    s = _mm_add_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
}
/* The sum of each of 8 vectors: lanes 4 apart, then neighbours, then pairs of them. */
static inline vf vf_sums(const vf *v)
{
    vf s[4], p[2];
    for (int i = 0; i < 4; i++)
        s[i] =
            _mm256_add_ps(_mm256_permute2f128_ps(v[i], v[i + 4], 0x20), _mm256_permute2f128_ps(v[i], v[i + 4], 0x31));
    for (int i = 0; i < 2; i++) {
        __m256d a = _mm256_castps_pd(s[2 * i]), b = _mm256_castps_pd(s[2 * i + 1]);
        p[i] = _mm256_add_ps(_mm256_castpd_ps(_mm256_unpacklo_pd(a, b)), _mm256_castpd_ps(_mm256_unpackhi_pd(a, b)));
    }
    return _mm256_add_ps(_mm256_shuffle_ps(p[0], p[1], 0x88), _mm256_shuffle_ps(p[0], p[1], 0xdd));
}
static inline float vf_largest(vf v)
{
    __m128 s = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    s = _mm_max_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_max_ss(s, _mm_movehdup_ps(s)));
}
static inline vf vf_round(vf v)
{
    return _mm256_round_ps(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
static inline vf vf_pow2(vf n)
{
    __m256i e = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
    return _mm256_castsi256_ps(_mm256_slli_epi32(e, 23));
}
static inline vf vf_below_zero(vf x, vf a, vf b)
{
    return _mm256_blendv_ps(b, a, _mm256_cmp_ps(x, _mm256_setzero_ps(), _CMP_LT_OQ));
}
static inline __m128i load_halves_n(const void *p, size_t n)
{
    uint16_t h[8] = {0};
    memcpy(h, p, 2 * n);
    return _mm_loadu_si128((const void *)h);
}
static inline vf vf_load_f16(const void *p)
{
    return _mm256_cvtph_ps(_mm_loadu_si128(p));
}
static inline vf vf_load_f16_n(const void *p, size_t n)
{
    return _mm256_cvtph_ps(load_halves_n(p, n));
}
static inline void vf_store_f16(void *p, vf v)
{
    _mm_storeu_si128(p, _mm256_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}
static inline float vf_scale_f16(const void *p)
{
    return _mm_cvtss_f32(_mm_cvtph_ps(_mm_loadu_si16(p)));
}
static inline vf vf_load_i8(const void *p)
{
    return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(p)));
}
static inline vf vf_load_bf16(const void *p)
{
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128(p)), 16));
}
static inline vf vf_load_bf16_n(const void *p, size_t n)
{
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(load_halves_n(p, n)), 16));
}

/* Words 0..3 of rows j and j+4, one row per 128-bit lane. */
static inline __m256i two_rows(const uint8_t *p, size_t stride, size_t j)
{
    __m256i v = _mm256_castsi128_si256(_mm_loadu_si128((const void *)(p + j * stride)));
    return _mm256_inserti128_si256(v, _mm_loadu_si128((const void *)(p + (j + 4) * stride)), 1);
}

/* Lane by lane, 4 x 4 words: out[c] gets word c of all 8 rows, in order. */
static inline void transpose_lanes(__m256i out[4], __m256i r0, __m256i r1, __m256i r2, __m256i r3)
{
    __m256i a = _mm256_unpacklo_epi32(r0, r1), b = _mm256_unpackhi_epi32(r0, r1);
    __m256i c = _mm256_unpacklo_epi32(r2, r3), d = _mm256_unpackhi_epi32(r2, r3);
    out[0] = _mm256_unpacklo_epi64(a, c);
    out[1] = _mm256_unpackhi_epi64(a, c);
    out[2] = _mm256_unpacklo_epi64(b, d);
    out[3] = _mm256_unpackhi_epi64(b, d);
}

/* 8 rows of 4 words into 4 vectors of 8. Strides in bytes. */
static inline void vf_transpose4(const void *src, size_t src_stride, void *dst, size_t dst_stride)
{
    __m256i t[4];
    transpose_lanes(t, two_rows(src, src_stride, 0), two_rows(src, src_stride, 1), two_rows(src, src_stride, 2),
                    two_rows(src, src_stride, 3));
    for (size_t c = 0; c < 4; c++)
        _mm256_storeu_si256((void *)((uint8_t *)dst + c * dst_stride), t[c]);
}

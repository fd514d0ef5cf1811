/* quantize_x86.h: 32 activations to int8 with AVX2, for the units that multiply int8. Static: see kernels_float.h. */
#include <immintrin.h>
#include <math.h>
#include <stdint.h>

/* The 32 int8 of x into *q; returns their scale, NaN when x holds an infinite or undefined value. Bit-equal to
 * kernels_scalar.c. */
static inline float quantize32(const float *x, __m256i *q)
{
    const __m256i positive = _mm256_set1_epi32(0x7fffffff);
    __m256 v[4];
    __m256i largest = _mm256_setzero_si256();
    for (int i = 0; i < 4; i++) {
        v[i] = _mm256_loadu_ps(x + 8 * i);
        largest = _mm256_max_epi32(largest, _mm256_and_si256(_mm256_castps_si256(v[i]), positive));
    }
    __m128i m = _mm_max_epi32(_mm256_castsi256_si128(largest), _mm256_extracti128_si256(largest, 1));
    m = _mm_max_epi32(m, _mm_shuffle_epi32(m, 0x4e));
    m = _mm_max_epi32(m, _mm_shuffle_epi32(m, 0xb1));
    float amax = _mm_cvtss_f32(_mm_castsi128_ps(m));
    *q = _mm256_setzero_si256();
    if (_mm_cvtsi128_si32(m) >= 0x7f800000)
        return NAN;
    if (amax < 0x1p-100f)
        return 0;
    __m256 inverse = _mm256_set1_ps(127.0f / amax);
    __m256i w[4];
    for (int i = 0; i < 4; i++)
        w[i] = _mm256_cvtps_epi32(_mm256_mul_ps(v[i], inverse));
    __m256i low = _mm256_packs_epi32(w[0], w[1]), high = _mm256_packs_epi32(w[2], w[3]);
    /* The packs work within halves; this puts the groups of 4 in order again. */
    *q = _mm256_permutevar8x32_epi32(_mm256_packs_epi16(low, high), _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
    return amax / 127.0f;
}

/* Sums of the first and the last 16 of 32 int8, in words 0 and 2. */
static inline __m128i sums16(__m256i q)
{
    __m256i s = _mm256_sad_epu8(_mm256_xor_si256(q, _mm256_set1_epi8(-128)), _mm256_setzero_si256());
    __m128i low = _mm256_castsi256_si128(s), high = _mm256_extracti128_si256(s, 1);
    __m128i t = _mm_add_epi64(_mm_unpacklo_epi64(low, high), _mm_unpackhi_epi64(low, high));
    return _mm_sub_epi64(t, _mm_set1_epi64x(16 * 128));
}

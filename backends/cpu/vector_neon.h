/* vector_neon.h: the vector type of kernels_float.h in NEON. Static: included once per unit. */
typedef float32x4_t vf;

static inline vf vf_zero(void)
{
    return vdupq_n_f32(0);
}
static inline vf vf_set1(float f)
{
    return vdupq_n_f32(f);
}
static inline vf vf_load(const float *p)
{
    return vld1q_f32(p);
}
static inline void vf_store(float *p, vf v)
{
    vst1q_f32(p, v);
}
static inline vf vf_load_n(const float *p, size_t n)
{
    float f[4] = {0};
    memcpy(f, p, (n < 4 ? n : 4) * sizeof f[0]);
    return vld1q_f32(f);
}
static inline void vf_store_n(float *p, vf v, size_t n)
{
    float f[4];
    vst1q_f32(f, v);
    memcpy(p, f, (n < 4 ? n : 4) * sizeof f[0]);
}
static inline vf vf_add(vf a, vf b)
{
    return vaddq_f32(a, b);
}
static inline vf vf_sub(vf a, vf b)
{
    return vsubq_f32(a, b);
}
static inline vf vf_mul(vf a, vf b)
{
    return vmulq_f32(a, b);
}
static inline vf vf_div(vf a, vf b)
{
    return vdivq_f32(a, b);
}
static inline vf vf_fma(vf a, vf b, vf c)
{
    return vfmaq_f32(c, a, b);
}
static inline vf vf_max(vf a, vf b)
{
    return vmaxq_f32(a, b);
}
static inline vf vf_min(vf a, vf b)
{
    return vminq_f32(a, b);
}
static inline float vf_sum(vf v)
{
    return vaddvq_f32(v);
}
static inline float vf_largest(vf v)
{
    return vmaxvq_f32(v);
}
static inline vf vf_round(vf v)
{
    return vrndnq_f32(v);
}
static inline vf vf_pow2(vf n)
{
    return vreinterpretq_f32_s32(vshlq_n_s32(vaddq_s32(vcvtq_s32_f32(n), vdupq_n_s32(127)), 23));
}
static inline vf vf_below_zero(vf x, vf a, vf b)
{
    return vbslq_f32(vcltzq_f32(x), a, b);
}
static inline uint16x4_t load_halves_n(const void *p, size_t n)
{
    uint16_t h[4] = {0};
    memcpy(h, p, (n < 4 ? n : 4) * sizeof h[0]);
    return vld1_u16(h);
}
static inline vf vf_load_f16(const void *p)
{
    return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(p)));
}
static inline vf vf_load_f16_n(const void *p, size_t n)
{
    return vcvt_f32_f16(vreinterpret_f16_u16(load_halves_n(p, n)));
}
static inline void vf_store_f16(void *p, vf v)
{
    vst1_u16(p, vreinterpret_u16_f16(vcvt_f16_f32(v)));
}
static inline vf vf_load_bf16(const void *p)
{
    return vreinterpretq_f32_u32(vshll_n_u16(vld1_u16(p), 16));
}
static inline vf vf_load_bf16_n(const void *p, size_t n)
{
    return vreinterpretq_f32_u32(vshll_n_u16(load_halves_n(p, n), 16));
}

/* 4 rows of 4 words into 4 vectors of 4. Strides in bytes. */
static inline void vf_transpose4(const void *src, size_t src_stride, void *dst, size_t dst_stride)
{
    const uint8_t *p = src;
    uint8_t *out = dst;
    uint32x4x2_t a = vtrnq_u32(vreinterpretq_u32_u8(vld1q_u8(p)), vreinterpretq_u32_u8(vld1q_u8(p + src_stride)));
    uint32x4x2_t b = vtrnq_u32(vreinterpretq_u32_u8(vld1q_u8(p + 2 * src_stride)),
                               vreinterpretq_u32_u8(vld1q_u8(p + 3 * src_stride)));
    uint32x4_t rows[4] = {vcombine_u32(vget_low_u32(a.val[0]), vget_low_u32(b.val[0])),
                          vcombine_u32(vget_low_u32(a.val[1]), vget_low_u32(b.val[1])),
                          vcombine_u32(vget_high_u32(a.val[0]), vget_high_u32(b.val[0])),
                          vcombine_u32(vget_high_u32(a.val[1]), vget_high_u32(b.val[1]))};
    for (size_t c = 0; c < 4; c++)
        vst1q_u8(out + c * dst_stride, vreinterpretq_u8_u32(rows[c]));
}

/* loss_float.h: the kernels of the loss over the vector type of kernels_float.h, which includes this. */

/* e^(x - max). The difference is exact where it matters, and its product with log2(e) = high + low is rounded only
 * after its whole part is gone. */
INLINE vf power(vf x, vf max)
{
    const vf high = vf_set1(1.44269502f), low = vf_set1(1.92596299e-8f);
    vf d = vf_min(vf_set1(88.0f), vf_max(vf_set1(-88.0f), vf_sub(x, max)));
    vf n = vf_round(vf_mul(d, high)), f = vf_fma(d, high, vf_sub(vf_zero(), n));
    return vf_exp2_of(n, vf_fma(d, low, f));
}

/* NaN is passed over: it reaches the sums. */
INLINE float largest_of(const float *x, size_t n)
{
    enum { N = 4 };
    vf high[N];
    size_t i = 0;
    UNROLL for (int j = 0; j < N; j++) high[j] = vf_set1(-INFINITY);
    for (; i + N * VF_WIDTH <= n; i += N * VF_WIDTH)
        UNROLL for (size_t j = 0; j < N; j++) high[j] = vf_max(vf_load(x + i + j * VF_WIDTH), high[j]);
    float max = vf_largest(vf_max(vf_max(high[0], high[1]), vf_max(high[2], high[3])));
    for (; i < n; i++)
        max = x[i] > max ? x[i] : max;
    return max;
}

/* Vectors sum up short pieces only, doubles the pieces. */
static float softmax_sums(const float *x, size_t n, double *powers, double *rests)
{
    enum { N = 2, PIECE = 16 * N * VF_WIDTH };
    float max = largest_of(x, n);
    vf m = vf_set1(max);
    size_t i = 0;
    *powers = *rests = 0;
    for (; i + N * VF_WIDTH <= n;) {
        size_t end = n - i < PIECE ? n : i + PIECE;
        vf p[N], r[N];
        UNROLL for (int j = 0; j < N; j++) p[j] = r[j] = vf_zero();
        for (; i + N * VF_WIDTH <= end; i += N * VF_WIDTH)
            UNROLL for (size_t j = 0; j < N; j++)
            {
                vf v = vf_load(x + i + j * VF_WIDTH);
                p[j] = vf_add(p[j], power(v, m));
                r[j] = vf_add(r[j], vf_sub(v, m));
            }
        *powers += (double)vf_sum(vf_add(p[0], p[1]));
        *rests += (double)vf_sum(vf_add(r[0], r[1]));
    }
    for (size_t left; i < n; i += left) {
        float p[VF_WIDTH];
        left = n - i < VF_WIDTH ? n - i : VF_WIDTH;
        vf_store(p, power(vf_load_n(x + i, left), m));
        for (size_t j = 0; j < left; j++) {
            *powers += (double)p[j];
            *rests += (double)x[i + j] - (double)max;
        }
    }
    return max;
}

static void softmax_line(float *out, const float *x, size_t n, float max, float a, float b)
{
    vf m = vf_set1(max), factor = vf_set1(a), offset = vf_set1(b);
    size_t i = 0;
    for (; i + VF_WIDTH <= n; i += VF_WIDTH)
        vf_store(out + i, vf_fma(power(vf_load(x + i), m), factor, offset));
    if (i < n)
        vf_store_n(out + i, vf_fma(power(vf_load_n(x + i, n - i), m), factor, offset), n - i);
}

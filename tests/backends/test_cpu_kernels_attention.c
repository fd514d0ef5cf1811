/* test_cpu_kernels_attention.c: attention's kernels: scores and sums over cached keys and values, and the cache's
 * types. */
#include "tests/backends/cpu_kernel_cases.h"

/* A depth near size number s that the type can have. */
static size_t depth_of(enum geul_type type, int s)
{
    return geul_type_block(type) > 1 ? sizes[s] / 40 * 32 + 32 : sizes[s];
}

/* Scores of rows 1, 2, ... and the same bits for a row regardless of the rows computed with it. */
void cpu_check_score(enum geul_type type)
{
    enum { ROWS = 37 };
    for (int s = 0; s < N_SIZES; s++) {
        size_t n = depth_of(type, s);
        struct cpu_weights k = cpu_weights_new(type, ROWS, n);
        float *q = cpu_randoms(n, 1), one;
        double want[ROWS], size = 1;
        for (size_t r = 0; r < ROWS; r++) {
            want[r] = 0;
            for (size_t i = 0; i < n; i++) {
                want[r] += k.values[r * n + i] * q[i];
                size = fmax(size, fabs(k.values[r * n + i] * q[i]));
            }
        }
        for (size_t rows = 1; rows <= ROWS; rows += 1 + rows % 5) {
            struct cpu_guard out = cpu_guard(rows * sizeof(float), 4);
            cpu_kernels->score[type]((float *)out.data, k.data, k.stride, q, rows, n);
            cpu_check_slot("score", rows, out.data, want, 3e-7 * size * sqrt((double)n), 1e-6);
            cpu_kernels->score[type](&one, k.data + (rows - 1) * k.stride, k.stride, q, 1, n);
            CHECK_MSG(memcmp(&one, out.data + (rows - 1) * sizeof one, sizeof one) == 0,
                      "%s score: a row depends on its neighbours", cpu_variant);
            cpu_guard_free(&out, "score");
        }
        free(q);
        cpu_weights_free(&k);
    }
}

/* The tile kernels give the bits of those for one query. */
void cpu_check_score_tile(void)
{
    enum { QUERIES = 12, KEYS = 40 };
    for (int s = 0; s < N_SIZES; s++) {
        size_t n = sizes[s];
        struct cpu_weights k = cpu_weights_new(GEUL_TYPE_F32, KEYS, n);
        float *q = cpu_randoms(QUERIES * n, 1), *packed = malloc(KEYS * n * sizeof *packed);
        cpu_kernels->widen[GEUL_TYPE_F32](packed, k.data, k.stride, KEYS, n);
        for (size_t keys = 4; keys <= KEYS; keys += 12) {
            struct cpu_guard out = cpu_guard(QUERIES * KEYS * sizeof(float), 4);
            cpu_kernels->score_tile((float *)out.data, KEYS, q, QUERIES, packed, keys, n);
            for (size_t t = 0; t < QUERIES; t++) {
                float alone[KEYS];
                cpu_kernels->score[GEUL_TYPE_F32](alone, packed, n * sizeof *packed, q + t * n, keys, n);
                CHECK_MSG(memcmp(alone, (float *)out.data + t * KEYS, keys * sizeof *alone) == 0,
                          "%s score_tile: query %zu of depth %zu has other bits than alone", cpu_variant, t, n);
            }
            cpu_guard_free(&out, "score_tile");
        }
        free(q);
        free(packed);
        cpu_weights_free(&k);
    }
}

/* Weights with the queries in rows, and in columns. */
void cpu_check_mix_tile(void)
{
    enum { QUERIES = 8, KEYS = 21, STRIDE = 24 };
    for (int s = 0; s < 2 * N_SIZES; s++) {
        size_t n = sizes[s / 2], stride = s % 2 ? 1 : STRIDE, step = s % 2 ? STRIDE : 1;
        float *v = cpu_randoms(KEYS * n, 1), *p = cpu_randoms(STRIDE * STRIDE, 1), *want = cpu_randoms(QUERIES * n, 1);
        struct cpu_guard out = cpu_guard(QUERIES * n * sizeof(float), 4);
        memcpy(out.data, want, QUERIES * n * sizeof *want);
        cpu_kernels->mix_tile((float *)out.data, v, p, stride, step, QUERIES, KEYS, n);
        for (size_t t = 0; t < QUERIES; t++) {
            float row[KEYS];
            for (size_t r = 0; r < KEYS; r++)
                row[r] = p[t * stride + r * step];
            cpu_kernels->mix[GEUL_TYPE_F32](want + t * n, v, n * sizeof *v, row, KEYS, n);
        }
        CHECK_MSG(memcmp(want, out.data, QUERIES * n * sizeof *want) == 0,
                  "%s mix_tile: depth %zu has other bits than one query alone", cpu_variant, n);
        cpu_guard_free(&out, "mix_tile");
        free(v);
        free(p);
        free(want);
    }
}

void cpu_check_widen(enum geul_type type)
{
    enum { ROWS = 5 };
    for (int s = 0; s < N_SIZES; s++) {
        size_t n = depth_of(type, s);
        struct cpu_weights x = cpu_weights_new(type, ROWS, n);
        struct cpu_guard out = cpu_guard(ROWS * n * sizeof(float), 4);
        cpu_kernels->widen[type]((float *)out.data, x.data, x.stride, ROWS, n);
        cpu_check_slot("widen", ROWS * n, out.data, x.values, 0, 0);
        cpu_guard_free(&out, "widen");
        cpu_weights_free(&x);
    }
}

void cpu_check_mix(enum geul_type type)
{
    enum { ROWS = 9 };
    for (int s = 0; s < N_SIZES; s++) {
        size_t n = depth_of(type, s);
        struct cpu_weights v = cpu_weights_new(type, ROWS, n);
        float *p = cpu_randoms(ROWS, 1);
        double want[LONGEST];
        struct cpu_guard out = cpu_guard(n * sizeof(float), 4);
        for (size_t i = 0; i < n; i++) {
            want[i] = ((float *)out.data)[i] = test_normal(&cpu_seed);
            for (size_t r = 0; r < ROWS; r++)
                want[i] += (double)p[r] * v.values[r * n + i];
        }
        cpu_kernels->mix[type]((float *)out.data, v.data, v.stride, p, ROWS, n);
        cpu_check_slot("mix", n, out.data, want, 1e-5, 1e-6);
        cpu_guard_free(&out, "mix");
        free(p);
        cpu_weights_free(&v);
    }
}

/* Bit for bit what the reference encoding gives. */
void cpu_check_narrow(enum geul_type type)
{
    const float special[] = {NAN,   INFINITY, -INFINITY, 0,       -0.0f,    65504,  65519.9f,       65520,        1e30f,
                             6e-8f, 3e-8f,    2.9e-8f,   6.1e-5f, -6.2e-5f, 1e-40f, 1.00048828125f, 1.0009765625f};
    for (int s = 0; s < N_SIZES; s++) {
        size_t block = (size_t)geul_type_block(type), n = block > 1 ? depth_of(type, s) : sizes[s];
        size_t bytes = n / block * geul_type_bytes(type);
        float *x = cpu_randoms(n, 100);
        uint16_t want[2 * LONGEST], got[2 * LONGEST];
        for (size_t i = 0; i < n && i < sizeof special / sizeof special[0]; i++)
            x[n - 1 - i] = special[i];
        for (size_t i = 0; block > 1 && i < block; i++) /* one block whose steps are halves of integers */
            x[n - block + i] = i == 7 ? 127 : (float)i - 15.5f;
        geul_encode(type, x, want, (int64_t)n);
        struct cpu_guard out = cpu_guard(bytes, 2 * (size_t)(s % 2));
        cpu_kernels->narrow[type](out.data, x, n);
        memcpy(got, out.data, bytes);
        for (size_t i = 0; i < bytes / 2; i++) {
            bool nan = geul_type_bytes(type) == 2 && isnan(x[i]) && (got[i] & 0x7f80) == (want[i] & 0x7f80);
            if (!CHECK_MSG(got[i] == want[i] || nan, "%s narrow %s: %.9g gives %04x, expected %04x", cpu_variant,
                           geul_type_name(type), x[i * 2 / geul_type_bytes(type) * block], got[i], want[i]))
                break;
        }
        cpu_guard_free(&out, "narrow");
        free(x);
    }
}

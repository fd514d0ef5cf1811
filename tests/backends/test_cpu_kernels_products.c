/* test_cpu_kernels_products.c: weights times tokens: panels, their packing, and the dot kernels for one token. */
#include "tests/backends/cpu_kernel_cases.h"

#include "core/block.h"
#include "core/half.h"

/* The activations as the product reads them: int8 blocks for block types, bfloat16 where the panel rounds them. */
static void seen_activations(float *x, size_t k, bool blocks, bool bf16)
{
    for (size_t i = 0; blocks && i < k; i += 32) {
        float amax = 0;
        for (size_t j = 0; j < 32; j++)
            amax = fabsf(x[i + j]) > amax ? fabsf(x[i + j]) : amax;
        for (size_t j = 0; amax > 0 && j < 32; j++)
            x[i + j] = (float)lrintf(x[i + j] * (127.0f / amax)) * (amax / 127.0f);
    }
    for (size_t i = 0; bf16 && i < k; i++)
        x[i] = geul_bf16_to_f32(geul_f32_to_bf16(x[i]));
}

/* One tile of rows weight rows and tokens tokens. */
static void check_tile(const struct geul_cpu_panel *g, enum geul_type type, size_t k, int rows, int tokens, bool bf16)
{
    size_t mr = (size_t)g->mr;
    struct cpu_weights w = cpu_weights_new(type, (size_t)rows, k);
    float *x = cpu_randoms((size_t)tokens * (k + 3), 1), *start = cpu_randoms(mr, 1);
    struct cpu_guard panel = cpu_guard(geul_cpu_packed_bytes(k, g->k_step, g->w_step), 0);
    struct cpu_guard packed = cpu_guard(geul_cpu_packed_bytes(k, g->k_step, g->x_step), 0);
    struct cpu_guard out = cpu_guard(mr * (size_t)tokens * sizeof(float), 0);
    struct geul_cpu_prefetch prefetch = {w.data, w.data + w.stride};
    for (size_t i = 0; bf16 && type == GEUL_TYPE_F32 && i < (size_t)rows * k; i++) /* rounded too */
        w.values[i] = geul_bf16_to_f32(geul_f32_to_bf16((float)w.values[i]));
    g->pack_w(panel.data, w.data, w.stride, rows, k, tokens % 2 ? &prefetch : NULL);
    g->pack_x(packed.data, x, (k + 3) * sizeof(float), tokens, k);
    g->tile((float *)out.data, mr, panel.data, packed.data, k, start, tokens);
    g->tile((float *)out.data, mr, panel.data, packed.data, k, NULL, tokens); /* a second time on top */
    for (int t = 0; t < tokens; t++) {
        seen_activations(x + (size_t)t * (k + 3), k, g->pack_w_outer == NULL && geul_type_block(type) > 1, bf16);
        double want[128], size = 1;
        for (size_t r = 0; r < (size_t)rows; r++) {
            want[r] = start[r];
            for (size_t i = 0; i < k; i++) {
                double product = w.values[r * k + i] * x[(size_t)t * (k + 3) + i];
                want[r] += 2 * product;
                size = fmax(size, fabs(product));
            }
        }
        char what[96];
        snprintf(what, sizeof what, "%s panel %s k=%zu rows=%d token %d of %d", cpu_variant, geul_type_name(type), k,
                 rows, t, tokens);
        cpu_close(what, (float *)out.data + (size_t)t * mr, want, rows, 1e-6 * size * sqrt((double)k), 2e-6);
    }
    cpu_guard_free(&panel, "pack_w");
    cpu_guard_free(&packed, "pack_x");
    cpu_guard_free(&out, "tile");
    free(x);
    free(start);
    cpu_weights_free(&w);
}

/* Fewer tokens, and every token alone with k in two pieces, must give the bits of the whole tile; a damaged activation
 * must show. */
static void check_invariance(const struct geul_cpu_panel *g, enum geul_type type, size_t k)
{
    size_t mr = (size_t)g->mr, nr = (size_t)g->nr, step = geul_type_block(type) > 1 ? 256 : g->k_step;
    size_t half = k / 2 / step * step, bytes = geul_type_bytes(type);
    struct cpu_weights w = cpu_weights_new(type, mr, k);
    float *x = cpu_randoms(nr * k, 1), *start = cpu_randoms(mr, 1);
    float *whole = malloc(mr * nr * sizeof *whole), *alone = malloc(mr * nr * sizeof *alone);
    struct cpu_guard panel = cpu_guard(geul_cpu_packed_bytes(k, g->k_step, g->w_step), 0);
    struct cpu_guard packed = cpu_guard(geul_cpu_packed_bytes(k, g->k_step, g->x_step), 0);
    g->pack_w(panel.data, w.data, w.stride, g->mr, k, NULL);
    g->pack_x(packed.data, x, k * sizeof *x, g->nr, k);
    g->tile(whole, mr, panel.data, packed.data, k, start, g->nr);
    for (size_t t = 1; t < nr; t++) {
        g->pack_x(packed.data, x, k * sizeof *x, (int)t, k);
        g->tile(alone, mr, panel.data, packed.data, k, start, (int)t);
        CHECK_MSG(memcmp(alone, whole, mr * t * sizeof *alone) == 0, "%s panel %s: %zu tokens have other bits than %zu",
                  cpu_variant, geul_type_name(type), t, nr);
    }
    for (size_t t = 0; t < nr; t++) {
        const uint8_t *rest = w.data + half / (size_t)geul_type_block(type) * bytes;
        g->pack_w(panel.data, w.data, w.stride, g->mr, half, NULL);
        g->pack_x(packed.data, x + t * k, k * sizeof *x, 1, half);
        g->tile(alone, mr, panel.data, packed.data, half, start, 1);
        g->pack_w(panel.data, rest, w.stride, g->mr, k - half, NULL);
        g->pack_x(packed.data, x + t * k + half, k * sizeof *x, 1, k - half);
        g->tile(alone, mr, panel.data, packed.data, k - half, NULL, 1);
        CHECK_MSG(memcmp(alone, whole + t * mr, mr * sizeof *alone) == 0,
                  "%s panel %s: token %zu of %zu has other bits than alone", cpu_variant, geul_type_name(type), t, nr);
    }
    x[k - 1] = k % 64 ? INFINITY : NAN;
    g->pack_w(panel.data, w.data, w.stride, g->mr, k, NULL);
    g->pack_x(packed.data, x, k * sizeof *x, 1, k);
    g->tile(alone, mr, panel.data, packed.data, k, start, 1);
    CHECK_MSG(!isfinite(alone[0]) && !isfinite(alone[mr - 1]), "%s panel %s hides NaN", cpu_variant,
              geul_type_name(type));
    cpu_guard_free(&panel, "pack_w");
    cpu_guard_free(&packed, "pack_x");
    free(x);
    free(start);
    free(whole);
    free(alone);
    cpu_weights_free(&w);
}

/* All weights at one end of their integers and all activations equal: sums on the way must not overflow. */
static void check_extremes(const struct geul_cpu_panel *g, enum geul_type type)
{
    const struct geul_block_format *f = geul_block_format(type);
    size_t n = (size_t)f->block;
    for (int high = 0; high < 2; high++) {
        struct geul_block b = {.d = 1};
        int q = high ? f->q_high : f->q_low;
        uint8_t bytes[GEUL_BLOCK_MAX];
        float x[GEUL_BLOCK_MAX], out[128], zeros[128] = {0};
        double want[128];
        for (size_t i = 0; i < n; i++) {
            b.scale[i / (size_t)f->group] = 1;
            b.min[i / (size_t)f->group] = f->min_high == 1;
            b.q[i] = (int16_t)q;
            x[i] = 1;
        }
        geul_block_pack(type, &b, bytes);
        for (int r = 0; r < g->mr; r++)
            want[r] = (double)n * (f->codebook ? f->codebook[q] : q);
        struct cpu_guard panel = cpu_guard(geul_cpu_packed_bytes(n, g->k_step, g->w_step), 0);
        struct cpu_guard packed = cpu_guard(geul_cpu_packed_bytes(n, g->k_step, g->x_step), 0);
        g->pack_w(panel.data, bytes, 0, g->mr, n, NULL);
        g->pack_x(packed.data, x, 0, 1, n);
        g->tile(out, (size_t)g->mr, panel.data, packed.data, n, zeros, 1);
        cpu_check_slot(geul_type_name(type), (size_t)g->mr, out, want, 0, 2e-6);
        cpu_guard_free(&panel, "pack_w");
        cpu_guard_free(&packed, "pack_x");
    }
}

/* Any number of rows, with and without a start: the bits of the panel's tile of one token, and nothing beyond. */
void cpu_check_dot(enum geul_type type)
{
    const struct geul_cpu_dot *dot = cpu_kernels->dot[type];
    const struct geul_cpu_panel *g = cpu_kernels->panel[type];
    enum { ROWS = 53 };
    REQUIRE(g != NULL);
    for (size_t steps = 1; steps <= 3; steps++) {
        size_t k = steps * dot->k_step, mr = (size_t)g->mr;
        struct cpu_weights w = cpu_weights_new(type, ROWS, k);
        float *x = cpu_randoms(k, 1), *start = cpu_randoms(ROWS + mr, 1), *want = malloc((ROWS + mr) * sizeof *want);
        if (steps == 3)
            x[k - 1] = INFINITY;
        struct cpu_guard panel = cpu_guard(geul_cpu_packed_bytes(k, g->k_step, g->w_step), 0);
        struct cpu_guard tokens = cpu_guard(geul_cpu_packed_bytes(k, g->k_step, g->x_step), 0);
        struct cpu_guard token = cpu_guard(geul_cpu_packed_bytes(k, dot->k_step, dot->x_step), 0);
        g->pack_x(tokens.data, x, k * sizeof *x, 1, k);
        for (size_t i = 0; i < steps; i++) /* parts are packed apart */
            dot->pack_x(token.data + i * dot->x_step, x + i * dot->k_step, dot->k_step);
        for (int rows = 1; rows <= ROWS; rows += 1 + rows / 4) {
            const float *from = rows % 2 ? start : NULL;
            memset(want, 0, (ROWS + mr) * sizeof *want);
            for (size_t r = 0; r < (size_t)rows; r += mr) {
                int here = (size_t)rows - r < mr ? rows - (int)r : g->mr;
                g->pack_w(panel.data, w.data + r * w.stride, w.stride, here, k, NULL);
                g->tile(want + r, mr, panel.data, tokens.data, k, from ? from + r : NULL, 1);
            }
            struct cpu_guard out = cpu_guard((size_t)rows * sizeof(float), 4);
            struct geul_cpu_prefetch prefetch = {w.data, w.data + w.stride};
            dot->rows((float *)out.data, w.data, w.stride, token.data, k, rows, from, &prefetch);
            for (int r = 0; r < rows; r++)
                CHECK_MSG(memcmp((float *)out.data + r, want + r, sizeof *want) == 0 ||
                              (isnan(want[r]) && isnan(((float *)out.data)[r])),
                          "%s dot %s: row %d of %d is not the panel's", cpu_variant, geul_type_name(type), r, rows);
            cpu_guard_free(&out, "dot");
        }
        cpu_guard_free(&panel, "pack_w");
        cpu_guard_free(&tokens, "pack_x");
        cpu_guard_free(&token, "pack_x");
        free(x);
        free(start);
        free(want);
        cpu_weights_free(&w);
    }
}

/* pack_w_outer of the transposed weights must give the panel of pack_w. */
static void check_outer(const struct geul_cpu_panel *g, enum geul_type type, size_t k, int rows)
{
    size_t bytes = geul_type_bytes(type), n = (size_t)rows, size = geul_cpu_packed_bytes(k, g->k_step, g->w_step);
    struct cpu_weights w = cpu_weights_new(type, n, k);
    uint8_t *turned = malloc(k * n * bytes);
    for (size_t i = 0; i < k; i++)
        for (size_t r = 0; r < n; r++)
            memcpy(turned + (i * n + r) * bytes, w.data + r * w.stride + i * bytes, bytes);
    struct cpu_guard a = cpu_guard(size, 0), b = cpu_guard(size, 0);
    g->pack_w(a.data, w.data, w.stride, rows, k, NULL);
    g->pack_w_outer(b.data, turned, n * bytes, rows, k);
    CHECK_MSG(memcmp(a.data, b.data, size) == 0, "%s pack_w_outer %s k=%zu rows=%d", cpu_variant, geul_type_name(type),
              k, rows);
    cpu_guard_free(&a, "pack_w");
    cpu_guard_free(&b, "pack_w_outer");
    free(turned);
    cpu_weights_free(&w);
}

/* pack_x_outer of the transposed tokens must give what pack_x does. */
static void check_x_outer(const struct geul_cpu_panel *g, size_t k, int tokens)
{
    size_t n = (size_t)tokens, size = geul_cpu_packed_bytes(k, g->k_step, g->x_step);
    float *x = cpu_randoms(n * k, 1), *turned = malloc(k * n * sizeof *turned);
    for (size_t i = 0; i < k; i++)
        for (size_t t = 0; t < n; t++)
            turned[i * n + t] = x[t * k + i];
    struct cpu_guard a = cpu_guard(size, 0), b = cpu_guard(size, 0);
    g->pack_x(a.data, x, k * sizeof *x, tokens, k);
    g->pack_x_outer(b.data, turned, n * sizeof *x, tokens, k);
    CHECK_MSG(memcmp(a.data, b.data, size) == 0, "%s pack_x_outer k=%zu tokens=%d", cpu_variant, k, tokens);
    cpu_guard_free(&a, "pack_x");
    cpu_guard_free(&b, "pack_x_outer");
    free(x);
    free(turned);
}

static void check_panels(const struct geul_cpu_panel *g, enum geul_type type)
{
    size_t block = (size_t)geul_type_block(type);
    bool bf16 = strcmp(cpu_variant, "avx512bf16") == 0;
    for (int s = 0; s < N_SIZES; s++) {
        size_t k = block > 1 ? (sizes[s] / (block == 32 ? 8 : 64) + 1) * block : sizes[s];
        int rows = 1 + (int)(test_random(&cpu_seed) % (uint64_t)g->mr);
        check_tile(g, type, k, g->mr, g->nr, bf16);
        check_tile(g, type, k, rows, 1 + (int)(test_random(&cpu_seed) % (uint64_t)g->nr), bf16);
        check_invariance(g, type, k);
        if (g->pack_w_outer)
            check_outer(g, type, k, rows);
        if (g->pack_x_outer) {
            check_x_outer(g, k, g->nr);
            check_x_outer(g, k, 1 + rows % g->nr);
        }
    }
    for (int rows = 1; rows <= g->mr; rows++)
        check_tile(g, type, block > 96 ? block : 96, rows, 1 + rows % g->nr, bf16);
    if (block > 1)
        check_extremes(g, type);
    CHECK_MSG(g->k_block % g->k_step == 0 && g->k_block % 256 == 0, "%s: k_block must hold whole blocks", cpu_variant);
}

void cpu_check_panel(enum geul_type type)
{
    check_panels(cpu_kernels->panel[type], type);
}

void cpu_check_cache(enum geul_type type)
{
    CHECK_MSG(cpu_kernels->cache[type]->k_step == 1 && cpu_kernels->cache[type]->pack_w_outer,
              "attention relies on these");
    check_panels(cpu_kernels->cache[type], type);
}

void cpu_check_rounded(enum geul_type type)
{
    const struct geul_cpu_panel *g = cpu_kernels->rounded[type];
    CHECK_MSG(g->pack_w_outer && g->pack_x_outer, "training relies on these");
    check_panels(g, GEUL_TYPE_F32);
}

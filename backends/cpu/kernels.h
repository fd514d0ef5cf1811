/* kernels.h: the table of micro-kernels that one instruction set fills, made from kernels.def. */
#ifndef GEUL_CPU_KERNELS_H
#define GEUL_CPU_KERNELS_H

#include "core/tensor.h"

struct geul_block_format;
struct geul_search_tile;

/* Memory to prefetch: [at, end). */
struct geul_cpu_prefetch {
    const uint8_t *at, *end;
};

/* Prefetches the next bytes of it, in small steps, so that the core does not stall on full line buffers. Whole cache
 * lines: at may pass end. */
static inline void geul_cpu_prefetch_bytes(struct geul_cpu_prefetch *prefetch, size_t bytes)
{
    size_t left = prefetch->at < prefetch->end ? (size_t)(prefetch->end - prefetch->at) : 0;
    const uint8_t *end = left > bytes ? prefetch->at + bytes : prefetch->end;
    for (; prefetch->at < end; prefetch->at += 64)
        __builtin_prefetch(prefetch->at, 0, 3);
}

/* Weights times one token, read in the order of memory: a faster way to the same bits as the panel's. NULL where the
 * panel is as good; the panel then computes the product, as it does when k is not a multiple of k_step. */
struct geul_cpu_dot {
    size_t k_step, x_step; /* the packed token takes x_step bytes per k_step values */
    void (*pack_x)(void *packed, const float *x, size_t k);
    /* out[r] = start[r] (0 when start is NULL) + sum over k of w[r][k] * x[k]. prefetch advances as w is read. */
    void (*rows)(float *out, const void *w, size_t stride, const void *packed, size_t k, int rows, const float *start,
                 struct geul_cpu_prefetch *prefetch);
};

/* Weights times tokens. mr weight rows are unpacked into a panel, once per k_block values, and the tokens stream past
 * it, nr at a time (picture: op_matmul.c). What must agree (sizes, layout of both sides, the kernel) is here together.
 *
 * A result is summed up in the order of k, by operations that depend neither on the other rows nor on the other tokens
 * nor on where blocks of k begin: one token alone has the same bits as in a prompt of thousands. */
struct geul_cpu_panel {
    int mr, nr;
    size_t k_block; /* a multiple of 256; mr rows of it are about as large as the first-level cache */
    size_t k_step;  /* the panel takes w_step, and nr tokens x_step, bytes per k_step values, the last step whole */
    size_t w_step, x_step;
    /* rows <= mr rows of k values; missing rows become zero. Prefetches as many bytes as it reads; prefetch may be
     * NULL. */
    void (*pack_w)(void *panel, const void *w, size_t stride, int rows, size_t k, struct geul_cpu_prefetch *prefetch);
    /* The same from memory where k is the outer dimension: row k at w + k * stride holds the values of all weight rows.
     * NULL for block types. */
    void (*pack_w_outer)(void *panel, const void *w, size_t stride, int rows, size_t k);
    void (*pack_x)(void *packed, const float *x, size_t stride, int tokens, size_t k);
    /* The same from memory where k is the outer dimension: row k at x + k * stride holds the values of all tokens. NULL
     * where activations are rounded to blocks. */
    void (*pack_x_outer)(void *packed, const float *x, size_t stride, int tokens, size_t k);
    /* out[t * out_stride + r] (out_stride in floats) for all mr rows and tokens <= nr tokens: += the products; or, with
     * start, = start[r] + the products. */
    void (*tile)(float *out, size_t out_stride, const void *panel, const void *packed, size_t k, const float *start,
                 int tokens);
};

/* Over cached rows of depth values, stride bytes apart: out[r] = sum over i of k[r][i] * q[i] */
typedef void geul_cpu_score(float *out, const void *k, size_t stride, const float *q, size_t rows, size_t depth);
/* out[i] += sum over r of p[r] * v[r][i] */
typedef void geul_cpu_mix(float *out, const void *v, size_t stride, const float *p, size_t rows, size_t depth);
/* out (rows, depth) = x, exactly */
typedef void geul_cpu_widen(float *out, const void *x, size_t stride, size_t rows, size_t depth);
/* n float32 values into the type; n is a multiple of its block. */
typedef void geul_cpu_narrow(void *out, const float *x, size_t n);

/* What a step of an optimizer does to every element of a weight w with gradient g. */
struct geul_cpu_step {
    float scale;  /* g is multiplied by it first */
    float shrink; /* decoupled decay: w is multiplied by it, 1 - rate * decay */
    float pull;   /* SGD's coupled decay: this times w is added to the gradient */
    float rate;
    float decay[2], mix[2]; /* of the first and second moment: moment * decay + mix * (g or its square) */
    float root;             /* square root of the second moment's bias correction */
    float epsilon;          /* added to the denominator, or the least second moment */
    float factor;           /* Adafactor: the row's factor of the second moments, which are this times the column's */
};

struct geul_cpu_kernels {
#define KERNEL(name, returns, arguments, meaning) returns(*name) arguments;
#define TYPED(family, type, meaning)
#include "backends/cpu/kernels.def"
#undef KERNEL
#undef TYPED
    const struct geul_cpu_dot *dot[GEUL_TYPE_COUNT];
    const struct geul_cpu_panel *panel[GEUL_TYPE_COUNT];
    const struct geul_cpu_panel *cache[GEUL_TYPE_COUNT];
    const struct geul_cpu_panel *rounded[GEUL_TYPE_COUNT];
    geul_cpu_score *score[GEUL_TYPE_COUNT];
    geul_cpu_mix *mix[GEUL_TYPE_COUNT];
    geul_cpu_widen *widen[GEUL_TYPE_COUNT];
    geul_cpu_narrow *narrow[GEUL_TYPE_COUNT];
};

enum geul_cpu_slot {
#define KERNEL(name, returns, arguments, meaning) GEUL_CPU_SLOT_##name,
#define TYPED(family, type, meaning)              GEUL_CPU_SLOT_##family##_##type,
#include "backends/cpu/kernels.def"
#undef KERNEL
#undef TYPED
    GEUL_CPU_SLOT_COUNT
};

/* One table per instruction set, NULL where it adds nothing. Only those of the processor family built for exist. */
#define VARIANT(name, family, meaning) extern const struct geul_cpu_kernels geul_cpu_kernels_##name;
#include "backends/cpu/variants.def"
#undef VARIANT

/* Bytes that k values take when packed in steps. */
static inline size_t geul_cpu_packed_bytes(size_t k, size_t k_step, size_t step_bytes)
{
    return (k + k_step - 1) / k_step * step_bytes;
}

#endif

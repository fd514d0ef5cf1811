/* quantize_plan.h: a GGUF file becomes a smaller one whose matrices are quantized. */
#ifndef GEUL_QUANTIZE_PLAN_H
#define GEUL_QUANTIZE_PLAN_H

#include "quantize/imatrix.h"
#include "quantize/mix.h"

/* Matrices whose names match pattern (PCRE2, anywhere in the name) get type. */
struct geul_quantize_rule {
    const char *pattern;
    enum geul_type type;
};

/* Zero is a default for every field but mix, which may be NULL only with a bound or keep_types. What pointers name must
 * live as long as the plan. */
struct geul_quantize_options {
    const struct geul_mix *mix;
    bool keep_types; /* instead of a mix: every matrix keeps its own */
    /* The bounds: bits per weight over all tensors, and bytes of the file (of all its parts together). Types are then
     * chosen by measured error instead of by a mix. */
    double target_bpw;
    uint64_t max_bytes;
    const struct geul_quantize_rule *rules; /* go before mix and bounds; the first that matches counts */
    int n_rules;
    const struct geul_imatrix *imatrix;
    const char *imatrix_name; /* for the key that says where the importance came from */
    /* The parts of the output: files of at most so many bytes (more where a single tensor has more), or of so many
     * tensors, or as the input is split. All zero: one file. */
    uint64_t split_bytes;
    int64_t split_tensors;
    bool keep_split;
    /* Changes matrices on the way: changing() returns what change() needs for a tensor, NULL where it stays as it is;
     * change() changes a decoded row before it is encoded, from several threads. Both may be NULL. */
    const void *(*changing)(void *change_user, const char *tensor);
    void (*change)(const void *how, int64_t row, float *x, int64_t cols);
    void *change_user;
    const char *template_text; /* takes the place of geul.template; NULL: that stays */
    int n_threads;             /* 0: one per core */
    /* Bytes of the output that are done, of all; false stops. May be NULL. */
    bool (*progress)(void *user, uint64_t done, uint64_t total);
    /* While types are chosen under a bound: tensors that were measured. May be NULL. */
    bool (*measuring)(void *user, uint64_t done, uint64_t total);
    void *user;
};

struct geul_quantize_tensor {
    const char *name;
    int n_dims;
    int64_t shape[4]; /* row-major */
    int64_t elements;
    enum geul_type from, to;
    uint64_t from_bytes, to_bytes;
    bool fell_back;    /* its rows do not fit the type that was meant */
    bool written;      /* the two below are known */
    double error;      /* sum of importance * (x - x')^2 over that of importance * x^2 */
    int64_t lost;      /* values that are NaN, infinite or too large for the type */
    const float *sums; /* importance of its columns times a constant; NULL: none */
    const struct geul_gguf_tensor *source;
    int64_t part;
};

/* A plan: what becomes of every tensor. Belongs to one thread at a time. */
struct geul_quantize {
    struct geul_context *ctx;
    struct geul_quantize_options options;
    struct geul_gguf *gguf;
    struct geul_quantize_tensor *tensors; /* in the order of the input */
    int64_t n_tensors, n_parts;
    int n_layers;
    int64_t n_fallbacks;
    int64_t elements;
    uint64_t from_bytes, to_bytes; /* of the whole files */
    double from_bpw, to_bpw;       /* over all tensors */
    uint32_t file_type;            /* for general.file_type */
};

/* Opens the file (the first part of a split one) and decides. Writes nothing. NULL on failure; free with
 * geul_quantize_free(). */
struct geul_quantize *geul_quantize_plan(struct geul_context *ctx, const char *path,
                                         const struct geul_quantize_options *options);
/* Carries the plan out. All keys of the input are kept; tensors that keep their type and are not changed are copied
 * byte by byte. The bytes do not depend on the number of threads. The output, or every part of it, appears when all is
 * written; until then an older file of that name stays whole. Needs some MB and a few rows per thread. path must not be
 * the input. */
enum geul_status geul_quantize_write(struct geul_quantize *q, const char *path);
/* The name of part i of the output: path itself when there is one part, otherwise "PATH-00001-of-0000N.gguf" without
 * the .gguf that path ends in. Free with geul_free(). */
char *geul_quantize_part_name(const struct geul_quantize *q, const char *path, int64_t i);
void geul_quantize_free(struct geul_quantize *q);

#endif

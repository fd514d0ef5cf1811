/* quantize_tensors.h: a quantization as it is decided: the type, the size and the part of every tensor. */
#ifndef GEUL_QUANTIZE_TENSORS_H
#define GEUL_QUANTIZE_TENSORS_H

#include "quantize/imatrix.h"
#include "quantize/mix.h"

/* What is decided about a tensor, and from what. */
struct geul_quantize_choice {
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
    int64_t part; /* of the output */
};

/* A quantization (geul_tools.h). */
struct geul_quantize {
    struct geul_context *ctx;
    struct geul_quantize_options options;
    struct geul_quantize_hooks hooks; /* all zero: nothing is changed */
    struct geul_gguf *gguf;
    struct geul_quantize_choice *tensors; /* in the order of the input */
    int64_t n_tensors, n_parts;
    int n_layers;
    int64_t n_fallbacks;
    int64_t elements;
    uint64_t from_bytes, to_bytes; /* of the whole files */
    double from_bpw, to_bpw;       /* over all tensors */
    uint32_t file_type;            /* for general.file_type */
};

#endif

/* cuda_types.h: the element types as kernels know them: geul_types.def without the rest of core/. */
#ifndef GEUL_CUDA_TYPES_H
#define GEUL_CUDA_TYPES_H

/* CUDA_F32 (0), CUDA_F16, CUDA_Q8_0, ... equal GEUL_TYPE_F32, ... */
enum cuda_type {
#define TYPE(id, name, gguf_id, block, bytes, codec) CUDA_##id,
#include "geul_types.def"
#undef TYPE
    CUDA_TYPES
};

/* The block types: EACH_BLOCK_TYPE(X) is X(Q8_0) X(Q4_0) ... */
#define EACH_BLOCK_TYPE(X)                                                                                             \
    X(Q8_0) X(Q4_0) X(Q4_1) X(Q5_0) X(Q5_1) X(Q2_K) X(Q3_K) X(Q4_K) X(Q5_K) X(Q6_K) X(IQ4_NL) X(IQ4_XS)

#endif

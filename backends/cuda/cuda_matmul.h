/* cuda_matmul.h: products as nodes: what fuse.c takes from cuda_matmul.c. */
#ifndef GEUL_CUDA_MATMUL_NODES_H
#define GEUL_CUDA_MATMUL_NODES_H

#include "backends/cuda/cuda.h"
#include "backends/cuda/matvec.h"

/* Bytes of weights that are decoded at a time where they are written anew, but at least 256 rows; tests have fewer. */
extern size_t geul_cuda_slab_bytes;

/* A product with what follows it. */
struct cuda_product {
    const struct geul_tensor *node;   /* MATMUL */
    const struct geul_tensor *result; /* what is stored: node, or the last node that the launch computes */
    enum cuda_activation activation;
    const struct geul_tensor *add, *then_add; /* (T, N), packed rows, any stride: + add, + then_add, in this order;
                                                 NULL: not */
};
/* Emits it as node by itself is: with its operand rounded or narrowed as the kernel wants it, and where somebody wants
 * the result rounded (geul_cuda_leave_rounded()) and the kernel can, with that. The result's memory may be add's or
 * then_add's, element for element, and overlaps nothing else that is read. */
void geul_cuda_emit_product(struct cuda_plan *plan, const struct cuda_product *product);

#endif

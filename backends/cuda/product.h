/* product.h: products as steps of a plan, for MATMUL, ADDMM, and the patterns of fuse.c that begin with them. */
#ifndef GEUL_CUDA_PRODUCT_H
#define GEUL_CUDA_PRODUCT_H

#include "backends/cuda/cuda.h"
#include "backends/cuda/matvec.h"

/* What follows a MATMUL and is done with it: activation, then a sum with add, stored as out. All float32 (M, N) with
 * packed rows; add may have out's memory. */
struct cuda_product_end {
    enum cuda_activation activation;
    const struct geul_tensor *add; /* NULL: nothing */
    const struct geul_tensor *out; /* contiguous; NULL: the product itself */
};
/* Appends the steps of node, a MATMUL or ADDMM, and of what follows (NULL: nothing; ADDMM has nothing). Where somebody
 * wants the result rounded and the kernel can, it is left so (geul_cuda_leave_rounded()). */
void geul_cuda_emit_product(struct cuda_plan *plan, const struct geul_tensor *node, const struct cuda_product_end *end);

/* products_16.c or the like serve these steps, of which each does one product in the best way there is at run time:
 * by cuBLAS, or where that is not there or fails, by our own kernel. */

#endif

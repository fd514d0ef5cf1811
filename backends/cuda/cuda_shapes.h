/* cuda_shapes.h: tensors as kernels see them (cuda_rows.h). */
#ifndef GEUL_CUDA_SHAPES_H
#define GEUL_CUDA_SHAPES_H

#include "backends/cuda/cuda.h"
#include "backends/cuda/cuda_rows.h"

/* Most operands of a node, its result among them. */
enum { CUDA_SHAPED_MOST = 4 };

/* What a node's result and operands have in common: rows, of as many columns as possible. */
struct cuda_shape {
    struct cuda_leading leading;
    int64_t n_rows, n_cols;
    struct cuda_operand operand[CUDA_SHAPED_MOST];
};

/* n tensors over the shape of the first one, of plain types: dimensions that follow each other in the memory of all of
 * them become one. A tensor with fewer dimensions is repeated over those that it lacks. */
struct cuda_shape geul_cuda_shape(const struct geul_tensor *const *tensors, int n);
/* The leading dimensions of t, and its strides over them in units of `unit` bytes; columns stay as they are. */
void geul_cuda_rows(const struct geul_tensor *t, size_t unit, struct cuda_leading *leading,
                    int64_t stride[CUDA_LEADING]);

#endif

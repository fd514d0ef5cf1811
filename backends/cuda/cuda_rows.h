/* cuda_rows.h: rows of a tensor as kernels see them: up to three leading dimensions with a stride each, in elements,
 * and a last dimension. Rows are numbered in row-major order. */
#ifndef GEUL_CUDA_CUDA_ROWS_H
#define GEUL_CUDA_CUDA_ROWS_H

#include <stdint.h>

enum { CUDA_LEADING = 3 };

struct cuda_leading {
    int64_t n[CUDA_LEADING]; /* outermost first; 1 where there are fewer */
};

struct cuda_operand {
    void *data;
    int64_t stride[CUDA_LEADING]; /* of the leading dimensions; 0: repeated */
    int64_t step;                 /* from one column to the next; 1: packed */
};

#endif

/* cuda_norm.h: what fuse.c knows of norms. */
#ifndef GEUL_CUDA_NORMS_H
#define GEUL_CUDA_NORMS_H

#include "backends/cuda/cuda.h"

/* One launch for n LAYERNORM nodes, 1 or 2, of the same x and eps. */
void geul_cuda_emit_norms(struct cuda_plan *plan, const struct geul_tensor *const *nodes, int n);

#endif

/* plain.h: for kernels: elements of the plain types. */
#ifndef GEUL_CUDA_PLAIN_H
#define GEUL_CUDA_PLAIN_H

#include "backends/cuda/cuda_types.h"
#include "backends/cuda/warp.h"

template <cuda_type type> DEVICE float plain_at(const void *data, int64_t i)
{
    if constexpr (type == CUDA_F32)
        return ((const float *)data)[i];
    uint16_t h = ((const uint16_t *)data)[i];
    return type == CUDA_F16 ? half_to_float(h) : bfloat_to_float(h);
}

#endif

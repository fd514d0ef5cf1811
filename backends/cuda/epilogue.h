/* epilogue.h: for kernels: what happens to a sum (results.h: struct cuda_epilogue), but for storing and rounding. */
#ifndef GEUL_CUDA_EPILOGUE_H
#define GEUL_CUDA_EPILOGUE_H

#include "backends/cuda/activations.h"

DEVICE float finish(const cuda_epilogue &out, float sum, int64_t token, int64_t row)
{
    if (out.bias)
        sum += out.bias[row];
    sum = activate(sum, out.activation);
    if (out.add)
        sum += out.add[token * out.add_stride + row];
    if (out.then_add)
        sum += out.then_add[token * out.then_add_stride + row];
    return sum;
}

#endif

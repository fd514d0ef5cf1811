/* activations.h: for kernels: GELU. */
#ifndef GEUL_CUDA_ACTIVATIONS_H
#define GEUL_CUDA_ACTIVATIONS_H

#include "backends/cuda/results.h"
#include "backends/cuda/warp.h"

/* x/2 erfc(-x / sqrt 2): 1 + erf() would lose the digits of small results. */
DEVICE float gelu_erf(float x)
{
    return 0.5f * x * erfcf(x * -0.70710678118654752f);
}

DEVICE float gelu_tanh(float x)
{
    return 0.5f * x * (1 + tanhf(0.79788456080286536f * (x + 0.044715f * x * x * x)));
}

DEVICE float activate(float x, cuda_activation activation)
{
    return activation == CUDA_GELU_ERF ? gelu_erf(x) : activation == CUDA_GELU_TANH ? gelu_tanh(x) : x;
}

#endif

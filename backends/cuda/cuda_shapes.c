/* cuda_shapes.c: see cuda_shapes.h. */
#include "backends/cuda/cuda_shapes.h"

enum { DIMS = GEUL_MAX_DIMS };
_Static_assert(DIMS == CUDA_LEADING + 1, "leading dimensions and columns");

void geul_cuda_rows(const struct geul_tensor *t, size_t unit, struct cuda_leading *leading,
                    int64_t stride[CUDA_LEADING])
{
    for (int d = 0; d < CUDA_LEADING; d++) {
        int of = d - CUDA_LEADING + t->n_dims - 1; /* t's dimension */
        leading->n[d] = of >= 0 ? t->shape[of] : 1;
        stride[d] = of >= 0 && t->shape[of] > 1 ? (int64_t)(t->stride[of] / unit) : 0;
    }
}

/* One dimension of all tensors, strides in elements. */
struct dim {
    int64_t n, stride[CUDA_SHAPED_MOST];
};

/* Dimension d of the first tensor's shape, counted so that the last one is number DIMS - 1. */
static struct dim dim_of(const struct geul_tensor *const *tensors, int n, int d)
{
    int first = d - DIMS + tensors[0]->n_dims;
    struct dim out = {.n = first >= 0 ? tensors[0]->shape[first] : 1};
    for (int t = 0; t < n; t++) {
        int of = d - DIMS + tensors[t]->n_dims;
        out.stride[t] = of >= 0 ? (int64_t)(tensors[t]->stride[of] / geul_type_bytes(tensors[t]->type)) : 0;
    }
    return out;
}

/* Whether `outer` goes on where `inner` ends, in all of n tensors. */
static bool follows(const struct dim *outer, const struct dim *inner, int n)
{
    bool all = true;
    for (int t = 0; t < n; t++)
        all = all && outer->stride[t] == inner->n * inner->stride[t];
    return all;
}

struct cuda_shape geul_cuda_shape(const struct geul_tensor *const *tensors, int n)
{
    struct dim dims[DIMS] = {dim_of(tensors, n, DIMS - 1)}; /* innermost first */
    int top = 0;
    for (int d = DIMS - 2; d >= 0; d--) {
        struct dim next = dim_of(tensors, n, d);
        if (next.n == 1)
            continue;
        if (dims[top].n == 1)
            dims[top] = next;
        else if (follows(&next, &dims[top], n))
            dims[top].n *= next.n;
        else
            dims[++top] = next;
    }
    struct cuda_shape out = {.n_rows = 1, .n_cols = dims[0].n};
    for (int t = 0; t < n; t++) {
        out.operand[t].data = tensors[t]->data;
        out.operand[t].step = dims[0].stride[t];
    }
    for (int d = 0; d < CUDA_LEADING; d++) {
        const struct dim *from = CUDA_LEADING - d <= top ? &dims[CUDA_LEADING - d] : NULL;
        out.leading.n[d] = from ? from->n : 1;
        out.n_rows *= out.leading.n[d];
        for (int t = 0; t < n; t++)
            out.operand[t].stride[d] = from ? from->stride[t] : 0;
    }
    return out;
}

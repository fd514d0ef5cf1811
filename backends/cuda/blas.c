/* blas.c: cuBLAS, by the few of its functions that are needed. Declared here: its headers belong to the CUDA toolkit,
 * which those who build the rest need not have. The same in cuBLAS 12 and 13. */
#include "backends/cuda/blas.h"

#include "backends/cuda/device.h"
#include "core/os.h"

#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

/* Numbers of cublas_api.h and library_types.h. */
enum { OP_N = 0, OP_T = 1 };
enum { REAL_F32 = 0, REAL_F16 = 2, REAL_BF16 = 14 };
enum { COMPUTE_F32 = 68, COMPUTE_F32_PEDANTIC = 69 }; /* pedantic: no TF32, whatever the environment says */
enum { GEMM_DEFAULT = -1 };
enum { NO_REDUCED_PRECISION_SUMS = 16 }; /* math mode */

static struct {
    int (*create)(void **handle);
    int (*destroy)(void *handle);
    int (*set_stream)(void *handle, void *stream);
    int (*set_workspace)(void *handle, void *workspace, size_t bytes);
    int (*set_math_mode)(void *handle, int mode);
    int (*gemm)(void *handle, int op_a, int op_b, int m, int n, int k, const void *alpha, const void *a, int a_type,
                int lda, const void *b, int b_type, int ldb, const void *beta, void *c, int c_type, int ldc,
                int compute_type, int algorithm);
} blas;

/* What is looked up, and where it goes. */
static const struct {
    const char *name;
    size_t at;
} functions[] = {
#define FUNCTION(field, name)                                                                                          \
    {                                                                                                                  \
        name, offsetof(__typeof__(blas), field)                                                                        \
    }
    FUNCTION(create, "cublasCreate_v2"),          FUNCTION(destroy, "cublasDestroy_v2"),
    FUNCTION(set_stream, "cublasSetStream_v2"),   FUNCTION(set_workspace, "cublasSetWorkspace_v2"),
    FUNCTION(set_math_mode, "cublasSetMathMode"), FUNCTION(gemm, "cublasGemmEx"),
#undef FUNCTION
};

static pthread_once_t once = PTHREAD_ONCE_INIT;
static bool there;
static char why_not[300];

static bool find_functions(void *library, const char *name)
{
    for (size_t i = 0; i < sizeof functions / sizeof *functions; i++) {
        void *function = geul_os_library_symbol(library, functions[i].name);
        if (!function) {
            snprintf(why_not, sizeof why_not, "%s has no %s", name, functions[i].name);
            return false;
        }
        memcpy((char *)&blas + functions[i].at, &function, sizeof function);
    }
    return true;
}

/* It stays open: its threads and what it registers at exit outlive any use of ours. */
static void look_for_it(void)
{
    char why[200] = "";
    for (const char *const *name = geul_cuda_gpu()->blas; *name && !there; name++) {
        void *library = geul_os_library_open(*name, why, sizeof why);
        there = library && find_functions(library, *name);
        if (library && !there)
            geul_os_library_close(library);
        else if (!library && !why_not[0]) /* the first name's reason is the one to act on */
            snprintf(why_not, sizeof why_not, "%s: %s", *name, why);
    }
    if (there)
        why_not[0] = 0;
    else if (!why_not[0])
        snprintf(why_not, sizeof why_not, "there is none for this build");
}

bool geul_cuda_blas_there(const char **reason)
{
    pthread_once(&once, look_for_it);
    *reason = why_not;
    return there;
}

size_t geul_cuda_blas_workspace(const struct cuda_card *card)
{
    /* What NVIDIA recommends (cublasSetWorkspace): 32 MiB for Hopper and the large Blackwells, 12 MiB for consumers'
     * Blackwells, 4 MiB before. */
    const size_t mib = (size_t)1 << 20;
    return card->major >= 12 ? 12 * mib : card->major >= 9 ? 32 * mib : 4 * mib;
}

/* ------------------------------------------------------------------------------- per stream -- */

static void detach(struct cuda_stream *stream)
{
    blas.destroy(stream->attached);
    stream->attached = NULL;
    stream->detach = NULL;
}

/* Whether the stream has its handle, which is made when it is first asked for. Who fails once is given up: a product
 * that another kernel does now and then would not give the same bits in every run. Its handle stays up to the end of
 * the stream, for destroying it may wait for the card, which is not allowed while a graph is captured. */
static bool has_handle(struct cuda_stream *stream)
{
    const char *reason;
    if (stream->attached || stream->given_up || !geul_cuda_blas_there(&reason))
        return stream->attached && !stream->given_up;
    void *handle = NULL;
    /* It allocates and waits. Never within a capture of this thread: what is captured has run before. */
    geul_cuda_begin_waiting();
    stream->given_up = blas.create(&handle) != 0;
    geul_cuda_end_of_either();
    if (stream->given_up)
        return false;
    stream->attached = handle;
    stream->detach = detach;
    stream->given_up =
        blas.set_stream(handle, stream->handle) != 0 || blas.set_math_mode(handle, NO_REDUCED_PRECISION_SUMS) != 0;
    return !stream->given_up;
}

/* ---------------------------------------------------------------------------------- products -- */

/* One side as cuBLAS sees it: column after column. */
struct side {
    int op;
    int64_t ld;
};

/* A matrix (rows, columns) of these strides is, column after column, its own transpose where rows are packed; that is
 * what is wanted, since y as a column-major matrix is transposed too. */
static bool look_at_side(const int64_t stride[2], int64_t rows, int64_t columns, struct side *out)
{
    bool packed = stride[1] == 1 && (stride[0] >= columns || rows <= 1);
    if (packed)
        *out = (struct side){OP_N, stride[0] > columns ? stride[0] : columns};
    else
        *out = (struct side){OP_T, stride[1] > rows ? stride[1] : rows};
    return (packed || (stride[0] == 1 && (stride[1] >= rows || columns <= 1))) && out->ld <= INT_MAX;
}

bool geul_cuda_blas_multiply(struct cuda_stream *stream, const struct cuda_blas_product *p)
{
    struct side a, b;
    const float one = 1, start = p->adds ? 1 : 0;
    if (p->m <= 0 || p->n <= 0 || p->k <= 0 || p->m > INT_MAX || p->n > INT_MAX || p->k > INT_MAX ||
        p->y_stride < p->n || p->y_stride > INT_MAX || !look_at_side(p->a_stride, p->m, p->k, &a) ||
        !look_at_side(p->b_stride, p->k, p->n, &b))
        return false;
    if (!has_handle(stream))
        return false;
    const int type = p->type == CUDA_F32 ? REAL_F32 : p->type == CUDA_F16 ? REAL_F16 : REAL_BF16;
    const int compute = p->type == CUDA_F32 ? COMPUTE_F32_PEDANTIC : COMPUTE_F32;
    void *handle = stream->attached;
    bool ok = blas.set_workspace(handle, p->workspace, p->workspace_bytes) == 0 &&
              blas.gemm(handle, b.op, a.op, (int)p->n, (int)p->m, (int)p->k, &one, p->b, type, (int)b.ld, p->a, type,
                        (int)a.ld, &start, p->y, REAL_F32, (int)p->y_stride, compute, GEMM_DEFAULT) == 0;
    stream->launches += ok;
    stream->given_up = !ok;
    return ok;
}

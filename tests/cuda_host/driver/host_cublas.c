/* host_cublas.c: a libcublas.so.13 with the functions that backends/cuda/blas.c calls, which computes on the CPU, looks
 * at its arguments, and fails where it is told to. Column after column, as cuBLAS. */
#include "tests/cuda_host/driver/host_cublas.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* Numbers of cublas_api.h and library_types.h. */
enum { SUCCESS = 0, NOT_INITIALIZED = 1, ALLOC_FAILED = 3, INVALID_VALUE = 7 };
enum { OP_N, OP_T };
enum { F32 = 0, F16 = 2, BF16 = 14, COMPUTE_F32 = 68, COMPUTE_F32_PEDANTIC = 69, GEMM_DEFAULT = -1 };
enum { NO_REDUCED_PRECISION_SUMS = 16 };

static struct host_cublas cublas = {.fails = HOST_CUBLAS_CALLS};

struct host_cublas *host_cublas(void)
{
    return &cublas;
}

struct handle {
    void *stream, *workspace;
    int mode;
};

/* Counts the call, and says whether it is to fail. */
static int begin(enum host_cublas_call call)
{
    cublas.calls[call]++;
    return cublas.fails == (int)call ? ALLOC_FAILED : SUCCESS;
}

static int misuse(const char *what)
{
    if (!cublas.misuse)
        cublas.misuse = what;
    return INVALID_VALUE;
}

int cublasCreate_v2(void **out);
int cublasDestroy_v2(void *handle);
int cublasSetStream_v2(void *handle, void *stream);
int cublasSetWorkspace_v2(void *handle, void *workspace, size_t bytes);
int cublasSetMathMode(void *handle, int mode);
int cublasGemmEx(void *handle, int op_a, int op_b, int m, int n, int k, const void *alpha, const void *a, int a_type,
                 int lda, const void *b, int b_type, int ldb, const void *beta, void *c, int c_type, int ldc,
                 int compute_type, int algorithm);

int cublasCreate_v2(void **out)
{
    int error = begin(HOST_CUBLAS_CREATE);
    if (error)
        return NOT_INITIALIZED;
    *out = calloc(1, sizeof(struct handle));
    cublas.open += *out != NULL;
    return *out ? SUCCESS : ALLOC_FAILED;
}

int cublasDestroy_v2(void *handle)
{
    int error = begin(HOST_CUBLAS_DESTROY);
    cublas.open--;
    free(handle);
    return error;
}

int cublasSetStream_v2(void *handle, void *stream)
{
    struct handle *h = handle;
    h->stream = stream;
    h->workspace = NULL; /* as cuBLAS: back to memory of its own */
    return begin(HOST_CUBLAS_STREAM);
}

int cublasSetWorkspace_v2(void *handle, void *workspace, size_t bytes)
{
    struct handle *h = handle;
    if (!workspace || (uintptr_t)workspace % 256 || bytes < (size_t)4 << 20)
        return misuse("a workspace that is missing, small or not on 256 bytes");
    h->workspace = workspace;
    return begin(HOST_CUBLAS_WORKSPACE);
}

int cublasSetMathMode(void *handle, int mode)
{
    struct handle *h = handle;
    h->mode = mode;
    return begin(HOST_CUBLAS_MATH);
}

struct product {
    int op_a, op_b, m, n, k, type, lda, ldb, ldc;
    float alpha, beta;
    const void *a, *b;
    float *c;
};

static float from_half(uint16_t h)
{
    int exponent = h >> 10 & 31, fraction = h & 1023;
    uint32_t bits;
    float x;
    if (exponent == 0) {
        x = (float)fraction / 16777216.0f; /* 2^-24 */
        return h & 0x8000 ? -x : x;
    }
    bits = (uint32_t)(h & 0x8000) << 16 | (exponent == 31 ? 0x7f800000u : (uint32_t)(exponent + 112) << 23) |
           (uint32_t)fraction << 13;
    memcpy(&x, &bits, sizeof x);
    return x;
}

/* Element (i, j) of a matrix that op makes of memory. */
static float element(const void *memory, int type, int op, int ld, int i, int j)
{
    int64_t at = op == OP_N ? (int64_t)j * ld + i : (int64_t)i * ld + j;
    if (type == F32)
        return ((const float *)memory)[at];
    uint16_t h = ((const uint16_t *)memory)[at];
    if (type == F16)
        return from_half(h);
    uint32_t bits = (uint32_t)h << 16;
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

static void multiply(const void *args)
{
    const struct product *p = args;
    for (int j = 0; j < p->n; j++)
        for (int i = 0; i < p->m; i++) {
            float sum = 0, *c = p->c + (int64_t)j * p->ldc + i;
            for (int k = 0; k < p->k; k++)
                sum += element(p->a, p->type, p->op_a, p->lda, i, k) * element(p->b, p->type, p->op_b, p->ldb, k, j);
            *c = p->beta == 0 ? p->alpha * sum : p->alpha * sum + p->beta * *c;
        }
}

int cublasGemmEx(void *handle, int op_a, int op_b, int m, int n, int k, const void *alpha, const void *a, int a_type,
                 int lda, const void *b, int b_type, int ldb, const void *beta, void *c, int c_type, int ldc,
                 int compute_type, int algorithm)
{
    const struct handle *h = handle;
    if (begin(HOST_CUBLAS_GEMM))
        return ALLOC_FAILED;
    if (m <= 0 || n <= 0 || k <= 0 || ldc < m || lda < (op_a == OP_N ? m : k) || ldb < (op_b == OP_N ? k : n))
        return misuse("sizes");
    if (op_a < OP_N || op_a > OP_T || op_b < OP_N || op_b > OP_T || a_type != b_type || c_type != F32)
        return misuse("operations or types");
    if (compute_type != (a_type == F32 ? COMPUTE_F32_PEDANTIC : COMPUTE_F32) || algorithm != GEMM_DEFAULT)
        return misuse("how it is computed");
    if (!h->workspace || h->mode != NO_REDUCED_PRECISION_SUMS)
        return misuse("no workspace, or another mode");
    struct product p = {op_a, op_b, m, n, k, a_type, lda, ldb, ldc, 0, 0, a, b, c};
    memcpy(&p.alpha, alpha, sizeof p.alpha);
    memcpy(&p.beta, beta, sizeof p.beta);
    if (cublas.launch)
        cublas.launch(h->stream, multiply, &p, sizeof p);
    else
        multiply(&p);
    return SUCCESS;
}

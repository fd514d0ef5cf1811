/* check_wrappers.cu: the checks of wrapper_checks.h on a card. Built and run by tools/gpu_check:
 *
 *     nvcc -std=c++17 -O3 -I. -arch=native tests/cuda_card/check_wrappers.cu tests/cuda_host/wrapper_checks.cu
 */
#include "tests/cuda_host/wrapper_checks.h"

#include <cuda_runtime.h>
#include <stdio.h>

static bool run(const struct wrapper_check *check, uint32_t *in, uint32_t *out)
{
    uint32_t host_in[WRAPPER_WORDS] = {0}, host_out[WRAPPER_WORDS];
    struct cuda_stream stream = {};
    wrapper_check_fill(check, host_in);
    cudaMemcpy(in, host_in, sizeof host_in, cudaMemcpyHostToDevice);
    cudaMemset(out, 0, sizeof host_out);
    int error = check->launch(&stream, in, out);
    if (!error)
        error = (int)cudaMemcpy(host_out, out, sizeof host_out, cudaMemcpyDeviceToHost);
    int wrong = error ? 0 : wrapper_check_compare(check, host_in, host_out);
    if (error)
        printf("%s: %s\n", check->name, cudaGetErrorString((cudaError_t)error));
    else if (wrong >= 0)
        printf("%s: word %d is %08x\n", check->name, wrong, host_out[wrong]);
    return !error && wrong < 0;
}

int main()
{
    uint32_t *memory;
    cudaDeviceProp card;
    if (cudaGetDeviceProperties(&card, 0) != cudaSuccess ||
        cudaMalloc(&memory, 2 * WRAPPER_WORDS * sizeof *memory) != cudaSuccess) {
        printf("no card: %s\n", cudaGetErrorString(cudaGetLastError()));
        return 2;
    }
    int passed = 0, failed = 0, skipped = 0;
    for (int i = 0; wrapper_check_at(i); i++) {
        const struct wrapper_check *check = wrapper_check_at(i);
        if (check->bfloat && card.major < 8)
            skipped++;
        else if (run(check, memory, memory + WRAPPER_WORDS))
            passed++;
        else
            failed++;
    }
    printf("%s: %d passed, %d failed, %d skipped\n", card.name, passed, failed, skipped);
    return failed != 0;
}

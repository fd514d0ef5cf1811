/* test_rig.c: the rig of cuda_rig.h: right kernels pass under every schedule, conversions and fragments are CUDA's,
 * and what is wrong is found. */
#include "tests/harness.h"

#include "tests/backends/cpu_cases.h"
#include "tests/cuda_host/cuda_rig.h"
#include "tests/cuda_host/rig_kernels.h"

enum { SEED = 20261201 };

TEST(rig_row_sums)
{
    enum { ROWS = 5, MOST = 300 };
    static const int sizes[] = {1, 31, 32, 33, 127, 128, 129, MOST};
    uint64_t seed = SEED;
    float x[ROWS * MOST];
    for (int i = 0; i < ROWS * MOST; i++)
        x[i] = test_normal(&seed);
    for (EACH_SCHEDULE(s))
        for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
            int n = sizes[i];
            struct cuda_stream stream = {0};
            struct cpu_guard out = cpu_guard(ROWS * sizeof(float), 0);
            struct rig_row_sums args = {x, (float *)(void *)out.data, ROWS, n};
            CHECK_LAUNCH(rig_launch_row_sums(&stream, &args));
            CHECK_INT(stream.launches, 1);
            for (int row = 0; row < ROWS; row++) {
                double sum = 0, size = 0;
                for (int k = 0; k < n; k++) {
                    sum += (double)x[row * n + k];
                    size += fabs((double)x[row * n + k]);
                }
                /* at most 3 additions a thread, 5 in a warp and 2 between warps, each half an ulp of at most the sum of
                 * magnitudes */
                CHECK_MSG(fabs((double)args.out[row] - sum) <= 10 * 0x1p-24 * size, "row %d of %d, %s: %g, expected %g",
                          row, n, cuda_host_schedule_name(s), (double)args.out[row], sum);
            }
            cpu_guard_free(&out, "sums");
        }
}

TEST(rig_turn_through_shared_memory)
{
    enum { MOST = 400, GROUP = 128 };
    static const int sizes[] = {1, 127, 128, 129, MOST};
    static _Alignas(16) uint32_t x[4 * MOST], out[4 * MOST];
    for (uint32_t i = 0; i < 4 * MOST; i++)
        x[i] = i + 1;
    for (EACH_SCHEDULE(s))
        for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
            struct cuda_stream stream = {0};
            memset(out, 0xab, sizeof out);
            struct rig_turn args = {x, out, sizes[i]};
            CHECK_LAUNCH(rig_launch_turn(&stream, &args));
            for (int k = 0; k < 4 * MOST; k++) {
                int from = k / 4 / GROUP * GROUP + GROUP - 1 - k / 4 % GROUP;
                uint32_t want = k / 4 >= sizes[i] ? 0xabababab : from < sizes[i] ? x[4 * from + k % 4] : 0;
                if (!CHECK_MSG(out[k] == want, "%d pieces, word %d, %s: %u, expected %u", sizes[i], k,
                               cuda_host_schedule_name(s), out[k], want))
                    break;
            }
        }
}

TEST(rig_product_int8)
{
    enum { ROWS = 48, COLUMNS = 24, DEPTH = 96 };
    uint64_t seed = SEED;
    static _Alignas(16) int8_t a[ROWS * DEPTH], b[COLUMNS * DEPTH];
    int32_t out[ROWS * COLUMNS];
    for (int i = 0; i < ROWS * DEPTH; i++)
        a[i] = (int8_t)test_random(&seed);
    for (int i = 0; i < COLUMNS * DEPTH; i++)
        b[i] = (int8_t)test_random(&seed);
    for (EACH_SCHEDULE(s)) {
        struct cuda_stream stream = {0};
        struct rig_product args = {a, b, out, ROWS, COLUMNS, DEPTH};
        CHECK_LAUNCH(rig_launch_product_int8(&stream, &args));
        for (int i = 0; i < ROWS * COLUMNS; i++) {
            int sum = 0;
            for (int k = 0; k < DEPTH; k++)
                sum += a[i / COLUMNS * DEPTH + k] * b[i % COLUMNS * DEPTH + k];
            CHECK_INT(out[i], sum);
        }
    }
}

/* Values with few bits, so that every order of the sums is exact. */
TEST(rig_product_half)
{
    enum { ROWS = 32, COLUMNS = 16, DEPTH = 48 };
    uint64_t seed = SEED;
    uint16_t a[ROWS * DEPTH], b[COLUMNS * DEPTH];
    float out[ROWS * COLUMNS];
    for (int i = 0; i < ROWS * DEPTH; i++)
        a[i] = cuda_host_float_to_half((float)(int)(test_random(&seed) % 65) - 32.0f);
    for (int i = 0; i < COLUMNS * DEPTH; i++)
        b[i] = cuda_host_float_to_half((float)(int)(test_random(&seed) % 65) / 64.0f);
    for (EACH_SCHEDULE(s)) {
        struct cuda_stream stream = {0};
        struct rig_product args = {a, b, out, ROWS, COLUMNS, DEPTH};
        CHECK_LAUNCH(rig_launch_product_half(&stream, &args));
        for (int i = 0; i < ROWS * COLUMNS; i++) {
            float sum = 0;
            for (int k = 0; k < DEPTH; k++)
                sum += cuda_host_half_to_float(a[i / COLUMNS * DEPTH + k]) *
                       cuda_host_half_to_float(b[i % COLUMNS * DEPTH + k]);
            CHECK_MSG(out[i] == sum, "element %d: %g, expected %g", i, (double)out[i], (double)sum);
        }
    }
}

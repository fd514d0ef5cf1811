/* test_rig.c: the rig of cuda_rig.h: right kernels pass under every schedule, conversions and fragments are CUDA's,
 * and what is wrong is found. */
#include "tests/harness.h"

#include "tests/backends/cpu_cases.h"
#include "tests/cuda_host/cuda_rig.h"
#include "tests/cuda_host/rig_faults.h"
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

/* ------------------------------------------------------------------------------------ faults -- */

static const struct {
    const char *name, *said;
} faults[RIG_N_FAULTS] = {
#define FAULT(name, threads, blocks, said) {#name, said},
    RIG_FAULTS(FAULT)
#undef FAULT
};

/* Bytes of the products, small halves: as integers and as halves they are neither NaN nor all alike. */
static void fill_faults(float x[2 * RIG_FAULT_VALUES])
{
    uint64_t seed = SEED;
    for (int i = 0; i < 2 * RIG_FAULT_VALUES; i++) {
        uint32_t lo = cuda_host_float_to_half(test_normal(&seed)), hi = cuda_host_float_to_half(test_normal(&seed));
        uint32_t both = lo | hi << 16;
        memcpy(&x[i], &both, 4);
    }
}

/* Every right twin does the same under each schedule; every mistake is found under at least one, with the message that
 * its row has. */
TEST(rig_finds_every_fault)
{
    static _Alignas(16) float x[2 * RIG_FAULT_VALUES], out[RIG_FAULT_VALUES], want[RIG_FAULT_VALUES];
    fill_faults(x);
    cuda_host_shared_most(48 * 1024 + 512);
    for (int f = 0; f < RIG_N_FAULTS; f++) {
        int found = 0;
        if (f == RIG_large_sum)
            cuda_host_shared_most(48 * 1024);
        for (int right = 1; right >= 0; right--)
            for (EACH_SCHEDULE(s)) {
                struct cuda_stream stream = {0};
                uint32_t counter = 0;
                struct rig_fault args = {x, out, &counter};
                memset(out, 0, sizeof out);
                cuda_host_forget();
                int error = rig_launch_fault(&stream, (enum rig_fault_kernel)f, right, &args);
                if (right && s == 0)
                    memcpy(want, out, sizeof out);
                bool same = memcmp(out, want, sizeof out) == 0;
                if (right) {
                    CHECK_MSG(error == 0 && same, "%s, right, %s: %d %s", faults[f].name, cuda_host_schedule_name(s),
                              error, cuda_host_failure());
                } else if (faults[f].said[0]) {
                    found += error && strstr(cuda_host_failure(), faults[f].said) &&
                             strstr(cuda_host_failure(), faults[f].name);
                } else {
                    CHECK_MSG(error == 0, "%s: %s", faults[f].name, cuda_host_failure());
                    found += !same;
                }
            }
        CHECK_MSG(found > 0, "%s was not found: %s", faults[f].name, cuda_host_failure());
        printf("%s: under %d of %d schedules\n", faults[f].name, found, CUDA_HOST_SCHEDULES);
    }
}

TEST(rig_refuses_launches_that_cuda_does)
{
    static const struct {
        int64_t grid[3];
        int n_threads;
        size_t shared;
        int error;
        const char *said;
    } rows[] = {
        {{1, 1, 1}, 1024, 0, 0, ""},
        {{1, 1, 1}, 1056, 0, CUDA_HOST_INVALID_CONFIGURATION, "1056 threads"},
        {{1, 1, 1}, 48, 0, CUDA_HOST_INVALID_CONFIGURATION, "48 threads"},
        {{1, 1, 1}, 0, 0, CUDA_HOST_INVALID_CONFIGURATION, "0 threads"},
        {{0, 1, 1}, 48, 0, 0, ""},
        {{70000, 1, 1}, 32, 0, 0, ""},
        {{1, 65535, 1}, 32, 0, 0, ""},
        {{1, 65536, 1}, 32, 0, CUDA_HOST_INVALID_CONFIGURATION, "grid 1 x 65536 x 1"},
        {{1, 1, 65536}, 32, 0, CUDA_HOST_INVALID_CONFIGURATION, "grid 1 x 1 x 65536"},
        {{(int64_t)1 << 31, 1, 1}, 32, 0, CUDA_HOST_INVALID_CONFIGURATION, "2147483648"},
        {{1, 1, 1}, 32, 99 * 1024, 0, ""},
        {{1, 1, 1}, 32, 99 * 1024 + 1, CUDA_HOST_INVALID_VALUE, "101377 bytes of shared memory, the card has 101376"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct cuda_stream stream = {0};
        cuda_host_forget();
        int error = rig_launch_nothing(&stream, rows[i].grid, rows[i].n_threads, rows[i].shared);
        CHECK_INT(error, rows[i].error);
        CHECK_MSG(strstr(cuda_host_failure(), rows[i].said), "row %zu: %s", i, cuda_host_failure());
        CHECK_INT(stream.launches, rows[i].grid[0] > 0);
    }
}

/* After a failure the next launch is as if nothing had been. */
TEST(rig_goes_on_after_a_failure)
{
    static _Alignas(16) float x[2 * RIG_FAULT_VALUES], out[RIG_FAULT_VALUES];
    struct cuda_stream stream = {0};
    uint32_t counter = 0;
    struct rig_fault args = {x, out, &counter};
    fill_faults(x);
    for (int i = 0; i < 3; i++) {
        CHECK(rig_launch_fault(&stream, RIG_barrier_of_some, false, &args) == CUDA_HOST_LAUNCH_FAILURE);
        CHECK(strstr(cuda_host_failure(), "kernel (barrier_of_some<false>) launched at "));
        CHECK(strstr(cuda_host_failure(), "rig_faults.cu:"));
        cuda_host_forget();
        CHECK_LAUNCH(rig_launch_fault(&stream, RIG_missing_barrier, true, &args));
        for (int k = 0; k < RIG_FAULT_VALUES; k++)
            CHECK(memcmp(&out[k], &x[RIG_FAULT_VALUES - 1 - k], 4) == 0);
    }
}

/* What is launched into a hook is run later, from a copy, as often as wanted. */
static struct cuda_host_launch kept;
static _Alignas(16) char kept_args[64];

static int keep_launch(struct cuda_stream *stream, const struct cuda_host_launch *launch)
{
    (void)stream;
    kept = *launch;
    kept.args = kept_args;
    if (CHECK(launch->args_bytes <= sizeof kept_args))
        memcpy(kept_args, launch->args, launch->args_bytes);
    return 0;
}

TEST(rig_hook_keeps_launches)
{
    static _Alignas(16) float x[2 * RIG_FAULT_VALUES], out[RIG_FAULT_VALUES];
    struct cuda_stream stream = {0};
    uint32_t counter = 0;
    struct rig_fault args = {x, out, &counter};
    fill_faults(x);
    cuda_host_hook = keep_launch;
    CHECK_LAUNCH(rig_launch_fault(&stream, RIG_missing_barrier, true, &args));
    cuda_host_hook = NULL;
    CHECK_INT(stream.launches, 1);
    for (int i = 0; i < 2; i++) {
        memset(out, 0, sizeof out);
        CHECK_LAUNCH(cuda_host_run(&kept));
        CHECK(memcmp(&out[0], &x[RIG_FAULT_VALUES - 1], 4) == 0);
    }
}

/* ------------------------------------------------------------------------------- conversions -- */

/* Against a search: the nearest of all halves, of two equally near ones the even one. */
TEST(rig_converts_as_cuda)
{
    uint64_t seed = SEED;
    for (uint32_t h = 0; h < 65536; h++) {
        float x = cuda_host_half_to_float((uint16_t)h);
        bool nan = (h & 0x7c00) == 0x7c00 && (h & 0x3ff);
        CHECK_INT(cuda_host_float_to_half(x), nan ? 0x7fff : h);
        if ((h & 0x7fff) < 0x7bff) { /* halfway to the next, and on both sides of that */
            float next = cuda_host_half_to_float((uint16_t)(h + 1)), middle = (x + next) / 2;
            CHECK_INT(cuda_host_float_to_half(middle), h % 2 ? h + 1 : h);
            CHECK_INT(cuda_host_float_to_half(nextafterf(middle, x)), h);
            CHECK_INT(cuda_host_float_to_half(nextafterf(middle, next)), h + 1);
        }
    }
    CHECK_INT(cuda_host_float_to_half(65519.996f), 0x7bff);
    CHECK_INT(cuda_host_float_to_half(65520.0f), 0x7c00);
    CHECK_INT(cuda_host_float_to_half(-1e30f), 0xfc00);
    CHECK_INT(cuda_host_float_to_half(NAN), 0x7fff);
    CHECK_INT(cuda_host_float_to_half(-0.0f), 0x8000);
    for (int i = 0; i < 10000; i++) { /* of two neighbours of bfloat, which have 16 bits less, the nearer */
        float x = test_normal(&seed), below, above;
        uint32_t bits, low;
        memcpy(&bits, &x, 4);
        low = bits & 0xffff0000;
        memcpy(&below, &low, 4);
        low += 0x10000;
        memcpy(&above, &low, 4);
        double down = fabs((double)x - (double)below), up = fabs((double)above - (double)x);
        uint32_t want = (bits >> 16) + (up < down || (up == down && (bits >> 16) % 2));
        CHECK_INT(cuda_host_float_to_bfloat(x), want);
    }
    CHECK_INT(cuda_host_float_to_bfloat(1.00390625f), 0x3f80); /* halfway, to even: down and up */
    CHECK_INT(cuda_host_float_to_bfloat(1.01171875f), 0x3f82);
    CHECK_INT(cuda_host_float_to_bfloat(INFINITY), 0x7f80);
    CHECK_INT(cuda_host_float_to_bfloat(3.4e38f), 0x7f80);
    CHECK_INT(cuda_host_float_to_bfloat(-NAN), 0x7fff);
    static const struct {
        float x;
        int want;
    } rounded[] = {{0.5f, 0},          {1.5f, 2},           {2.5f, 2}, {-0.5f, 0},           {-1.5f, -2},
                   {1e10f, INT32_MAX}, {-1e10f, INT32_MIN}, {NAN, 0},  {0x1p31f, INT32_MAX}, {-0x1p31f, INT32_MIN}};
    for (size_t i = 0; i < sizeof rounded / sizeof *rounded; i++)
        CHECK_INT(cuda_host_round_to_int(rounded[i].x), rounded[i].want);
}

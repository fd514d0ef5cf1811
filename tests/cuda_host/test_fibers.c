/* test_fibers.c: the rig from C, without kernels of C++: what a thread has in its registers outlives a switch. Runs on
 * every processor for which fibers.c has a switch. */
#include "tests/harness.h"

#include "tests/cuda_host/cuda_rig.h"

enum { THREADS = 96, ROUNDS = 6 };

struct summing {
    const double *x;
    double *out;
};

/* The value of the lane that is 2^round away. */
static float exchange(float v, int round)
{
    struct cuda_host_shuffle_args args = {.from = (cuda_host_now.thread & 31) ^ (1 << round % 5)};
    memcpy(&args.value, &v, 4);
    cuda_host_collect(&cuda_host_shuffle, &args, (struct cuda_host_site){__FILE__, __LINE__});
    memcpy(&v, &args.value, 4);
    return v;
}

/* Has many values in registers over every switch, whole numbers and fractions. */
static void sum_up(const void *args)
{
    const struct summing *s = args;
    int me = cuda_host_now.thread;
    double a = s->x[me], b = a * 2, c = a * 3, d = a * 5, e = a * 7;
    int64_t i = me, j = 2 * me, k = 3 * me;
    for (int round = 0; round < ROUNDS; round++) {
        a += (double)exchange((float)me, round);
        b += a + (double)i, c += b + (double)j, d += c + (double)k, e += d;
        i += 3, j ^= i, k += j & 15;
        if (round == 3)
            cuda_host_collect(&cuda_host_barrier, NULL, (struct cuda_host_site){__FILE__, __LINE__});
    }
    s->out[me] = a + b + c + d + e + (double)(i + j + k);
}

/* The same without fibers. */
static double sum_alone(double x, int me)
{
    double a = x, b = a * 2, c = a * 3, d = a * 5, e = a * 7;
    int64_t i = me, j = 2 * me, k = 3 * me;
    for (int round = 0; round < ROUNDS; round++) {
        a += (double)(me ^ (1 << round % 5));
        b += a + (double)i, c += b + (double)j, d += c + (double)k, e += d;
        i += 3, j ^= i, k += j & 15;
    }
    return a + b + c + d + e + (double)(i + j + k);
}

TEST(fibers_keep_registers)
{
    uint64_t seed = 20261201;
    double x[THREADS], out[THREADS];
    for (int i = 0; i < THREADS; i++)
        x[i] = test_uniform(&seed, -1, 1);
    struct summing args = {x, out};
    struct cuda_host_launch launch = {.kernel = "sum_up",
                                      .file = __FILE__,
                                      .line = __LINE__,
                                      .grid = {3, 1, 1},
                                      .n_threads = THREADS,
                                      .call = sum_up,
                                      .args = &args,
                                      .args_bytes = sizeof args};
    for (EACH_SCHEDULE(s)) {
        memset(out, 0, sizeof out);
        CHECK_LAUNCH(cuda_host_run(&launch));
        for (int i = 0; i < THREADS; i++)
            CHECK_MSG(out[i] == sum_alone(x[i], i), "thread %d, %s: %.17g, expected %.17g", i,
                      cuda_host_schedule_name(s), out[i], sum_alone(x[i], i));
    }
}

/* A thread has room for the arrays that kernels have, 1024 of them at a time. */
static void fill_stack(const void *args)
{
    volatile uint8_t room[64 * 1024];
    const struct summing *s = args;
    int me = cuda_host_now.thread;
    for (size_t i = 0; i < sizeof room; i++)
        room[i] = (uint8_t)(me + (int)i);
    cuda_host_collect(&cuda_host_barrier, NULL, (struct cuda_host_site){__FILE__, __LINE__});
    double wrong = 0;
    for (size_t i = 0; i < sizeof room; i++)
        wrong += room[i] != (uint8_t)(me + (int)i);
    s->out[me] = wrong;
}

TEST(fibers_have_stacks_of_their_own)
{
    double out[1024];
    struct summing args = {NULL, out};
    struct cuda_host_launch launch = {.kernel = "fill_stack",
                                      .file = __FILE__,
                                      .line = __LINE__,
                                      .grid = {1, 1, 1},
                                      .n_threads = 1024,
                                      .call = fill_stack,
                                      .args = &args,
                                      .args_bytes = sizeof args};
    CHECK_LAUNCH(cuda_host_run(&launch));
    for (int i = 0; i < 1024; i++)
        CHECK(out[i] == 0);
}

/* bench_measure.h: speed and memory of a model, and the machine's ceilings. */
#ifndef GEUL_BENCH_MEASURE_H
#define GEUL_BENCH_MEASURE_H

#include "command/model_args.h"

#include "command/device_ceilings.h"

enum { GEUL_BENCH_LIST_MAX = 32, GEUL_BENCH_REPETITIONS_MAX = 1000 };
struct geul_bench_list {
    int v[GEUL_BENCH_LIST_MAX];
    int n;
};

/* One cell of the table: all figures of a prompt or a generation. Strings live only during the callback. */
struct geul_bench_cell {
    const char *model, *types; /* types: "q4_k+q6_k", those of the matrices from the most bytes to the fewest */
    const char *cache_type;
    const char *test;    /* "pp256", "tg32 x4 @ d500" */
    const char *devices; /* that have something of the model: "cuda:0+cpu" */
    int n_gpu_layers;    /* on others than the CPU, n_layers + 1 with the output */
    int n_threads, n_batch;
    int n_prompt, n_generate; /* tokens, per sequence; one of the two is 0 */
    int depth;                /* tokens in the cache before */
    int parallel;             /* sequences at once */
    int repetitions;
    double tps, tps_low, tps_high; /* tokens/s of all sequences together: median and extremes of the repetitions */
    double share;                  /* median of tokens/s over the ceiling of the same moment, 0 to 1 */
    double ceiling_tps;            /* median */
    const char *bound;             /* what the ceiling is made of: "int8", "bf16", "f32", "memory" */
    struct geul_device_ceilings
        ceilings;       /* of the device that takes longest: means of those before and after each repetition */
    double macs, bytes; /* multiply-adds of the matrices, and bytes of weights and cache read, in one repetition */
    double load_seconds;
    int64_t file_bytes, kv_cache_bytes;
    int64_t peak_rss_bytes;  /* of the model and its session until the end of this cell */
    int64_t peak_over_bytes; /* peak_rss_bytes less file and cache; may be below 0: not all of a file is touched */
};

struct geul_bench_sweep {
    struct geul_bench_list threads, prompts, generates, depths, parallels;
    int repetitions;
    uint64_t seed; /* of the token ids */
    /* Waits for permission to do the next repetition; false: no more. NULL: never waits. */
    bool (*turn)(void *user);
    /* Takes a cell; with turn, one for every repetition. false stops. */
    bool (*cell)(void *user, const struct geul_bench_cell *cell);
    void *user;
};

/* Measures the model of args in every combination: prompts once per number of threads and depth, generation for every
 * number of sequences too. Ceilings are measured before and after each repetition. Returns the exit code. */
int geul_bench_measure(const struct geul_model_args *args, const struct geul_bench_sweep *sweep);

/* Sets the positions and sequences of the largest session of the sweep. */
void geul_bench_largest(struct geul_model_args *args, const struct geul_bench_sweep *sweep);

#endif

/* bench_measure.h: speed and memory of a model, and what the machine could do at most. */
#ifndef GEUL_BENCH_MEASURE_H
#define GEUL_BENCH_MEASURE_H

#include "examples/geul/model_args.h"

#include "backends/cpu/ceilings.h"

struct geul_bench_plan {
    int n_prompt, n_generate, repeats;
    uint64_t seed; /* of the token ids */
};

/* Mean and standard deviation over the repeats. */
struct geul_bench_figure {
    double mean, deviation;
};

struct geul_bench_result {
    struct geul_bench_figure prompt_tps, generation_tps;
    double load_seconds;
    uint64_t peak_rss_bytes, file_bytes, kv_cache_bytes;
    int n_threads;
    enum geul_type type; /* of the matrices */
    struct geul_cpu_ceilings ceilings;
    /* What the model needs: multiply-adds of the matrices per token of the prompt (the logits of its last token spread
     * over all), bytes of weights read per generated token. */
    double prompt_macs_per_token, generation_bytes_per_token;
    const char *prompt_ceiling;            /* "int8": the arithmetic that the ceiling of the prompt is */
    double prompt_macs_per_s;              /* that ceiling */
    double prompt_share, generation_share; /* of the ceilings, 0 to 1 */
};

/* Measures. Returns the exit code. */
int geul_bench_measure(const struct geul_model_args *args, const struct geul_bench_plan *plan,
                       struct geul_bench_result *out);

#endif

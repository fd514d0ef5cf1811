/* bench_work.h: what a model's tensors cost, and the least time in which a machine could do it. */
#ifndef GEUL_BENCH_WORK_H
#define GEUL_BENCH_WORK_H

#include "backends/backend.h"
#include "core/gguf.h"

struct geul_model;

/* The kinds of products that matrices are multiplied with. */
enum geul_bench_arithmetic { GEUL_BENCH_F32, GEUL_BENCH_BF16, GEUL_BENCH_INT8, GEUL_BENCH_ARITHMETICS };

/* The matrices of a model that lie on one of its devices. The embedding does not count: only one row of it is read per
 * token. */
struct geul_bench_work {
    double layer_macs[GEUL_BENCH_ARITHMETICS]; /* per token, without those of the output matrix */
    double output_macs;                        /* per token whose logits are wanted */
    enum geul_bench_arithmetic output;
    double weight_bytes; /* of everything that one step reads */
};
/* The work of device d of the model that g was loaded as. */
void geul_bench_work_count(const struct geul_gguf *g, const struct geul_model *model, int d,
                           struct geul_bench_work *work);
/* Writes the types of the matrices, those with the most bytes first: "q4_k+q6_k". */
void geul_bench_work_types(const struct geul_gguf *g, char *out, size_t size);

/* An amount of work. Attention's own multiply-adds are not counted. */
struct geul_bench_amount {
    double macs[GEUL_BENCH_ARITHMETICS];
    double bytes;
};
/* A prompt of n tokens in pieces of n_batch behind depth tokens, with the logits of its last one; cache_bytes: of keys
 * and values per position. */
struct geul_bench_amount geul_bench_prompt_amount(const struct geul_bench_work *work, int n, int n_batch, int depth,
                                                  double cache_bytes);
/* n tokens each of `parallel` sequences, one token of all of them per step. */
struct geul_bench_amount geul_bench_generation_amount(const struct geul_bench_work *work, int n, int parallel,
                                                      int depth, double cache_bytes);
/* Seconds that the amount takes at least: for its arithmetic or for reading its bytes, whichever is longer. *bound says
 * which: "memory", or the kind of products that takes longest. A device without bfloat16 or int8 products makes float32
 * ones of them. */
double geul_bench_least_seconds(const struct geul_bench_amount *amount, const struct geul_device_ceilings *ceilings,
                                const char **bound);

#endif

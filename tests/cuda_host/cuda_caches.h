/* cuda_caches.h: what tests of attention and of stores share: caches filled with random values. */
#ifndef GEUL_TESTS_CUDA_CACHES_H
#define GEUL_TESTS_CUDA_CACHES_H

#include "backends/cuda/heads.h"
#include "core/tensor.h"
#include "tests/backends/cpu_cases.h"

/* n normal random values, on 64 bytes. */
float *randoms(uint64_t *seed, int64_t n);

struct shape {
    enum geul_type type;
    int64_t tokens, heads, room, depth, sequences; /* room: positions */
    int32_t first;                                 /* position of the first token */
};

/* A cache of random values, and what it holds. */
struct cache {
    struct cuda_cache cache;
    struct cpu_guard memory;
    float *values; /* (S, H, P, D) */
};
struct cache cache_new(uint64_t *seed, const struct shape *s);
void cache_free(struct cache *c, const char *what);

#endif

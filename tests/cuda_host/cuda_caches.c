/* cuda_caches.c: see cuda_caches.h. */
#include "tests/cuda_host/cuda_caches.h"

float *randoms(uint64_t *seed, int64_t n)
{
    float *x = aligned_alloc(64, ((size_t)n * sizeof *x + 127) / 64 * 64);
    for (int64_t i = 0; i < n; i++)
        x[i] = test_normal(seed);
    return x;
}

struct cache cache_new(uint64_t *seed, const struct shape *s)
{
    int64_t n = s->sequences * s->heads * s->room * s->depth;
    size_t bytes = 0, row = 0;
    struct cache c = {.values = randoms(seed, n)};
    CHECK(geul_shape_bytes(s->type, 2, (int64_t[]){n / s->depth, s->depth}, &bytes) &&
          geul_shape_bytes(s->type, 1, &s->depth, &row));
    c.memory = cpu_guard(bytes, 0);
    geul_encode(s->type, c.values, c.memory.data, n);
    geul_decode(s->type, c.memory.data, c.values, n);
    int64_t position = (int64_t)row;
    c.cache = (struct cuda_cache){c.memory.data, (enum cuda_type)s->type,       s->sequences,
                                  s->room,       position * s->room * s->heads, position * s->room,
                                  position};
    return c;
}

void cache_free(struct cache *c, const char *what)
{
    cpu_guard_free(&c->memory, what);
    free(c->values);
}

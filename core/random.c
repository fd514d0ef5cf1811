/* random.c: see random.h. */
#include "core/random.h"

uint64_t geul_random_bits(uint64_t seed, uint64_t index)
{
    return geul_random_mix(geul_random_mix(seed + GEUL_RANDOM_STEP) + index * GEUL_RANDOM_STEP);
}

double geul_random_unit(uint64_t seed, uint64_t index)
{
    return geul_random_real(geul_random_bits(seed, index));
}

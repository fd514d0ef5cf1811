/* random.h: random numbers as functions of a seed and of what they are for. Nothing here has a hidden state, so work
 * that is split over threads, or continued by another process, draws the same numbers.
 *
 * The bits of every sequence are a promise: generated texts, training runs, new weights and held-out rows depend on
 * them. New code uses geul_random_bits(); the other functions are sequences that older uses have to keep. */
#ifndef GEUL_RANDOM_H
#define GEUL_RANDOM_H

#include <stdint.h>

/* 64 random bits, and a number in [0, 1), for a seed and an index: a different sequence for every seed, also for seeds
 * that are close to each other or lie on each other's sequence. */
uint64_t geul_random_bits(uint64_t seed, uint64_t index);
double geul_random_unit(uint64_t seed, uint64_t index);

/* What splitmix64 adds to its state for each number: odd, near 2^64 over the golden ratio. */
#define GEUL_RANDOM_STEP 0x9e3779b97f4a7c15u

/* The finalizer of splitmix64 (Steele, Lea, Flood 2014): every bit of x reaches every bit of the result. */
static inline uint64_t geul_random_mix(uint64_t x)
{
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
    x = (x ^ x >> 27) * 0x94d049bb133111ebu;
    return x ^ x >> 31;
}

/* Number i of the sequence that splitmix64 draws from seed. */
static inline uint64_t geul_random_splitmix(uint64_t seed, uint64_t i)
{
    return geul_random_mix(seed + (i + 1) * GEUL_RANDOM_STEP);
}

/* 64 bits as a number in [0, 1): the upper 53 of them. */
static inline double geul_random_real(uint64_t bits)
{
    return (double)(bits >> 11) * 0x1p-53;
}

/* The next state of the linear congruential generator of Knuth's MMIX. Only its upper half is random enough to use;
 * for filling the buffers of measurements. */
static inline uint64_t geul_random_congruential(uint64_t *state)
{
    return *state = *state * 6364136223846793005u + 1442695040888963407u;
}

/* The random numbers of operations (dropout, the rounding of 8-bit states), the same bits on every backend: 64 bits for
 * each key and i, the keys of segments ... */
static inline uint64_t geul_random_key(uint64_t key, uint64_t i)
{
    uint64_t h = key + (i + 1) * GEUL_RANDOM_STEP;
    h = (h ^ h >> 29) * 0x6a09e667f3bcc909u; /* digits of the root of 2, of 3 */
    h = (h ^ h >> 32) * 0xbb67ae8584caa73bu;
    return h ^ h >> 31;
}

/* ... and 32 bits for each element i under such a key: three rounds of shift and product (odd numbers from the roots of
 * 2, 3 and 5), with the second half of the key between them so that two keys do not give shifted copies of one
 * sequence. Vectors of 32-bit integers can compute it. */
static inline uint32_t geul_random_element(uint64_t key, uint32_t i)
{
    uint32_t h = (i + (uint32_t)key) * 0x9e3779b1u;
    h = (h ^ h >> 15 ^ (uint32_t)(key >> 32)) * 0x6a09e667u;
    h = (h ^ h >> 13) * 0xbb67ae85u;
    return h ^ h >> 16;
}

#endif

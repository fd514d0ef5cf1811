/* order.c: see order.h. */
#include "data/order.h"

/* The finalizer of splitmix64 (Steele, Lea, Flood 2014): every bit of x reaches every bit of the result. */
static uint64_t mix(uint64_t x)
{
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
    x = (x ^ x >> 27) * 0x94d049bb133111ebu;
    return x ^ x >> 31;
}

uint64_t geul_random_bits(uint64_t seed, uint64_t index)
{
    return mix(mix(seed + 0x9e3779b97f4a7c15u) + index * 0x9e3779b97f4a7c15u);
}

double geul_random_unit(uint64_t seed, uint64_t index)
{
    return (double)(geul_random_bits(seed, index) >> 11) * 0x1p-53;
}

/* A Feistel network of four rounds over the next even number of bits permutes 0..4^k-1; what falls outside is sent
 * through it again until it lies inside, which keeps it a permutation (Black, Rogaway 2002: cycle walking). */
int64_t geul_permute(uint64_t seed, int64_t n, int64_t i)
{
    int half = 1;
    while (half < 31 && ((int64_t)1 << 2 * half) < n)
        half++;
    const uint64_t mask = ((uint64_t)1 << half) - 1;
    uint64_t x = (uint64_t)i;
    do {
        uint64_t left = x >> half, right = x & mask;
        for (uint64_t round = 0; round < 4; round++) {
            uint64_t next = left ^ (geul_random_bits(seed + round, right) & mask);
            left = right;
            right = next;
        }
        x = left << half | right;
    } while (x >= (uint64_t)n);
    return (int64_t)x;
}

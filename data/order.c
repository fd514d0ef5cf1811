/* order.c: see order.h. */
#include "data/order.h"

#include "core/random.h"

/* A Feistel network of four rounds over 2 * half bits permutes 0 .. 4^half - 1, the smallest such range that holds n.
 * What falls outside 0 .. n - 1 is sent through it again until it falls inside, which keeps it a permutation (Black,
 * Rogaway 2002: cycle walking); since 4^half <= 4 n, that takes four passes on average at most. */
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

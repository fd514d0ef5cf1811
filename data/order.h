/* order.h: random numbers that are functions of what they are for, and the order of samples made of them. Nothing here
 * has a state, so a run that goes on later sees the same. */
#ifndef GEUL_ORDER_H
#define GEUL_ORDER_H

#include <stdint.h>

/* 64 random bits, and a number in [0, 1), of a seed and an index. */
uint64_t geul_random_bits(uint64_t seed, uint64_t index);
double geul_random_unit(uint64_t seed, uint64_t index);
/* Where element i of 0..n-1 goes in a permutation that follows from seed. i must be < n. Takes no memory. */
int64_t geul_permute(uint64_t seed, int64_t n, int64_t i);

#endif

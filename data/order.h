/* order.h: the order of samples: a permutation without memory or state, so a resumed run gets the same order. */
#ifndef GEUL_ORDER_H
#define GEUL_ORDER_H

#include <stdint.h>

/* Where element i of 0..n-1 goes in the permutation that follows from seed. 0 <= i < n. */
int64_t geul_permute(uint64_t seed, int64_t n, int64_t i);

#endif

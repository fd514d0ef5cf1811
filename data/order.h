/* order.h: the order of samples: a permutation that takes no memory and has no state, so a run that goes on later sees
 * the same. */
#ifndef GEUL_ORDER_H
#define GEUL_ORDER_H

#include <stdint.h>

/* Where element i of 0..n-1 goes in a permutation that follows from seed. i must be < n. Takes no memory. */
int64_t geul_permute(uint64_t seed, int64_t n, int64_t i);

#endif

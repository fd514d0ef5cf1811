/* search.h: encoding weights so that what a model computes with them changes least.
 *
 * geul_encode() rounds to a scale taken from the largest element. Here the scales, the minima and the integers of every
 * block are chosen together so that sum of importance[column] * (x - x')^2 is small. docs/quantization.md has the
 * method and what it gains. */
#ifndef GEUL_SEARCH_H
#define GEUL_SEARCH_H

#include "core/block.h"

/* Encodes rows of k floats (k a multiple of the type's block) into type. importance: k weights >= 0, one per column,
 * the same for every row, as an importance matrix has them; NULL: all columns count alike. The search takes the weights
 * to the power 3/4 (search.c says why). Blocks that hold NaN, infinity or values beyond float16 become what
 * geul_encode() makes of them, as does everything in types that are not integer blocks. Blocks do not depend on each
 * other, so rows may be split over threads at will, and the bytes are the same on every machine. Allocates nothing.
 * Returns the sum of squared errors, each times its column's importance (1 without), over all other blocks. */
double geul_search_rows(enum geul_type type, const float *x, void *out, int64_t rows, int64_t k,
                        const float *importance);

#endif

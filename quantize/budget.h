/* budget.h: the types with the least error within a bound for the size. */
#ifndef GEUL_BUDGET_H
#define GEUL_BUDGET_H

#include "quantize/quantize_tensors.h"

/* The bytes and the error of every type for every matrix. */
struct geul_budget;

/* Measures the matrices of q on a sample of their rows; fixed[i]: tensor i keeps the type that it has. NULL on failure
 * or when q's callback stops it. Free with geul_budget_free(). */
struct geul_budget *geul_budget_measure(struct geul_quantize *q, const bool *fixed);
/* Sets the types of the matrices that are not fixed so that all tensors of q together have at most `limit` bytes and
 * the sum of their errors, each weighted by its effect on the model, is as small as a greedy choice makes it. Fails
 * when even the smallest types need more. */
enum geul_status geul_budget_solve(const struct geul_budget *b, struct geul_quantize *q, uint64_t limit);
void geul_budget_free(struct geul_budget *b);

#endif

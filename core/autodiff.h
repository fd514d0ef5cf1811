/* autodiff.h: the interface of the backward rules of ops.def (core/backward.c) to the gradients being built.
 *
 * A rule gets a node t and its gradient dy, and adds to the gradients of t's operands. Rules emit ordinary nodes.
 * Failures are the builders': they return NULL, which every call here accepts, and the context has the reason. */
#ifndef GEUL_AUTODIFF_H
#define GEUL_AUTODIFF_H

#include "core/tensor.h"

struct geul_context *geul_gradients_context(const struct geul_gradients *g);
/* Whether t is wanted or computed from something wanted: if not, its gradient need not be computed. NULL: no. */
bool geul_gradients_reach(const struct geul_gradients *g, const struct geul_tensor *t);
/* Whether t itself is wanted. */
bool geul_gradients_wanted(const struct geul_gradients *g, const struct geul_tensor *t);
/* t's value for use in a gradient: t itself, or a node that recomputes it. */
struct geul_tensor *geul_gradients_value(struct geul_gradients *g, struct geul_tensor *t);
/* The gradient of t += dt, a tensor of its shape. */
void geul_gradients_add(struct geul_gradients *g, struct geul_tensor *t, struct geul_tensor *dt);
/* += a (M, K) times b (K, N), t being (M, N) */
void geul_gradients_add_product(struct geul_gradients *g, struct geul_tensor *t, struct geul_tensor *a,
                                struct geul_tensor *b, enum geul_precision precision);
/* += dt summed over the leading dimensions that t lacks */
void geul_gradients_add_rows(struct geul_gradients *g, struct geul_tensor *t, struct geul_tensor *dt);
/* rows ids of the gradient += the rows of dt */
void geul_gradients_add_scattered(struct geul_gradients *g, struct geul_tensor *t, struct geul_tensor *dt,
                                  struct geul_tensor *ids);
/* the part of the gradient that region describes += dt; t is contiguous */
void geul_gradients_add_patch(struct geul_gradients *g, struct geul_tensor *t, struct geul_tensor *dt,
                              struct geul_params_region region);

#endif

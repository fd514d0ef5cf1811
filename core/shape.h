/* shape.h: the shape rules of ops.def; each returns false with the reason in t's context. */
#ifndef GEUL_SHAPE_H
#define GEUL_SHAPE_H

#include "core/tensor.h"

bool geul_shape_view(struct geul_tensor *t);
bool geul_shape_cont(struct geul_tensor *t);
bool geul_shape_bcast(struct geul_tensor *t);
bool geul_shape_same(struct geul_tensor *t);
bool geul_shape_norm(struct geul_tensor *t);
bool geul_shape_matmul(struct geul_tensor *t);
bool geul_shape_embed(struct geul_tensor *t);
bool geul_shape_rope(struct geul_tensor *t);
bool geul_shape_store(struct geul_tensor *t);
bool geul_shape_attention(struct geul_tensor *t);

#endif

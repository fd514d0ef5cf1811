/* shape.h: the shape rules of ops.def; each returns false with the reason in t's context. */
#ifndef GEUL_SHAPE_H
#define GEUL_SHAPE_H

#include "core/tensor.h"

/* Several rows may share a rule; declaring it again does no harm. */
#define OP(id, name, src, opt, params, shape, layout, flags, backward) bool geul_shape_##shape(struct geul_tensor *t);
#include "core/ops.def"
#undef OP

#endif

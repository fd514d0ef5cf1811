/* gguf_kind.h: what a GGUF file holds, by its general.type. */
#ifndef GEUL_GGUF_KIND_H
#define GEUL_GGUF_KIND_H

#include "core/file_kind.h"
#include "core/gguf.h"

/* The kind of an open file: a model where it does not say; NULL: a type that geul does not know. */
const struct geul_file_kind *geul_gguf_kind(const struct geul_gguf *g);
/* Fails where that is known, and no model. */
enum geul_status geul_gguf_check_model(struct geul_context *ctx, const struct geul_gguf *g);

#endif

/* mix.h: what the mixes of types (geul_tools.h) mean for the tensors of a GPT-NeoX model. */
#ifndef GEUL_MIX_H
#define GEUL_MIX_H

#include "core/context.h"
#include "geul_tools.h"

/* The mix that is named after a type: the plain one, or the smallest of its mixes (q4_k_s for Q4_K). */
const struct geul_mix *geul_mix_of_type(enum geul_type type);
/* The number that general.file_type has for it, llama.cpp's LLAMA_FTYPE. */
uint32_t geul_mix_file_type(const struct geul_mix *mix);

/* The type of a tensor of the given shape (row-major) in a model of n_layers. *fell_back: its rows do not fit the type
 * that the mix has for it, and it got the next better one that fits. */
enum geul_type geul_mix_type(const struct geul_mix *mix, const char *tensor, int n_layers, int n_dims,
                             const int64_t *shape, bool *fell_back);
/* type itself when rows of `columns` fit its blocks, otherwise the nearest type that they fit. */
enum geul_type geul_mix_fitting(enum geul_type type, int64_t columns);

#endif

/* wide_model.h: a random model whose rows are whole blocks of every type, and its logits in double precision. */
#ifndef GEUL_TESTS_WIDE_MODEL_H
#define GEUL_TESTS_WIDE_MODEL_H

#include "core/tensor.h"
#include "tests/harness.h"

enum {
    WIDE_LAYERS = 2,
    WIDE_C = 256,
    WIDE_F = 512,
    WIDE_HEADS = 4,
    WIDE_ROT = 32,
    WIDE_VOCAB = 96,
    WIDE_CONTEXT = 320
};

/* Writes the model with all matrices in type, the embedding and the output too, as `geul quantize` makes them. Returns
 * the path of a scratch file that the next call replaces; NULL (and a failed check) on failure. */
const char *wide_model(enum geul_type type);

/* What the reference does with the inputs of products, which is what the kernels do: float32 as it is, whole numbers of
 * 1/127 of the largest in blocks of 32, or bfloat16. */
enum wide_rounding { WIDE_EXACT, WIDE_INT8, WIDE_BF16, WIDE_ROUNDINGS };

/* All weights of a file, dequantized. */
struct wide_weights;
struct wide_weights *wide_weights_read(const char *path);
void wide_weights_free(struct wide_weights *w);
/* Elements of a matrix ("blk.1.ffn_up.weight"), to be changed by a test. */
float *wide_weights_find(struct wide_weights *w, const char *name);
/* Logits (T, WIDE_VOCAB) of tokens, all arithmetic in double; free(). */
double *wide_logits(const struct wide_weights *w, const int32_t *tokens, int n, enum wide_rounding rounding);

#endif

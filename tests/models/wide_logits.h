/* wide_logits.h: logits of the wide model on any devices, and whether they are those of its weights. */
#ifndef GEUL_TESTS_WIDE_LOGITS_H
#define GEUL_TESTS_WIDE_LOGITS_H

#include "tests/models/rig.h"
#include "tests/models/wide_model.h"

/* Short sequences: where a float32 error makes one activation round to the other side, that token and those behind it
 * in its sequence differ, and the other sequences do not. */
enum {
    WIDE_SEQUENCES = 12,
    WIDE_EACH = 3,
    WIDE_TOKENS = WIDE_SEQUENCES * WIDE_EACH,
    WIDE_OF_ONE = WIDE_EACH * WIDE_VOCAB
};

/* The same tokens for all: WIDE_TOKENS. */
void wide_tokens(int32_t *tokens);
/* Logits (WIDE_SEQUENCES, WIDE_EACH, WIDE_VOCAB) of the tokens into out; o.n_sequences is set here. */
bool wide_run(const char *path, struct rig_options o, const int32_t *tokens, float *out);
/* The same in double precision; free(). */
double *wide_reference(const struct wide_weights *w, const int32_t *tokens, enum wide_rounding rounding);
/* Whether got are the logits of rounded arithmetic: to float32's digits in every sequence in which all activations
 * round alike, of which there are some, and nearer to those of rounded arithmetic than these are to exact ones. */
bool wide_agrees(const float *got, const double *rounded, const double *exact);

#endif

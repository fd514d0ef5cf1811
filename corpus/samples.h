/* samples.h: one row of training data as the ids of a sample or document. */
#ifndef GEUL_SAMPLES_H
#define GEUL_SAMPLES_H

#include "corpus/rows.h"
#include "data/encode_sample.h"

/* The ids of one row; free with geul_sample_free(), also after a failure. *joined is set where an input or the system's
 * text went into the question, because the template has no slot for it. */
enum geul_status geul_samples_encode(struct geul_context *ctx, const struct geul_tokenizer *tok,
                                     const struct geul_row *row, const struct geul_template *t, bool whole,
                                     struct geul_sample *out, bool *joined);

#endif

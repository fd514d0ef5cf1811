/* samples.h: one row of training data as the ids of a sample or document. */
#ifndef GEUL_SAMPLES_H
#define GEUL_SAMPLES_H

#include "corpus/rows.h"
#include "data/encode_sample.h"

/* The ids of one row, whose texts are brought into NFC or not; free with geul_sample_free(), also after a failure. */
enum geul_status geul_samples_encode(struct geul_context *ctx, const struct geul_tokenizer *tok,
                                     const struct geul_row *row, const struct geul_template *t, bool whole, bool nfc,
                                     struct geul_sample *out);

#endif

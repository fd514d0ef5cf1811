/* dataset.h: a dataset as the trainer reads it, and conversations; the rest is in geul.h. */
#ifndef GEUL_DATASET_H
#define GEUL_DATASET_H

#include "core/context.h"
#include "geul.h"

/* Adds a conversation of n turns in a template: every answer and its end token are targets, with whole everything. See
 * geul_dataset_add_answer(). */
enum geul_status geul_dataset_add_turns(struct geul_dataset *d, const struct geul_tokenizer *tok,
                                        const struct geul_template *t, const struct geul_turn *turns, int n,
                                        const char *input, bool whole);
/* The highest id that a sample may hold, -1 without samples: it has to be a row of the model's embedding. */
int32_t geul_dataset_highest_id(const struct geul_dataset *d);
/* Fails in ctx, naming the file, when a shard of d was made with another tokenizer. */
enum geul_status geul_dataset_check_tokenizer(struct geul_context *ctx, const struct geul_dataset *d,
                                              const struct geul_tokenizer *tok);
/* Whether sample i is a window cut out of running text, which may hold several documents. */
bool geul_dataset_is_window(const struct geul_dataset *d, int64_t i);
/* Ids of the longest sample. */
int geul_dataset_longest(const struct geul_dataset *d);

#endif

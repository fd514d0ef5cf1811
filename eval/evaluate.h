/* evaluate.h: one pass of a model over a text: perplexity, and the base model's logits written or compared with. */
#ifndef GEUL_EVALUATE_H
#define GEUL_EVALUATE_H

#include "eval/base_logits.h"
#include "eval/divergence.h"

struct geul_evaluation {
    struct geul_windows windows;
    const int32_t *ids;                     /* windows.n_tokens */
    const struct geul_text_length *lengths; /* of the ids */
    struct geul_base_writer *save;          /* gets every row; NULL: nothing is written */
    const struct geul_base_logits *base;    /* of the same windows and ids; NULL: nothing is compared */
    /* After every batch: tokens computed, and in all; the figures below are valid. false stops. May be NULL. */
    bool (*on_batch)(void *user, uint64_t done, uint64_t total);
    void *user;
    /* Results; zeros at the start. */
    struct geul_perplexity perplexity;
    struct geul_divergence divergence; /* free with geul_divergence_free() */
};

/* Runs the windows through the session, which must hold their sequences (geul_windows_sequences()). Perplexity counts
 * all rows of the model's vocabulary, as transformers does; the divergence those that base has. */
enum geul_status geul_evaluate(struct geul_session *s, struct geul_evaluation *e);

#endif

/* training_rig.h: what the tests of training data share: the tokenizer of share/geul-mini.gguf and looks at samples. */
#ifndef GEUL_TESTS_TRAINING_RIG_H
#define GEUL_TESTS_TRAINING_RIG_H

#include "tests/harness.h"

#include "geul.h"

struct training_rig {
    struct geul_context *ctx;
    struct geul_tokenizer *tok; /* NULL after a failed check */
};
struct training_rig training_rig_open(void);
void training_rig_close(struct training_rig *r);

/* Sample i of a dataset; malloc()ed, free with sample_view_free(). */
struct sample_view {
    int32_t *ids;
    bool *target;
    int n, n_targets;
    int ends;         /* end tokens */
    int learned_ends; /* of these targets */
};
struct sample_view sample_view(const struct training_rig *r, const struct geul_dataset *d, int64_t i);
void sample_view_free(struct sample_view *v);
/* The text of the ids whose target is `learned`, special tokens included; malloc()ed. The first id, which is never a
 * target, counts as what the second one is. */
char *sample_text(const struct training_rig *r, const struct sample_view *v, bool learned);

#endif

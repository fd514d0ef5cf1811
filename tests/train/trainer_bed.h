/* trainer_bed.h: a golden model with samples of random ids, for tests of whole trainers. */
#ifndef GEUL_TESTS_TRAINER_BED_H
#define GEUL_TESTS_TRAINER_BED_H

#include "tests/models/golden.h"
#include "train/trainer.h"

/* Path of the golden in f32, converted in this test's scratch directory, until the test ends; two of them in turn. */
const char *bed_model(const char *name);
/* n samples of 5 to 40 ids below 60; some ids are not targets. */
struct geul_dataset *bed_data(struct geul_context *ctx, int n);
/* Small packed batches with accumulation on one thread; rank 0: all weights. */
struct geul_train_options bed_options(const char *model, int rank);
/* Steps until the trainer has done so many; false after a failed check. */
bool bed_steps(struct geul_trainer *t, int64_t until);
/* All that a run does: a step, an evaluation, a checkpoint written to path and read back, a step, and the model into
 * path. The status of the first that fails. */
enum geul_status bed_use(struct geul_trainer *t, struct geul_dataset *data, const char *path);
/* Checks that both trainers hold the same: weights, states and place, bit for bit. */
void check_same_trainer(const struct geul_trainer *a, const struct geul_trainer *b, const char *what);
/* Every byte of weights and states, as they are saved; malloc()ed. */
char *bed_values(const struct geul_trainer *t, size_t *size);

#endif

/* optimizer.h: the optimizers as rows of a table: which operation, and what states it keeps per weight. */
#ifndef GEUL_OPTIMIZER_H
#define GEUL_OPTIMIZER_H

#include "geul.h"

#include "core/tensor.h"

struct geul_optimizer_info {
    const char *name; /* "adamw", as options say it */
    enum geul_op op;
    int n_states;
};

/* NULL for a value outside the enum. */
const struct geul_optimizer_info *geul_optimizer_info(enum geul_optimizer optimizer);
/* Type and shape of state number i of a weight; returns the number of dimensions. */
int geul_optimizer_state(enum geul_optimizer optimizer, const struct geul_tensor *weight, int i, enum geul_type *type,
                         int64_t shape[2]);

/* The learning rate of a step, from 1 on, of `steps` in all. */
double geul_rate_at(const struct geul_train_options *o, int64_t step, int64_t steps);
/* "cosine"; NULL for a value outside the enum. */
const char *geul_rate_schedule_name(enum geul_rate_schedule schedule);

#endif

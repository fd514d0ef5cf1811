/* optimizer.h: the optimizers as rows of a table (include/geul_optimizers.def), and the learning rate. */
#ifndef GEUL_OPTIMIZER_H
#define GEUL_OPTIMIZER_H

#include "geul.h"

#include "core/tensor.h"

/* A hyper-parameter of one optimizer. */
struct geul_optimizer_hyper {
    double usual, least, most;
    const char *meaning; /* NULL: what its name says */
};

struct geul_optimizer_info {
    const char *name;  /* "adamw", as options say it */
    const char *title; /* "AdamW", as messages say it */
    enum geul_op op;
    struct geul_optimizer_hyper beta1, beta2, epsilon, weight_decay;
};

/* NULL for a value outside the enum. */
const struct geul_optimizer_info *geul_optimizer_info(enum geul_optimizer optimizer);

/* The learning rate of a step, from 1 on, of `steps` in all. */
double geul_rate_at(const struct geul_train_options *o, int64_t step, int64_t steps);
/* "cosine"; NULL for a value outside the enum. */
const char *geul_rate_schedule_name(enum geul_rate_schedule schedule);

#endif

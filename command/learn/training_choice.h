/* training_choice.h: values for what the options of a run leave open. */
#ifndef GEUL_TRAINING_CHOICE_H
#define GEUL_TRAINING_CHOICE_H

#include "command/learn/train_args.h"

/* What the choice depends on. */
struct geul_choice_basis {
    int64_t samples, tokens; /* to learn from */
    int longest;             /* tokens of the longest sample */
    int d_model, n_context;  /* of the model */
};

/* Sets what is 0 in o: rank (unless full), learning rate, batch with its packing and context, and epochs unless there
 * are steps. alpha 0 becomes twice the rank. Prints a line for each choice, with its reason and the option that
 * overrides it. packing: as asked for, "auto" leaves it open. */
void geul_choose_options(struct geul_train_options *o, const struct geul_choice_basis *basis, bool full,
                         const char *packing);

#endif

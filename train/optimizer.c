/* optimizer.c: see optimizer.h. */
#include "train/optimizer.h"

#include <math.h>

static const struct geul_optimizer_info optimizers[] = {
    [GEUL_OPTIMIZER_ADAMW] = {"adamw", GEUL_OP_ADAMW, 2},
    [GEUL_OPTIMIZER_ADAMW8] = {"adamw8", GEUL_OP_ADAMW8, 2},
    [GEUL_OPTIMIZER_ADAFACTOR] = {"adafactor", GEUL_OP_ADAFACTOR, 2},
    [GEUL_OPTIMIZER_SGD] = {"sgd", GEUL_OP_SGD, 1},
};

const struct geul_optimizer_info *geul_optimizer_info(enum geul_optimizer optimizer)
{
    bool known = (unsigned)optimizer < sizeof optimizers / sizeof *optimizers;
    return known ? &optimizers[optimizer] : NULL;
}

int geul_optimizer_state(enum geul_optimizer optimizer, const struct geul_tensor *weight, int i, enum geul_type *type,
                         int64_t shape[2])
{
    int64_t n = geul_tensor_elements(weight);
    *type = GEUL_TYPE_F32;
    switch (optimizer) {
    case GEUL_OPTIMIZER_ADAMW8:
        *type = GEUL_TYPE_I32;
        shape[0] = (n + GEUL_STATE8_BLOCK - 1) / GEUL_STATE8_BLOCK;
        shape[1] = GEUL_STATE8_WORDS;
        return 2;
    case GEUL_OPTIMIZER_ADAFACTOR: /* second moments of rows, and of columns or, for a vector, of its elements */
        shape[0] = i > 0 ? geul_cols(weight) : weight->n_dims == 2 ? weight->shape[0] : 1;
        return 1;
    case GEUL_OPTIMIZER_ADAMW:
    case GEUL_OPTIMIZER_SGD:
        break;
    }
    shape[0] = weight->shape[0];
    shape[1] = weight->shape[1];
    return weight->n_dims;
}

/* ---------------------------------------------------------------------------------------------------------- rates --
 */

/* From 1 down to 0 over done in [0, 1]. */
static double fall(const struct geul_train_options *o, double done)
{
    const double pi = 3.14159265358979323846;
    double share = o->decay_share > 0 ? (double)o->decay_share : 1;
    switch (o->schedule) {
    case GEUL_RATE_COSINE:
        return 0.5 * (1 + cos(pi * done));
    case GEUL_RATE_LINEAR:
        return 1 - done;
    case GEUL_RATE_WSD: /* warm-up, stable, decay (Hu et al. 2024), the decay linear */
        return done < 1 - share ? 1 : (1 - done) / share;
    case GEUL_RATE_CONSTANT:
        break;
    }
    return 1;
}

double geul_rate_at(const struct geul_train_options *o, int64_t step, int64_t steps)
{
    double rate = (double)o->rate, floor = (double)o->rate_floor;
    if (step <= o->warmup)
        return rate * (double)step / (double)o->warmup;
    double done = steps > o->warmup ? (double)(step - o->warmup) / (double)(steps - o->warmup) : 1;
    return rate * (floor + (1 - floor) * fall(o, done > 1 ? 1 : done));
}

const char *geul_rate_schedule_name(enum geul_rate_schedule schedule)
{
    static const char *const names[] = {"cosine", "linear", "constant", "wsd"};
    return (unsigned)schedule < sizeof names / sizeof *names ? names[schedule] : NULL;
}

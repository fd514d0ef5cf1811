/* optimizer.c: see optimizer.h. */
#include "train/optimizer.h"

#include <math.h>

static const struct geul_optimizer_info optimizers[] = {
#define OPTIMIZER(id, name, title, state0, state1, beta1, beta2, epsilon, weight_decay)                                \
    {name, title, GEUL_OP_##id, beta1, beta2, epsilon, weight_decay},
#define HYPER(usual, least, most, note, meaning)                                                                       \
    {                                                                                                                  \
        usual, least, most, meaning                                                                                    \
    }
#include "geul_optimizers.def"
#undef OPTIMIZER
#undef HYPER
};

const struct geul_optimizer_info *geul_optimizer_info(enum geul_optimizer optimizer)
{
    bool known = (unsigned)optimizer < sizeof optimizers / sizeof *optimizers;
    return known ? &optimizers[optimizer] : NULL;
}

void geul_train_options_set_optimizer(struct geul_train_options *o, enum geul_optimizer optimizer)
{
    const struct geul_optimizer_info *info = geul_optimizer_info(optimizer);
    o->optimizer = optimizer;
    if (!info)
        return;
    o->beta1 = (float)info->beta1.usual;
    o->beta2 = (float)info->beta2.usual;
    o->epsilon = (float)info->epsilon.usual;
    o->weight_decay = (float)info->weight_decay.usual;
}

/* ------------------------------------------------------------------------------------- rates -- */

/* The schedule's factor, from 1 down to 0 (CONSTANT: 1), at done in [0, 1] of the steps after the warm-up. */
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

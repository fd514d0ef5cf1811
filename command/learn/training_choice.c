/* training_choice.c: see training_choice.h.
 *
 * The rules come from the measurements in docs/training.md, with data sets of 5 to 1,500 rows:
 *
 *     rows a step    R = sqrt(rows) / 2.4, 1 to 32
 *     epochs         E = 300 / sqrt(rows), 1 to 40
 *     steps          rows / R * E = 720 for every size in between: answers change with the number of updates, and an
 *                    update learns enough from few rows
 *     rate           at d_model 2048 5e-4 for adapters and 5e-5 for all weights, which are usual there; the best one
 *                    falls about as 1 / width
 */
#include "command/learn/training_choice.h"

#include <math.h>
#include <stdio.h>

#define ROWS_DIVISOR 2.4
#define EPOCH_ROWS   300.0
#define MOST_ROWS    32
#define MOST_EPOCHS  40
#define MOST_TIMES   8.0 /* the usual rate */
#define MANY_ROWS    500 /* from here on an adapter gets the higher rank */

enum { LOW_RANK = 8, HIGH_RANK = 16, WIDTH = 2048, CONTEXT_STEP = 8, MOST_CONTEXTS = 4 };

static double within(double v, double least, double most)
{
    return fmax(least, fmin(most, v));
}

/* v with two digits: a rate is read and typed by people. */
static float two_digits(double v)
{
    double unit = pow(10, floor(log10(v)) - 1);
    return (float)(round(v / unit) * unit);
}

static void choose_rank(struct geul_lora_options *lora, const struct geul_choice_basis *basis)
{
    if (lora->rank == 0) {
        lora->rank = basis->samples >= MANY_ROWS ? HIGH_RANK : LOW_RANK;
        fprintf(stderr, "chosen: rank %d, %s (--rank)\n", lora->rank,
                lora->rank == LOW_RANK ? "which holds what so few rows teach" : "for this many rows");
    }
    if (!(lora->alpha > 0))
        lora->alpha = 2 * (float)lora->rank;
}

static void choose_rate(struct geul_train_options *o, const struct geul_choice_basis *basis, bool full)
{
    double usual = full ? 5e-5 : 5e-4;
    o->rate = two_digits(usual * fmin(MOST_TIMES, (double)WIDTH / basis->d_model));
    fprintf(stderr, "chosen: learning rate %g: %g is usual at a width of %d, narrower models take more (--lr)\n",
            (double)o->rate, usual, WIDTH);
}

/* Rows a step, and a context that holds the longest: samples then need no packing. */
static void choose_batch(struct geul_train_options *o, const struct geul_choice_basis *basis, const char *packing)
{
    double rows = sqrt((double)basis->samples) / ROWS_DIVISOR, mean = (double)basis->tokens / (double)basis->samples;
    int longest = (basis->longest + CONTEXT_STEP - 1) / CONTEXT_STEP * CONTEXT_STEP;
    int context = o->n_context ? o->n_context : basis->n_context;
    /* Long rows: no more tokens a step than a few contexts hold. */
    rows = within(fmin(rows, MOST_CONTEXTS * (double)basis->n_context / fmax(mean, 1)), 1, MOST_ROWS);
    o->n_batch = (int)round(rows);
    if (longest < context)
        o->n_context = longest;
    if (packing[0] == 'a')
        o->packing = false;
    fprintf(stderr,
            "chosen: %d row%s a step, so that %lld rows make enough steps (-b); context %d, which holds the longest "
            "row (-c)\n",
            o->n_batch, o->n_batch == 1 ? "" : "s", (long long)basis->samples, o->n_context ? o->n_context : context);
}

static void choose_epochs(struct geul_train_options *o, const struct geul_choice_basis *basis)
{
    o->epochs = round(within(EPOCH_ROWS / sqrt((double)basis->samples), 1, MOST_EPOCHS));
    fprintf(stderr, "chosen: %g epoch%s, %s (--epochs, --steps)\n", o->epochs, o->epochs > 1 ? "s" : "",
            o->epochs > 1 ? "as few rows have to be seen often to change the answers" : "as the rows are many");
}

void geul_choose_options(struct geul_train_options *o, const struct geul_choice_basis *basis, bool full,
                         const char *packing)
{
    if (basis->samples < 1)
        return; /* the trainer will say that there is nothing to learn from */
    if (!full)
        choose_rank(&o->lora, basis);
    if (o->rate == 0)
        choose_rate(o, basis, full);
    if (o->n_batch == 0)
        choose_batch(o, basis, packing);
    if (o->steps == 0 && o->epochs == 0)
        choose_epochs(o, basis);
}

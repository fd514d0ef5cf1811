/* op_optimizer.c: NORM2, SGD, ADAMW, ADAMW8 and ADAFACTOR. Weights do not depend on the number of threads: every
 * element is changed by itself, and sums over elements are made of pieces that follow from the shape alone, added up in
 * order. The kernels (train_lanes.h) give the same bits in every instruction set, and set the gradient to 0. */
#include "backends/cpu/cpu_ops.h"
#include "core/random.h"

#include <float.h>
#include <math.h>
#include <string.h>

enum { SEGMENT = 4096, PIECES = 256, BLOCK = GEUL_STATE8_BLOCK };

/* ------------------------------------------------------------------------------------- NORM2 -- */

/* One piece's contribution. */
struct square_sum {
    double sum;
    uint64_t others; /* values that are not finite */
};

static bool norm2_scratch(const struct geul_cpu_kernels *kernels, const struct geul_tensor *t, int n_threads,
                          size_t *bytes)
{
    (void)kernels, (void)t, (void)n_threads;
    *bytes = PIECES * sizeof(struct square_sum);
    return true;
}

/* The root of the sum of squares of x, and how many of its values are not finite: t is (2). Segments of rows, the whole
 * of a contiguous tensor being one row, are grouped into at most PIECES pieces. */
static void run_norm2(struct geul_cpu_run *run, const struct geul_tensor *t)
{
    const struct geul_tensor *x = t->src[0];
    bool whole = geul_is_contiguous(x);
    size_t rows = whole ? 1 : (size_t)geul_rows(x);
    size_t cols = (size_t)(whole ? geul_tensor_elements(x) : geul_cols(x)), per_row = (cols + SEGMENT - 1) / SEGMENT;
    size_t segments = rows * per_row, pieces = segments < PIECES ? segments : PIECES, from, to;
    struct square_sum *sums = (void *)run->scratch;
    geul_cpu_share(run, pieces, &from, &to);
    for (size_t i = from; i < to; i++) {
        size_t first, end;
        geul_cpu_part(segments, pieces, i, &first, &end);
        sums[i] = (struct square_sum){0};
        for (size_t s = first; s < end; s++) {
            size_t start = s % per_row * SEGMENT, left = cols - start;
            const float *row = whole ? x->data : geul_cpu_row(x, s / per_row);
            sums[i].sum += run->kernels->squares(row + start, left < SEGMENT ? left : SEGMENT, &sums[i].others);
        }
    }
    geul_cpu_barrier(run);
    if (run->thread != 0)
        return;
    /* By one thread and in order: doubles too depend on the order they are added in. */
    struct square_sum all = {0};
    for (size_t i = 0; i < pieces; i++) {
        all.sum += sums[i].sum;
        all.others += sums[i].others;
    }
    ((float *)t->data)[0] = (float)sqrt(all.sum);
    ((float *)t->data)[1] = (float)all.others;
}

/* ----------------------------------------------------------------------------- SGD and AdamW -- */

/* A hyper-parameter as it was written: the decimal of up to seven places that rounds to this float, if there is one;
 * otherwise the float. 1 - 0.999f would differ from 0.001 by 1e-5 of it. */
static double written(float f)
{
    double d = nearbyint((double)f * 1e7) / 1e7;
    return (float)d == f ? d : (double)f;
}

static const float *hyper_of(const struct geul_tensor *t)
{
    return t->src[t->n_src - 1]->data;
}

/* What all optimizers take from the hyper-parameters. */
static struct geul_cpu_step step_of(const struct geul_tensor *t)
{
    const float *hyper = hyper_of(t);
    double decay = t->params.update.decay ? (double)hyper[GEUL_HYPER_RATE] * (double)hyper[GEUL_HYPER_DECAY] : 0;
    struct geul_cpu_step step = {
        .scale = hyper[GEUL_HYPER_GRADIENT_SCALE],
        .shrink = (float)(1 - decay),
        .rate = hyper[GEUL_HYPER_RATE],
        .epsilon = hyper[GEUL_HYPER_EPSILON],
    };
    for (int i = 0; i < 2; i++) {
        double beta = written(hyper[i ? GEUL_HYPER_BETA2 : GEUL_HYPER_BETA1]);
        step.decay[i] = (float)beta;
        step.mix[i] = (float)(1 - beta);
    }
    return step;
}

/* The same, with AdamW's bias corrections for moments that started at 0. */
static struct geul_cpu_step adamw_step_of(const struct geul_tensor *t)
{
    const float *hyper = hyper_of(t);
    struct geul_cpu_step step = step_of(t);
    double n = hyper[GEUL_HYPER_STEP];
    step.rate = (float)(hyper[GEUL_HYPER_RATE] / (1 - pow(written(hyper[GEUL_HYPER_BETA1]), n)));
    step.root = (float)sqrt(1 - pow(written(hyper[GEUL_HYPER_BETA2]), n));
    return step;
}

static void run_sgd(struct geul_cpu_run *run, const struct geul_tensor *t)
{
    struct geul_cpu_step step = step_of(t);
    step.pull = t->params.update.decay ? hyper_of(t)[GEUL_HYPER_DECAY] : 0;
    float *w = t->data, *g = t->src[1]->data, *momentum = t->src[2]->data;
    size_t from, to;
    geul_cpu_share(run, (size_t)geul_tensor_elements(t), &from, &to);
    if (from < to)
        run->kernels->sgd(w + from, g + from, momentum + from, &step, to - from);
}

static void run_adamw(struct geul_cpu_run *run, const struct geul_tensor *t)
{
    struct geul_cpu_step step = adamw_step_of(t);
    float *w = t->data, *g = t->src[1]->data, *m = t->src[2]->data, *v = t->src[3]->data;
    size_t from, to;
    geul_cpu_share(run, (size_t)geul_tensor_elements(t), &from, &to);
    if (from < to)
        run->kernels->adamw(w + from, g + from, m + from, v + from, &step, to - from);
}

/* AdamW over 8-bit states (train_lanes.h has their format): a block at a time, the moments are decoded to float32,
 * stepped by the same kernel and encoded again. Blocks are counted over the whole weight and belong to one thread each.
 * The key of the stochastic rounding is made of the step number, the block and the state, so that a run that is
 * repeated or resumed, with any number of threads, rounds the same. */
static void run_adamw8(struct geul_cpu_run *run, const struct geul_tensor *t)
{
    const struct geul_cpu_kernels *kernels = run->kernels;
    struct geul_cpu_step step = adamw_step_of(t);
    size_t n = (size_t)geul_tensor_elements(t), from, to;
    uint64_t key = geul_random_key(0, (uint64_t)hyper_of(t)[GEUL_HYPER_STEP]);
    geul_cpu_share(run, (n + BLOCK - 1) / BLOCK, &from, &to);
    for (size_t i = from; i < to; i++) {
        size_t at = i * BLOCK, part = n - at < BLOCK ? n - at : BLOCK;
        void *blocks[2] = {geul_cpu_row(t->src[2], i), geul_cpu_row(t->src[3], i)};
        float moments[2][BLOCK];
        for (int j = 0; j < 2; j++)
            kernels->state8_read(moments[j], blocks[j], j == 0, part); /* the first moment has a sign */
        /* The step takes the moments before they are rounded: the noise of this rounding acts from the next step on. */
        kernels->adamw((float *)t->data + at, (float *)t->src[1]->data + at, moments[0], moments[1], &step, part);
        for (int j = 0; j < 2; j++)
            kernels->state8_write(blocks[j], moments[j], j == 0, geul_random_key(key, 2 * i + (size_t)j), part);
    }
}

/* --------------------------------------------------------------------------------- Adafactor -- */

enum { CHUNKS = 64 };

/* One chunk of rows' contributions. The scratch holds CHUNKS of these, then the columns' sums of squared gradients of
 * each chunk, float (chunks, C). */
struct chunk {
    double weights, rows, changes; /* squares of the weights; row states; squares of the changes */
};

static size_t chunks_of(const struct geul_tensor *t)
{
    int64_t rows = geul_rows(t);
    return rows < CHUNKS ? (size_t)rows : CHUNKS;
}

static bool adafactor_scratch(const struct geul_cpu_kernels *kernels, const struct geul_tensor *t, int n_threads,
                              size_t *bytes)
{
    (void)kernels, (void)n_threads;
    size_t row = (size_t)geul_cols(t) * sizeof(float), sums;
    return geul_mul_size(row, chunks_of(t), &sums) && geul_add_size(sums, CHUNKS * sizeof(struct chunk), bytes);
}

/* One node as all threads see it. */
struct adafactor {
    const struct geul_tensor *t;
    struct geul_cpu_step step;
    size_t rows, cols, chunks;
    bool matrix;
    double mix;      /* weight of the new second moment in the running average */
    double row_mean; /* of the row states */
    struct chunk *chunk;
    float *sums; /* (chunks, C) */
};

static float *row_at(const struct geul_tensor *t, size_t row)
{
    return (float *)t->data + row * (size_t)geul_cols(t);
}

static float averaged(float state, double value, double mix)
{
    return (float)(state + mix * (value - state));
}

/* First pass over a chunk of rows: the squared gradients into the row states and the chunk's sums. */
static void adafactor_gather(const struct geul_cpu_kernels *kernels, const struct adafactor *a, size_t i)
{
    struct chunk sum = {0};
    float *columns = a->sums + i * a->cols, *row_state = a->t->src[2]->data;
    size_t first, end;
    uint64_t others = 0;
    memset(columns, 0, a->cols * sizeof *columns);
    geul_cpu_part(a->rows, a->chunks, i, &first, &end);
    for (size_t r = first; r < end; r++) {
        double squares = kernels->adafactor_sums(columns, row_at(a->t->src[1], r), a->step.scale, a->cols);
        sum.weights += kernels->squares(row_at(a->t, r), a->cols, &others);
        if (!a->matrix)
            continue;
        row_state[r] = averaged(row_state[r], squares / (double)a->cols, a->mix);
        sum.rows += row_state[r];
    }
    a->chunk[i] = sum;
}

/* Updates columns [from, to) of the column states, from the sums of all chunks. */
static void adafactor_columns(const struct adafactor *a, size_t from, size_t to)
{
    float *state = a->t->src[3]->data;
    for (size_t c = from; c < to; c++) {
        double sum = 0;
        for (size_t i = 0; i < a->chunks; i++)
            sum += a->sums[i * a->cols + c];
        state[c] = averaged(state[c], sum / (double)a->rows, a->mix);
    }
}

/* The step of row r. The second moments are of rank one: the column's state times the row's over the rows' mean. */
static struct geul_cpu_step adafactor_row(const struct adafactor *a, size_t r)
{
    struct geul_cpu_step step = a->step;
    if (a->matrix)
        step.factor = (float)(((const float *)a->t->src[2]->data)[r] / fmax(a->row_mean, FLT_EPSILON));
    return step;
}

/* The size of the step: relative to the root mean square of the weight, and divided by that of the changes where it is
 * above 1. */
static float adafactor_rate(const struct adafactor *a)
{
    const float *hyper = hyper_of(a->t);
    double weights = 0, changes = 0, n = (double)a->rows * (double)a->cols;
    for (size_t i = 0; i < a->chunks; i++) {
        weights += a->chunk[i].weights;
        changes += a->chunk[i].changes;
    }
    double rho = fmin(hyper[GEUL_HYPER_RATE], 1 / sqrt(hyper[GEUL_HYPER_STEP]));
    double alpha = fmax(written(hyper[GEUL_HYPER_EPSILON]), sqrt(weights / n)) * rho;
    return (float)(alpha / fmax(1, sqrt(changes / n)));
}

/* As in PyTorch: without momentum, with the changes' root mean square clipped to 1. Three passes over the gradient,
 * because each needs sums over the whole of it: states, then the size of the changes under them, then the step. */
static void run_adafactor(struct geul_cpu_run *run, const struct geul_tensor *t)
{
    struct adafactor a = {.t = t, .step = step_of(t), .rows = (size_t)geul_rows(t), .cols = (size_t)geul_cols(t)};
    size_t from, to, first, end;
    if (a.rows == 0 || a.cols == 0)
        return;
    a.chunks = chunks_of(t);
    a.matrix = t->n_dims == 2;
    a.mix = pow(hyper_of(t)[GEUL_HYPER_STEP], written(hyper_of(t)[GEUL_HYPER_BETA2]));
    a.chunk = (void *)run->scratch;
    a.sums = (float *)(void *)(a.chunk + CHUNKS);
    a.step.epsilon = FLT_EPSILON * FLT_EPSILON;
    a.step.factor = 1;
    geul_cpu_share(run, a.chunks, &from, &to);
    for (size_t i = from; i < to; i++)
        adafactor_gather(run->kernels, &a, i);
    geul_cpu_barrier(run);
    geul_cpu_share(run, a.cols, &first, &end);
    adafactor_columns(&a, first, end);
    geul_cpu_barrier(run);
    /* The row states are complete since the first barrier, the column states since the second. Every thread adds up the
     * same chunks in the same order and so has the same mean. */
    for (size_t i = 0; i < a.chunks; i++)
        a.row_mean += a.chunk[i].rows / (double)a.rows;
    const float *columns = t->src[3]->data;
    for (size_t i = from; i < to; i++) {
        geul_cpu_part(a.rows, a.chunks, i, &first, &end);
        for (size_t r = first; r < end; r++) {
            struct geul_cpu_step step = adafactor_row(&a, r);
            a.chunk[i].changes += run->kernels->adafactor_norm(row_at(t->src[1], r), columns, &step, a.cols);
        }
    }
    geul_cpu_barrier(run);
    /* Weights and gradients change only from here on: no pass needs the old ones any more. */
    a.step.rate = adafactor_rate(&a);
    geul_cpu_share(run, a.rows, &first, &end);
    for (size_t r = first; r < end; r++) {
        struct geul_cpu_step step = adafactor_row(&a, r);
        run->kernels->adafactor_step(row_at(t, r), row_at(t->src[1], r), columns, &step, a.cols);
    }
}

const struct geul_cpu_op geul_cpu_op_NORM2 = {.scratch = norm2_scratch, .run = run_norm2};
const struct geul_cpu_op geul_cpu_op_SGD = {.run = run_sgd};
const struct geul_cpu_op geul_cpu_op_ADAMW = {.run = run_adamw};
const struct geul_cpu_op geul_cpu_op_ADAMW8 = {.run = run_adamw8};
const struct geul_cpu_op geul_cpu_op_ADAFACTOR = {.scratch = adafactor_scratch, .run = run_adafactor};

/* op_loss.c: CROSS_ENTROPY and LOSS_BACK.
 *
 * With lse = log sum exp of the V logits x of a row, e the smoothing and t the target:
 *   loss  = (1 - e) (lse - x_t) + e (lse - mean x) + z lse^2
 *   dx_i  = dy ((1 + 2 z lse) softmax_i - (1 - e) [i = t] - e / V)
 * All logits are taken relative to the largest one, so that nothing large cancels. */
#include "backends/cpu/cpu_ops.h"

#include <math.h>
#include <string.h>

/* The target of a row; negative when it is outside 0..n-1. */
static int64_t target_of(const struct geul_tensor *targets, size_t row, int64_t n)
{
    int32_t target = ((const int32_t *)targets->data)[row];
    return target < n ? target : -1;
}

/* One row at a time, in double after the sums. Rows without a target have loss 0, whatever their logits. */
static void run_cross_entropy(struct geul_cpu_run *run, const struct geul_tensor *t)
{
    const struct geul_tensor *x = t->src[0];
    const struct geul_params_loss p = t->params.loss;
    float *loss = t->data;
    for (size_t r; (r = geul_cpu_take(run)) < (size_t)x->shape[0];) {
        int64_t target = target_of(t->src[1], r, x->shape[1]);
        loss[r] = 0;
        if (target < 0)
            continue;
        const float *row = geul_cpu_row(x, r);
        double powers, rests, smoothing = (double)p.smoothing;
        float max = run->kernels->softmax_sums(row, (size_t)x->shape[1], &powers, &rests);
        double log_powers = log(powers), lse = log_powers + (double)max, sum;
        sum = (1 - smoothing) * (log_powers - ((double)row[target] - (double)max));
        if (p.smoothing > 0)
            sum += smoothing * (log_powers - rests / (double)x->shape[1]);
        if (p.z > 0)
            sum += (double)p.z * lse * lse;
        loss[r] = (float)sum;
    }
}

/* The gradient of a row of n logits; out may be x. */
static void loss_back(const struct geul_cpu_kernels *kernels, float *out, const float *x, size_t n, double dy,
                      size_t target, struct geul_params_loss p)
{
    double powers, rests, smoothing = (double)p.smoothing;
    float max = kernels->softmax_sums(x, n, &powers, &rests);
    double lse = log(powers) + (double)max, weight = p.z > 0 ? 1 + 2 * (double)p.z * lse : 1;
    kernels->softmax_line(out, x, n, max, (float)(dy * weight / powers), (float)(-dy * smoothing / (double)n));
    out[target] -= (float)(dy * (1 - smoothing));
}

static void run_loss_back(struct geul_cpu_run *run, const struct geul_tensor *t)
{
    const struct geul_tensor *x = t->src[0];
    const float *dy = t->src[1]->data;
    for (size_t r; (r = geul_cpu_take(run)) < (size_t)x->shape[0];) {
        int64_t target = target_of(t->src[2], r, x->shape[1]);
        float *out = geul_cpu_row(t, r);
        if (target < 0 || dy[r] == 0)
            memset(out, 0, (size_t)x->shape[1] * sizeof *out);
        else
            loss_back(run->kernels, out, geul_cpu_row(x, r), (size_t)x->shape[1], (double)dy[r], (size_t)target,
                      t->params.loss);
    }
}

const struct geul_cpu_op geul_cpu_op_CROSS_ENTROPY = {.run = run_cross_entropy};
const struct geul_cpu_op geul_cpu_op_LOSS_BACK = {.run = run_loss_back};

/* op_rope.c: ROPE. The cosines and sines of a run are computed once: all layers rotate by the same angles. */
#include "backends/cpu/cpu_ops.h"

#include <math.h>
#include <string.h>

/* Floats per token in the table: n_rot/2 cosines, as many sines, and the sines of rotating back (gradients). */
static size_t row_floats(const struct geul_tensor *t)
{
    return (size_t)t->params.rope.n_rot / 2 * 3;
}

static bool rope_kept(const struct geul_tensor *t, size_t *bytes)
{
    size_t row = row_floats(t) * sizeof(float);
    return geul_mul_size((size_t)t->shape[0], row, bytes);
}

/* Angles are made in double and rounded once, so that late positions are as exact as early ones. */
static void fill_angles(float *row, int32_t position, struct geul_params_rope p)
{
    int half = p.n_rot / 2;
    for (int i = 0; i < half; i++) {
        double angle = position * pow(p.base, -2.0 * i / p.n_rot);
        row[i] = (float)cos(angle);
        row[i + half] = (float)sin(angle);
        row[i + 2 * half] = -row[i + half];
    }
}

/* Fills the table for seq_pos, unless it still holds it from an earlier node. All threads decide the same, since they
 * walk the same nodes, so all reach the barrier or none. */
static void prepare_table(struct geul_cpu_run *run, const struct geul_tensor *t)
{
    const struct geul_tensor *seq_pos = t->src[1];
    struct geul_params_rope p = t->params.rope;
    if (run->rope_seq_pos == seq_pos && run->rope_params.n_rot == p.n_rot && run->rope_params.base == p.base)
        return;
    size_t from, to;
    geul_cpu_share(run, (size_t)t->shape[0], &from, &to);
    for (size_t i = from; i < to; i++) {
        const int32_t *at = geul_cpu_row(seq_pos, i);
        fill_angles((float *)run->kept + i * row_floats(t), at[1], p);
    }
    run->rope_seq_pos = seq_pos;
    run->rope_params = p;
    geul_cpu_barrier(run);
}

static void run_rope(struct geul_cpu_run *run, const struct geul_tensor *t)
{
    const struct geul_tensor *x = t->src[0];
    size_t n_rot = (size_t)t->params.rope.n_rot, depth = (size_t)t->shape[2], from, to;
    prepare_table(run, t);
    geul_cpu_share(run, (size_t)geul_rows(t), &from, &to);
    for (size_t r = from; r < to; r++) { /* one head of one token */
        const float *angles = (const float *)run->kept + r / (size_t)t->shape[1] * row_floats(t);
        const float *src = geul_cpu_row(x, r), *sines = angles + (t->params.rope.back ? n_rot : n_rot / 2);
        float *dst = geul_cpu_row(t, r);
        run->kernels->rotate(dst, src, angles, sines, n_rot / 2);
        if (dst != src && depth > n_rot)
            memcpy(dst + n_rot, src + n_rot, (depth - n_rot) * sizeof *dst);
    }
}

const struct geul_cpu_op geul_cpu_op_ROPE = {.kept = rope_kept, .run = run_rope};

/* cpu_ops.c: the dispatch array over core/ops.def (a row without geul_cpu_op_<ID> does not link), and what kernels
 * share. */
#include "backends/cpu/cpu_ops.h"

#include "core/team.h"

#include <sched.h>

const struct geul_cpu_op geul_cpu_op_VIEW = {NULL, NULL, NULL, NULL};

const struct geul_cpu_op *geul_cpu_op(enum geul_op op)
{
    static const struct geul_cpu_op *const table[GEUL_OP_COUNT] = {
        &geul_cpu_op_VIEW, /* LEAF: nothing to compute */
#define OP(id, ...) &geul_cpu_op_##id,
#include "core/ops.def"
#undef OP
    };
    return table[op];
}

/* Tells the core that this is a waiting loop. */
static inline void relax(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

/* Round i of waiting for another thread. */
static void wait_round(int i)
{
    const int spins = 4000; /* 50 to 200 microseconds; after that the thread waited for may need the core */
    if (i < spins && !geul_team_crowded())
        relax();
    else
        sched_yield();
}

void geul_cpu_barrier(struct geul_cpu_run *run)
{
    struct geul_cpu_shared *s = run->shared;
    if (run->n_threads == 1) {
        s->stopped = geul_cpu_cancelled(run);
        return;
    }
    int generation = atomic_load_explicit(&s->generation, memory_order_acquire);
    if (atomic_fetch_add_explicit(&s->arrived, 1, memory_order_acq_rel) + 1 == run->n_threads) {
        /* The last one. Others see the new generation only after this reset, so none of them can arrive at the next
         * barrier too early; and with it they see what all threads wrote before they arrived. */
        s->stopped = geul_cpu_cancelled(run);
        atomic_store_explicit(&s->arrived, 0, memory_order_relaxed);
        atomic_store_explicit(&s->generation, generation + 1, memory_order_release);
        return;
    }
    for (int i = 0; atomic_load_explicit(&s->generation, memory_order_acquire) == generation; i++)
        wait_round(i);
}

void geul_cpu_await(atomic_int *counter, int value)
{
    for (int i = 0; atomic_load_explicit(counter, memory_order_acquire) != value; i++)
        wait_round(i);
}

bool geul_cpu_cancelled(struct geul_cpu_run *run)
{
    struct geul_cpu_shared *s = run->shared;
    if (!s->cancel)
        return false;
    if (atomic_load_explicit(s->cancel, memory_order_relaxed))
        atomic_store_explicit(&s->noticed, true, memory_order_relaxed);
    return atomic_load_explicit(&s->noticed, memory_order_relaxed);
}

size_t geul_cpu_take(struct geul_cpu_run *run)
{
    if (geul_cpu_cancelled(run))
        return GEUL_CPU_NOTHING;
    return atomic_fetch_add_explicit(run->next, 1, memory_order_relaxed);
}

void geul_cpu_part(size_t n, size_t parts, size_t i, size_t *from, size_t *to)
{
    size_t each = n / parts, more = n % parts;
    *from = each * i + (i < more ? i : more);
    *to = *from + each + (i < more);
}

void geul_cpu_share(const struct geul_cpu_run *run, size_t n, size_t *from, size_t *to)
{
    geul_cpu_part(n, (size_t)run->n_threads, (size_t)run->thread, from, to);
}

void *geul_cpu_row(const struct geul_tensor *t, size_t row)
{
    uint8_t *p = t->data;
    for (int d = t->n_dims - 2; d >= 0; d--) {
        p += row % (size_t)t->shape[d] * t->stride[d];
        row /= (size_t)t->shape[d];
    }
    return p;
}

void geul_cpu_each_segment(struct geul_cpu_run *run, const struct geul_tensor *t, size_t length, geul_cpu_segment *body)
{
    size_t rows = (size_t)geul_rows(t), cols = (size_t)geul_cols(t), per_row = (cols + length - 1) / length;
    size_t from, to;
    geul_cpu_share(run, rows * per_row, &from, &to);
    for (size_t i = from; i < to && !geul_cpu_cancelled(run); i++) {
        size_t start = i % per_row * length, left = cols - start;
        body(run->kernels, t, i / per_row, start, left < length ? left : length);
    }
}

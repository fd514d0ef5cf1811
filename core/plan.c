/* plan.c: memory by liveness. Values are placed in order of birth, each into the smallest gap between the values that
 * are still alive. */
#include "core/plan.h"

#define ALIGNMENT 64

/* The alive values, by offset. */
struct alive {
    int n;
    int *index;
};

/* Forgets the values that ended before step. */
static void expire(struct alive *a, const struct geul_plan_value *values, int step)
{
    int kept = 0;
    for (int i = 0; i < a->n; i++)
        if (values[a->index[i]].last >= step)
            a->index[kept++] = a->index[i];
    a->n = kept;
}

/* The place in the list where a value of bytes fits best; *offset gets its address. */
static int best_gap(const struct alive *a, const struct geul_plan_value *values, size_t bytes, size_t *offset)
{
    size_t end = 0, best_size = SIZE_MAX;
    int best = -1;
    for (int i = 0; i < a->n; i++) {
        const struct geul_plan_value *v = &values[a->index[i]];
        size_t gap = v->offset > end ? v->offset - end : 0;
        if (gap >= bytes && gap < best_size) {
            best = i;
            best_size = gap;
            *offset = end;
        }
        size_t v_end = v->offset + v->bytes;
        end = v_end > end ? v_end : end;
    }
    if (best >= 0)
        return best;
    *offset = end;
    return a->n;
}

static void insert(struct alive *a, int place, int value)
{
    for (int i = a->n++; i > place; i--)
        a->index[i] = a->index[i - 1];
    a->index[place] = value;
}

enum geul_status geul_plan(struct geul_context *ctx, struct geul_plan_value *values, int n, size_t *total)
{
    struct alive a = {0, geul_alloc(ctx, (size_t)n, sizeof *a.index)};
    if (!a.index)
        return GEUL_ERROR_MEMORY;
    *total = 0;
    enum geul_status status = GEUL_OK;
    for (int i = 0; i < n && status == GEUL_OK; i++) {
        struct geul_plan_value *v = &values[i];
        if (v->bytes > SIZE_MAX / 4 || *total > SIZE_MAX / 4) { /* so that no sum below can overflow */
            status = geul_fail(ctx, GEUL_ERROR_MEMORY, "the graph needs more memory than can be addressed");
            break;
        }
        v->bytes = (v->bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
        expire(&a, values, v->first);
        if (v->reuses >= 0) {
            v->offset = values[v->reuses].offset;
            for (int k = 0; k < a.n; k++)
                if (a.index[k] == v->reuses)
                    a.index[k] = i;
        } else {
            insert(&a, best_gap(&a, values, v->bytes, &v->offset), i);
        }
        *total = v->offset + v->bytes > *total ? v->offset + v->bytes : *total;
    }
    geul_free(ctx, a.index);
    return status;
}

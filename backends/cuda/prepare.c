/* prepare.c: from nodes to a plan: the steps that compute them, and the memory that the steps need besides the tensors.
 * Nodes are emitted three times:
 *
 *   ask    to see which rows their products will want rounded, so that the kernel that computes such rows can leave
 *          them rounded as well (rounded.c)
 *   count  steps, bytes of arguments, and pieces of scratch with their lifetimes, for which core's planner finds places
 *          that are shared where lifetimes permit
 *   emit   with the memory there: arguments with addresses are copied into the plan
 *
 * What a pattern emits for several nodes runs in one place of the order, so lifetimes are counted in groups: a piece
 * that is kept up to a node in the middle of a pattern is kept up to the end of the pattern. */
#include "backends/cuda/prepare.h"

#include "core/plan.h"

#include <stdio.h>
#include <string.h>

enum { ALIGNMENT = 256, ARGS_ALIGNMENT = 16 };

/* --------------------------------------------------------------------------------- emitting -- */

static size_t round_up(size_t bytes, size_t to)
{
    return bytes > SIZE_MAX - to ? SIZE_MAX / to * to : (bytes + to - 1) / to * to;
}

void geul_cuda_refuse(struct cuda_plan *plan, enum geul_status status, const char *format, ...)
{
    char text[400];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    const struct geul_tensor *node = plan->nodes[plan->at];
    geul_fail(plan->state->ctx, status, "%s (%s) on %s: %s", node->name, geul_cuda_op_name(node->op), plan->card->name,
              text);
    plan->state->failed = true;
}

void geul_cuda_step(struct cuda_plan *plan, const char *what, cuda_launch *launch, const void *args, size_t bytes)
{
    struct cuda_plan_state *s = plan->state;
    size_t at = s->args_bytes;
    if (s->pass == CUDA_EMIT && !s->failed) {
        struct cuda_step *step = &s->out->steps[s->n_steps];
        *step = (struct cuda_step){what, launch, s->out->args + at, plan->at};
        memcpy(s->out->args + at, args, bytes);
    }
    s->n_steps++;
    s->args_bytes = at + round_up(bytes, ARGS_ALIGNMENT);
}

/* The next piece of the plan; its address, or while there is none another that nobody will look at. */
static void *take_piece(struct cuda_plan *plan, struct cuda_piece piece)
{
    struct cuda_plan_state *s = plan->state;
    void *const nowhere = (void *)(uintptr_t)ALIGNMENT;
    if (s->failed || s->pass == CUDA_ASK)
        return nowhere;
    if (s->pass == CUDA_EMIT)
        return (uint8_t *)s->out->memory + s->pieces[s->next++].offset;
    if (!geul_reserve(s->ctx, &s->pieces, &s->most_pieces, s->n_pieces + 1, sizeof *s->pieces)) {
        s->failed = true;
        return nowhere;
    }
    s->pieces[s->n_pieces++] = piece;
    return nowhere;
}

void *geul_cuda_scratch(struct cuda_plan *plan, size_t bytes, int until)
{
    return take_piece(plan, (struct cuda_piece){.bytes = bytes, .first = plan->state->group, .until = until});
}

void *geul_cuda_zeros(struct cuda_plan *plan, size_t bytes)
{
    return take_piece(plan, (struct cuda_piece){.bytes = bytes, .zero = true});
}

/* Emits every node, by a pattern that fits or by itself. */
static void walk(struct cuda_plan *plan, enum cuda_pass pass)
{
    struct cuda_plan_state *s = plan->state;
    s->pass = pass;
    s->group = 0;
    s->n_rows = s->n_steps = s->args_bytes = s->next = 0;
    for (int at = 0, taken; at < plan->n_nodes && !s->failed; at += taken, s->group++) {
        taken = 0;
        plan->at = at;
        for (cuda_pattern *const *pattern = s->kernels->patterns; *pattern && taken == 0; pattern++)
            taken = (*pattern)(plan, at);
        const struct cuda_op *op = s->kernels->ops[plan->nodes[at]->op];
        if (taken == 0) {
            plan->at = at;
            if (op)
                op->emit(plan, plan->nodes[at]);
            else if (plan->nodes[at]->op != GEUL_OP_VIEW)
                geul_cuda_refuse(plan, GEUL_ERROR_UNSUPPORTED, "there is no kernel for this operation");
            taken = 1;
        }
        for (int i = at; i < at + taken; i++) {
            s->group_of[i] = s->group;
            geul_cuda_forget_rows(plan, plan->nodes[i]);
        }
    }
}

/* ---------------------------------------------------------------------------------- lifetimes -- */

/* Gives every piece its place: first the zeros, then what is shared. */
static enum geul_status place_pieces(struct cuda_plan *plan)
{
    struct cuda_plan_state *s = plan->state;
    struct geul_plan_value *values = geul_alloc(s->ctx, s->n_pieces, sizeof *values);
    int n = 0;
    size_t shared = 0;
    bool fits = true;
    enum geul_status status = values ? GEUL_OK : GEUL_ERROR_MEMORY;
    for (size_t i = 0; i < s->n_pieces && status == GEUL_OK; i++) {
        struct cuda_piece *p = &s->pieces[i];
        p->bytes = round_up(p->bytes, ALIGNMENT);
        if (p->zero) {
            p->offset = s->zero_bytes;
            fits = fits && geul_add_size(s->zero_bytes, p->bytes, &s->zero_bytes);
            continue;
        }
        int until = p->until < 0 ? 0 : p->until < plan->n_nodes ? p->until : plan->n_nodes - 1;
        int last = s->group_of[until] > p->first ? s->group_of[until] : p->first;
        values[n++] = (struct geul_plan_value){.bytes = p->bytes, .first = p->first, .last = last, .reuses = -1};
    }
    const struct geul_plan_limits limits = {ALIGNMENT, SIZE_MAX};
    int n_blocks = 0;
    if (status == GEUL_OK)
        status = geul_plan(s->ctx, values, n, &limits, &n_blocks);
    if (status == GEUL_OK)
        shared = geul_plan_block_bytes(values, n, 0);
    n = 0;
    for (size_t i = 0; i < s->n_pieces && status == GEUL_OK; i++)
        if (!s->pieces[i].zero)
            s->pieces[i].offset = s->zero_bytes + values[n++].offset;
    geul_free(s->ctx, values);
    if (status == GEUL_OK && (!fits || !geul_add_size(s->zero_bytes, shared, &s->total_bytes)))
        status = geul_fail(s->ctx, GEUL_ERROR_MEMORY, "the graph's working memory exceeds the address space");
    return status;
}

/* The first two passes: what the plan takes. */
static enum geul_status measure(struct cuda_plan *plan)
{
    struct cuda_plan_state *s = plan->state;
    s->group_of = geul_alloc(s->ctx, (size_t)plan->n_nodes, sizeof *s->group_of);
    if (!s->group_of)
        return GEUL_ERROR_MEMORY;
    walk(plan, CUDA_ASK);
    if (!s->failed)
        walk(plan, CUDA_COUNT);
    return s->failed ? geul_error_status(s->ctx) : place_pieces(plan);
}

static void free_state(struct cuda_plan_state *s)
{
    geul_free(s->ctx, s->group_of);
    geul_free(s->ctx, s->pieces);
    geul_free(s->ctx, s->asked);
    geul_free(s->ctx, s->rows);
}

/* ----------------------------------------------------------------------------------- prepare -- */

static struct cuda_plan new_plan(const struct geul_queue *queue, struct geul_tensor *const *nodes, int n_nodes,
                                 struct cuda_plan_state *state)
{
    const struct cuda_device *d = geul_cuda_device(queue->device);
    state->kernels = d->kernels;
    return (struct cuda_plan){
        .card = &d->card, .exact = queue->exact, .nodes = nodes, .n_nodes = n_nodes, .state = state};
}

size_t geul_cuda_working(const struct geul_queue *queue, struct geul_tensor *const *nodes, int n_nodes)
{
    struct geul_context *own = geul_context_new(NULL);
    if (!own)
        return SIZE_MAX;
    struct cuda_plan_state state = {.ctx = own};
    struct cuda_plan plan = new_plan(queue, nodes, n_nodes, &state);
    size_t bytes = measure(&plan) == GEUL_OK ? state.total_bytes : SIZE_MAX;
    free_state(&state);
    geul_context_free(own);
    return bytes;
}

/* The card's memory for the plan, with its zeros. */
static enum geul_status take_memory(struct geul_context *ctx, struct geul_queue *queue, struct cuda_plan_state *s)
{
    struct geul_device *device = queue->device;
    if (s->total_bytes == 0)
        return GEUL_OK;
    struct geul_buffer buffer;
    enum geul_status status = geul_backend_cuda.buffer_new(ctx, device, s->total_bytes, &buffer);
    if (status != GEUL_OK)
        return status;
    s->out->memory = buffer.base;
    s->out->bytes = s->total_bytes;
    int error = 0;
    if (s->zero_bytes > 0)
        error = geul_cuda_device(device)->gpu->set_async(buffer.base, 0, s->zero_bytes,
                                                         geul_cuda_queue(queue)->stream.handle);
    return geul_cuda_check(ctx, device, error, "setting %zu bytes to 0", s->zero_bytes);
}

/* Makes s->out of the plan that was measured. */
static enum geul_status emit(struct geul_context *ctx, struct geul_queue *queue, struct cuda_plan *plan)
{
    struct cuda_plan_state *s = plan->state;
    struct geul_prepared *p = s->out;
    const size_t n_steps = s->n_steps, args_bytes = s->args_bytes;
    p->steps = geul_alloc(ctx, n_steps, sizeof *p->steps);
    p->args = geul_alloc(ctx, args_bytes, 1);
    if (!p->steps || !p->args)
        return GEUL_ERROR_MEMORY;
    enum geul_status status = take_memory(ctx, queue, s);
    if (status != GEUL_OK)
        return status;
    walk(plan, CUDA_EMIT);
    p->n_steps = (int)n_steps;
    return s->failed ? geul_error_status(s->ctx) : GEUL_OK;
}

enum geul_status geul_cuda_prepare(struct geul_context *ctx, struct geul_queue *queue, struct geul_tensor *const *nodes,
                                   int n_nodes, struct geul_prepared **out)
{
    enum geul_status status = geul_cuda_enter(ctx, queue->device);
    if (status != GEUL_OK)
        return status;
    struct geul_prepared *p = geul_alloc(ctx, 1, sizeof *p);
    if (!p)
        return GEUL_ERROR_MEMORY;
    *p = (struct geul_prepared){.nodes = nodes, .n_nodes = n_nodes};
    struct cuda_plan_state state = {.ctx = ctx, .out = p};
    struct cuda_plan plan = new_plan(queue, nodes, n_nodes, &state);
    status = measure(&plan);
    if (status == GEUL_OK)
        status = emit(ctx, queue, &plan);
    free_state(&state);
    if (status == GEUL_OK)
        *out = p;
    else
        geul_cuda_release(ctx, queue, p);
    return status;
}

void geul_cuda_release(struct geul_context *ctx, struct geul_queue *queue, struct geul_prepared *prepared)
{
    if (!prepared)
        return;
    const struct cuda_device *d = geul_cuda_device(queue->device);
    d->gpu->use(d->number);
    if (prepared->graph || prepared->memory)
        d->gpu->stream_wait(geul_cuda_queue(queue)->stream.handle);
    if (prepared->graph)
        d->gpu->graph_free(prepared->graph);
    if (prepared->memory) {
        geul_cuda_begin_waiting();
        d->gpu->release(prepared->memory);
        geul_cuda_end_of_either();
    }
    geul_free(ctx, prepared->steps);
    geul_free(ctx, prepared->args);
    geul_free(ctx, prepared);
}

/* ----------------------------------------------------------------------------------- readers -- */

bool geul_cuda_same(const struct geul_tensor *a, const struct geul_tensor *b)
{
    /* Twins are copies, so they have their original's number among the tensors of its context. */
    return a == b || (a->ctx == b->ctx && a->serial == b->serial);
}

bool geul_cuda_is_view_of(const struct geul_tensor *t, const struct geul_tensor *x)
{
    while (!geul_cuda_same(t, x) && t->op == GEUL_OP_VIEW)
        t = t->src[0];
    return geul_cuda_same(t, x);
}

/* The first byte behind t. */
static uintptr_t end_of(const struct geul_tensor *t)
{
    uintptr_t end = (uintptr_t)t->data + geul_type_bytes(t->type); /* of its first block */
    for (int d = 0; d < t->n_dims; d++) {
        int64_t steps = d == t->block_dim ? t->shape[d] / geul_type_block(t->type) : t->shape[d];
        if (steps == 0)
            return (uintptr_t)t->data;
        end += (uintptr_t)(steps - 1) * t->stride[d];
    }
    return end;
}

bool geul_cuda_apart(const struct geul_tensor *a, const struct geul_tensor *b)
{
    return !a->data || !b->data || end_of(a) <= (uintptr_t)b->data || end_of(b) <= (uintptr_t)a->data;
}

static bool reads(const struct geul_tensor *node, const struct geul_tensor *t)
{
    for (int k = 0; k < node->n_src; k++)
        if (node->src[k] && geul_cuda_is_view_of(node->src[k], t))
            return true;
    return false;
}

int geul_cuda_last_reader(const struct cuda_plan *plan, const struct geul_tensor *t)
{
    for (int i = plan->n_nodes - 1; i >= 0; i--)
        if (reads(plan->nodes[i], t))
            return i;
    return -1;
}

int geul_cuda_readers(const struct cuda_plan *plan, const struct geul_tensor *t)
{
    int n = 0;
    for (int i = 0; i < plan->n_nodes; i++)
        n += reads(plan->nodes[i], t);
    return n;
}

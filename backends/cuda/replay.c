/* replay.c: runs plans. The first run of a plan gives its steps to the stream one by one; the second captures them as a
 * CUDA graph, which it and all later runs launch as one. Captured is what the kernels were given, addresses and sizes;
 * what they read at those addresses may change from run to run. A plan that cannot be captured, or whose runs are so
 * long that launching does not matter, goes on step by step. */
#include "backends/cuda/prepare.h"

#include "core/os.h"

/* Nodes between two looks at the card where a run is watched: it has always at least so many to do meanwhile. */
enum { PACE_NODES = 8 };

static enum geul_status step_failed(struct geul_context *ctx, const struct geul_queue *queue,
                                    const struct geul_prepared *p, const struct cuda_step *step, int error)
{
    const struct geul_tensor *node = p->nodes[step->node];
    return geul_cuda_check(ctx, queue->device, error, "kernel %s of %s (%s)", step->what, node->name,
                           geul_cuda_op_name(node->op));
}

/* How far a watched run has come: marks that were set in the stream, and nodes given to it before the last one. */
struct pace {
    int marks, nodes;
};

/* Sets a mark behind `nodes` nodes. Waits until the card has come to the mark before, and tells. */
static int keep_pace(struct geul_queue *queue, const struct geul_run_watch *watch, struct pace *pace, int nodes)
{
    const struct cuda_gpu *gpu = geul_cuda_device(queue->device)->gpu;
    const struct cuda_queue *q = geul_cuda_queue(queue);
    int error = gpu->event_record(q->pace[pace->marks % CUDA_PACE], q->stream.handle);
    if (!error && pace->marks > 0) {
        error = gpu->event_wait(q->pace[(pace->marks - 1) % CUDA_PACE]);
        if (!error && watch->progress)
            watch->progress(watch->user, pace->nodes);
    }
    *pace = (struct pace){pace->marks + 1, nodes};
    return error;
}

/* Gives the steps to the stream; watch may be NULL. */
static enum geul_status run_steps(struct geul_context *ctx, struct geul_queue *queue, const struct geul_prepared *p,
                                  const struct geul_run_watch *watch)
{
    struct cuda_queue *q = geul_cuda_queue(queue);
    struct pace pace = {0};
    for (int i = 0; i < p->n_steps; i++) {
        const struct cuda_step *step = &p->steps[i];
        if (watch && watch->cancel && atomic_load(watch->cancel))
            return GEUL_ERROR_CANCELLED;
        int error = step->launch(&q->stream, step->args);
        if (error)
            return step_failed(ctx, queue, p, step, error);
        bool node_ends = i + 1 == p->n_steps || p->steps[i + 1].node != step->node;
        if (watch && node_ends && step->node + 1 - pace.nodes >= PACE_NODES)
            error = keep_pace(queue, watch, &pace, step->node + 1);
        if (error)
            return geul_cuda_check(ctx, queue->device, error, "work that it was given");
    }
    return GEUL_OK;
}

/* The first run, or one that is not captured. */
static enum geul_status run_plainly(struct geul_context *ctx, struct geul_queue *queue, struct geul_prepared *p,
                                    const struct geul_run_watch *watch)
{
    const struct cuda_queue *q = geul_cuda_queue(queue);
    const long before = q->stream.launches;
    const double start = geul_os_seconds();
    enum geul_status status = run_steps(ctx, queue, p, watch);
    if (status != GEUL_OK)
        return status;
    p->launches = q->stream.launches - before;
    if (geul_os_seconds() - start > geul_cuda_device(queue->device)->gpu->long_run)
        p->not_captured = true;
    return GEUL_OK;
}

/* Makes p->graph, or sets p->not_captured. */
static enum geul_status capture(struct geul_context *ctx, struct geul_queue *queue, struct geul_prepared *p)
{
    const struct cuda_gpu *gpu = geul_cuda_device(queue->device)->gpu;
    struct cuda_queue *q = geul_cuda_queue(queue);
    const long before = q->stream.launches;
    void *graph = NULL;
    geul_cuda_begin_capture();
    int error = gpu->capture_begin(q->stream.handle);
    if (!error) {
        for (int i = 0; i < p->n_steps && !error; i++)
            error = p->steps[i].launch(&q->stream, p->steps[i].args);
        int ended = gpu->capture_end(q->stream.handle, &graph); /* in any case, or the stream stays captured */
        error = error ? error : ended;
    }
    geul_cuda_end_of_either();
    q->stream.launches = before;
    if (!error) {
        p->graph = graph;
        return GEUL_OK;
    }
    if (graph)
        gpu->graph_free(graph);
    p->not_captured = true;
    struct geul_context *own = geul_context_new_like(ctx);
    enum geul_status status = geul_cuda_check(own, queue->device, error, "capturing a graph");
    if (status == GEUL_ERROR_DEVICE)
        geul_fail(ctx, status, "%s", own ? geul_error(own) : "the device is lost");
    else /* launching step by step goes on, perhaps */
        geul_log(ctx, GEUL_LOG_DEBUG, "%s", own ? geul_error(own) : "a graph was not captured");
    geul_context_free(own);
    return status == GEUL_ERROR_DEVICE ? status : GEUL_OK;
}

enum geul_status geul_cuda_run(struct geul_context *ctx, struct geul_queue *queue, struct geul_prepared *p,
                               const struct geul_run_watch *watch)
{
    enum geul_status status = geul_cuda_enter(ctx, queue->device);
    if (status != GEUL_OK || p->n_steps == 0)
        return status;
    struct cuda_queue *q = geul_cuda_queue(queue);
    if (p->runs >= 1 && !p->graph && !p->not_captured)
        status = capture(ctx, queue, p);
    if (status != GEUL_OK)
        return status;
    if (p->graph) {
        int error = geul_cuda_device(queue->device)->gpu->graph_launch(p->graph, q->stream.handle);
        status = geul_cuda_check(ctx, queue->device, error, "launching a graph of %d steps", p->n_steps);
        q->stream.launches += status == GEUL_OK ? p->launches : 0;
    } else {
        status = run_plainly(ctx, queue, p, watch);
    }
    p->runs += status == GEUL_OK;
    return status;
}

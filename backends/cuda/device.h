/* device.h: the card behind a geul_device, and the stream behind a geul_queue; between device.c, prepare.c, replay.c
 * and cuda_measure.c. */
#ifndef GEUL_CUDA_DEVICE_H
#define GEUL_CUDA_DEVICE_H

#include "backends/cuda/cuda.h"

extern const struct geul_backend geul_backend_cuda;

/* What plans are made of. */
struct cuda_kernels {
    const struct cuda_op *const *ops; /* by enum geul_op; NULL: there is no kernel */
    cuda_pattern *const *patterns;    /* NULL after the last */
    /* Appends the step that fills out from the rows of x. */
    void (*round)(struct cuda_plan *plan, const struct geul_tensor *x, struct cuda_int8_rows out);
};
/* Those of cuda_ops.c; tests put kernels of their own here before they open devices. */
extern const struct cuda_kernels *geul_cuda_kernels;

/* geul_device.state */
struct cuda_device {
    const struct cuda_gpu *gpu;
    int number; /* CUDA's */
    struct cuda_card card;
    const struct cuda_kernels *kernels;
};

/* Tickets are served by few events in turn: one that has been recorded anew since is done later than its older ticket.
 * Two more keep the host from running far ahead of the card. */
enum { CUDA_TICKETS = 8, CUDA_PACE = 2 };

/* geul_queue.state */
struct cuda_queue {
    struct cuda_stream stream;
    void *tickets[CUDA_TICKETS], *pace[CUDA_PACE]; /* events */
    uint64_t given;                                /* tickets */
};

static inline struct cuda_device *geul_cuda_device(const struct geul_device *device)
{
    return (struct cuda_device *)device->state;
}
static inline struct cuda_queue *geul_cuda_queue(const struct geul_queue *queue)
{
    return (struct cuda_queue *)queue->state;
}

/* Makes device's card the one of this thread. Fails (recorded) when it is lost: at the head of every call that may
 * fail. Those that release what is on a lost card go on without looking at what they call. */
enum geul_status geul_cuda_enter(struct geul_context *ctx, struct geul_device *device);
/* GEUL_OK for 0; otherwise records that doing something failed with that error number of CUDA's: for lack of memory, or
 * because the card is lost from now on, or else GEUL_ERROR_UNSUPPORTED. The text goes on "NAME (cuda:0): ... failed".
 */
enum geul_status geul_cuda_check(struct geul_context *ctx, const struct geul_device *device, int error,
                                 const char *doing, ...) GEUL_PRINTF(4, 5);

/* CUDA refuses to wait for a card while a graph is captured there, by whatever thread, and the capture is lost too. So
 * who captures, and who calls what waits for the whole card (freeing memory does), begin and end it with these: they
 * exclude each other, but not those of one kind that wait. A thread does one of them at a time. */
void geul_cuda_begin_capture(void);
void geul_cuda_begin_waiting(void);
void geul_cuda_end_of_either(void);

/* The backend's prepare(), release() and working() (prepare.c), run() (replay.c) and measure() (cuda_measure.c). */
enum geul_status geul_cuda_prepare(struct geul_context *ctx, struct geul_queue *queue, struct geul_tensor *const *nodes,
                                   int n_nodes, struct geul_prepared **out);
void geul_cuda_release(struct geul_context *ctx, struct geul_queue *queue, struct geul_prepared *prepared);
size_t geul_cuda_working(const struct geul_queue *queue, struct geul_tensor *const *nodes, int n_nodes);
enum geul_status geul_cuda_run(struct geul_context *ctx, struct geul_queue *queue, struct geul_prepared *prepared,
                               const struct geul_run_watch *watch);
enum geul_status geul_cuda_measure(struct geul_context *ctx, struct geul_device *device,
                                   struct geul_device_ceilings *out);

#endif

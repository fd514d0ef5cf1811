/* runtime.h: runtimes: which device computes which node, what is copied between devices, and the memory for it all. */
#ifndef GEUL_RUNTIME_H
#define GEUL_RUNTIME_H

#include "backends/backend.h"
#include "core/graph.h"

/* A runtime over devices that the caller opened and closes (models and trainers; tests with devices of their own). The
 * first device gets what no other claims and must support every op. options, of its queues, may be NULL: the defaults;
 * runtimes of the same devices are independent. Free with geul_runtime_free(), before the devices are closed. */
struct geul_runtime *geul_runtime_new_on(struct geul_context *ctx, struct geul_device *const *devices, int n_devices,
                                         const struct geul_queue_options *options);
/* geul_runtime_run() without cancelling, for a graph that must not be left half computed: one that changes weights. */
enum geul_status geul_runtime_run_whole(struct geul_runtime *rt, struct geul_graph *graph);
/* From now on runs call progress, on the thread that runs, with the nodes done so far of all nodes; NULL: no longer. It
 * must not use the runtime; it may cancel. */
void geul_runtime_watch(struct geul_runtime *rt, void (*progress)(void *user, int done, int total), void *user);
/* Of the graph that was planned or run last: segments, and copies between devices. Bytes of a device's memory, which
 * may be left from a larger graph. */
int geul_runtime_segment_count(const struct geul_runtime *rt);
int geul_runtime_copy_count(const struct geul_runtime *rt);
size_t geul_runtime_bytes(const struct geul_runtime *rt, int device);
/* Whether g, which exists, is planned on rt (still). */
bool geul_runtime_planned(const struct geul_runtime *rt, const struct geul_graph *g);
/* Moves size bytes from one address of b, a buffer of one of rt's devices, to another, without the host where the
 * device can; ranges do not overlap. They have moved when geul_runtime_wait() has returned. Failures are in rt's
 * context. */
enum geul_status geul_runtime_move(struct geul_runtime *rt, struct geul_buffer *b, void *to, const void *from,
                                   size_t size);
enum geul_status geul_runtime_wait(struct geul_runtime *rt);
/* size bytes at address of b, as the last run left them, to host, which is geul_host_memory() of b's device. Waits for
 * this runtime only, not for others on the device. */
enum geul_status geul_runtime_read(struct geul_runtime *rt, const struct geul_buffer *b, const void *address,
                                   void *host, size_t size);
/* Host memory that device copies from and to fastest: host_alloc()'s where its backend has that. NULL (recorded) on
 * failure. The free function takes NULL. */
void *geul_host_memory(struct geul_context *ctx, struct geul_device *device, size_t size);
void geul_host_memory_free(struct geul_context *ctx, struct geul_device *device, void *memory);
/* Bytes that planning and running a graph takes of a device: for values, and as its backend's working memory. */
struct geul_runtime_needs {
    size_t values, working;
};
/* The needs of g on every device of rt, without allocating any of it. Weights and caches are not among them. */
enum geul_status geul_runtime_measure(struct geul_runtime *rt, struct geul_graph *g,
                                      struct geul_runtime_needs needs[GEUL_MAX_DEVICES]);

#endif

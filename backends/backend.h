/* backend.h: the whole contract between core and a backend.
 *
 * A backend drives one kind of hardware; a device is one piece of it. Tensor data in a device's buffer is an address in
 * that device's own address space and is NEVER dereferenced outside its backend, except where `host` says so.
 * Work is given to a queue, of which a device has as many as it has users: theirs may run at the same time, each in its
 * own order. run() may return before its work is done; event_record() and event_wait() order it. upload(), download()
 * and buffer_free() wait for the device themselves.
 */
#ifndef GEUL_BACKEND_H
#define GEUL_BACKEND_H

#include "core/tensor.h"

#include <stdatomic.h>

struct geul_device {
    const struct geul_backend *backend;
    char name[64];
    int n_threads; /* CPU threads of a queue that does not say; 0: it does not compute on the CPU */
    void *state;   /* the backend's own */
};

struct geul_buffer {
    struct geul_device *device;
    void *base; /* device address of the first byte */
    size_t size;
    bool host;   /* base may be dereferenced by the CPU backend */
    void *state; /* the backend's own */
};

/* What one user of a device gives it work through, with the memory that this work needs besides its tensors. One thread
 * at a time uses a queue; different queues are independent. */
struct geul_queue {
    struct geul_device *device;
    int n_threads; /* CPU threads that it computes with, 0 as in geul_device */
    void *state;   /* the backend's own */
};

/* What may be seen of a run, and stop it, while it computes. */
struct geul_run_watch {
    const atomic_bool *cancel; /* NULL: none */
    /* Called on the thread that called run() with the nodes that are done, as often as the backend finds convenient,
     * perhaps never. NULL: nobody asks. */
    void (*progress)(void *user, int done);
    void *user;
};

struct geul_backend {
    const char *name; /* "cpu" */
    /* How many devices it has on this machine. Finding none, for lack of a driver perhaps, is not a failure. */
    int (*count)(void);
    /* Device i of those; NULL (recorded) when it cannot be opened. n_threads as in geul_device_open(). */
    struct geul_device *(*open)(struct geul_context *ctx, int i, int n_threads);
    void (*close)(struct geul_context *ctx, struct geul_device *device);
    /* Free and total bytes of the device; zeros when unknown. */
    void (*memory)(struct geul_device *device, size_t *free_bytes, size_t *total_bytes);
    /* size bytes, contents undefined, base aligned to 64. */
    enum geul_status (*buffer_new)(struct geul_context *ctx, struct geul_device *device, size_t size,
                                   struct geul_buffer *out);
    /* Makes caller-owned host memory (mapped weights) usable without a copy. NULL: the device cannot; upload instead.*/
    enum geul_status (*buffer_wrap)(struct geul_context *ctx, struct geul_device *device, void *host, size_t size,
                                    struct geul_buffer *out);
    void (*buffer_free)(struct geul_context *ctx, struct geul_buffer *buffer);
    /* Host memory to and from [address, address + size) of buffer; the range was checked by core. */
    void (*upload)(struct geul_buffer *buffer, void *address, const void *src, size_t size);
    void (*download)(const struct geul_buffer *buffer, const void *address, void *dst, size_t size);
    /* Device to device without the host; false: not between these two, core copies through host memory. May be NULL. */
    bool (*copy)(struct geul_buffer *dst, void *dst_address, const struct geul_buffer *src, const void *src_address,
                 size_t size);
    /* Whether the dispatch array has an entry for op: some nodes of it can be computed. */
    bool (*has_op)(enum geul_op op);
    /* Whether the kernel of node's op takes its types and shapes; op and layout were checked (geul_device_supports()).
     * Never looks at data. */
    bool (*supports)(const struct geul_device *device, const struct geul_tensor *node);
    /* A queue of device, NULL (recorded) when memory is short. n_threads 0: the device's. All queues are freed before
     * their device is closed. */
    struct geul_queue *(*queue_new)(struct geul_context *ctx, struct geul_device *device, int n_threads);
    void (*queue_free)(struct geul_context *ctx, struct geul_queue *queue);
    /* Starts computing nodes in order. Everything was checked; only memory for scratch may fail. watch may be NULL;
     * once its cancel is true, the rest is left undone as soon as that is possible, and the result is
     * GEUL_ERROR_CANCELLED (not recorded), if the backend notices. */
    enum geul_status (*run)(struct geul_context *ctx, struct geul_queue *queue, struct geul_tensor *const *nodes,
                            int n_nodes, const struct geul_run_watch *watch);
    /* Bytes of its own that run() would take for these nodes; SIZE_MAX when that cannot be counted. May be NULL. */
    size_t (*working)(const struct geul_queue *queue, struct geul_tensor *const *nodes, int n_nodes);
    /* A ticket for all work given so far, and waiting for it. */
    uint64_t (*event_record)(struct geul_queue *queue);
    void (*event_wait)(struct geul_queue *queue, uint64_t ticket);
};

/* The backends of this build (registry.c, from backends.def); NULL after the last. */
const struct geul_backend *geul_backend_at(int i);
/* The devices of this machine: those of the first backend, then those of the next. */
enum { GEUL_DEVICE_HOST = 0 }; /* the CPU: always there, has every op and defines what it means */
int geul_device_count(void);
/* Opens device i. n_threads: CPU threads for a device that computes on the CPU; 0: one per core. NULL (recorded) when
 * there is no such device or it cannot be opened. Close with geul_device_close(). */
struct geul_device *geul_device_open(struct geul_context *ctx, int i, int n_threads);
/* ctx as when it was opened; device may be NULL. */
void geul_device_close(struct geul_context *ctx, struct geul_device *device);

#endif

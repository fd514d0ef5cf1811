/* backend.h: the whole contract between core and a backend.
 *
 * A backend drives one kind of hardware; a device is one piece of it. Tensor data in a device's buffer is an address in
 * that device's own address space and is NEVER dereferenced outside its backend, except where `host` says so.
 * Work is given to a queue, of which a device has as many as it has users: theirs may run at the same time, each in its
 * own order. What is given may be done later: event_record() and event_wait() say when it is done, wait_on() orders the
 * work of one queue behind that of another.
 *
 * Everything that touches a device can fail. GEUL_ERROR_DEVICE (recorded, with the device's name) means that it is
 * lost: what it held is gone, every later call on it fails likewise, releasing, freeing and closing still work, and
 * opening it anew may succeed. A failure is recorded in the ctx of the call that reports it.
 */
#ifndef GEUL_BACKEND_H
#define GEUL_BACKEND_H

#include "core/tensor.h"

#include <stdatomic.h>

struct geul_device {
    const struct geul_backend *backend;
    char name[64];     /* for people: "NVIDIA H200" */
    char id[24];       /* as users name it: "cpu", "cuda:0" */
    int n_threads;     /* CPU threads of a queue that does not say; 0: it does not compute on the CPU */
    size_t alignment;  /* of every value's address, in bytes: a power of 2, at least 64 */
    size_t max_buffer; /* bytes of the largest buffer, a multiple of alignment; SIZE_MAX: memory alone limits it */
    void *state;       /* the backend's own */
};

struct geul_buffer {
    struct geul_device *device;
    void *base; /* device address of the first byte */
    size_t size;
    bool host;   /* base may be dereferenced by the CPU backend */
    void *state; /* the backend's own */
};

/* All fields may be zero. */
struct geul_queue_options {
    int n_threads; /* CPU threads; 0: the device's */
    bool exact;    /* every product and sum has one order, whatever else is computed with it */
};

/* What one user of a device gives it work through, with the memory that this work needs besides its tensors. One thread
 * at a time uses a queue; different queues are independent. */
struct geul_queue {
    struct geul_device *device;
    int n_threads; /* CPU threads that it computes with, 0 as in geul_device */
    bool exact;
    void *state; /* the backend's own */
};

/* Nodes that a queue is ready to run: the backend's own. */
struct geul_prepared;

/* What may be seen of a run, and stop it, while it computes. */
struct geul_run_watch {
    const atomic_bool *cancel; /* NULL: none */
    /* Called on the thread that called run() with the nodes that are done, as often as the backend finds convenient,
     * perhaps never. NULL: nobody asks. */
    void (*progress)(void *user, int done);
    void *user;
};

/* The most that a device can do, measured; 0: it has no such thing. Multiply-adds. */
struct geul_device_ceilings {
    double read_bytes_per_s;
    double f32_macs_per_s, bf16_macs_per_s, int8_macs_per_s;
};

struct geul_backend {
    const char *name; /* "cpu" */
    /* How many devices it has on this machine. Finding none, for lack of a driver perhaps, is not a failure. */
    int (*count)(void);
    /* Writes why there are no more than these, for people: the driver that is missing, a card that is too old. "" when
     * nothing is in the way. NULL: nothing ever is. */
    void (*missing)(char *text, size_t size);
    /* Device i of those; NULL (recorded) when it cannot be opened. n_threads as in geul_device_open(). */
    struct geul_device *(*open)(struct geul_context *ctx, int i, int n_threads);
    void (*close)(struct geul_context *ctx, struct geul_device *device);
    /* Free and total bytes of the device; zeros when unknown. */
    void (*memory)(struct geul_device *device, size_t *free_bytes, size_t *total_bytes);

    /* size bytes, at most max_buffer; contents undefined, base aligned to alignment. */
    enum geul_status (*buffer_new)(struct geul_context *ctx, struct geul_device *device, size_t size,
                                   struct geul_buffer *out);
    /* Makes caller-owned host memory (mapped weights) usable without a copy. NULL: the device cannot; upload instead.*/
    enum geul_status (*buffer_wrap)(struct geul_context *ctx, struct geul_device *device, void *host, size_t size,
                                    struct geul_buffer *out);
    /* Waits for the device itself. */
    void (*buffer_free)(struct geul_context *ctx, struct geul_buffer *buffer);
    /* Host memory, aligned to 64, that the device copies to and from beside its work (pinned); it serves all devices of
     * the backend. NULL (recorded) when it is short. Both functions NULL: any host memory will do. */
    void *(*host_alloc)(struct geul_context *ctx, struct geul_device *device, size_t size);
    void (*host_free)(struct geul_context *ctx, struct geul_device *device, void *memory);

    /* Host memory to and from [address, address + size) of buffer; the range was checked by core. All work of the
     * device is waited for before, and the bytes are there when it returns. */
    enum geul_status (*upload)(struct geul_context *ctx, struct geul_buffer *buffer, void *address, const void *src,
                               size_t size);
    enum geul_status (*download)(struct geul_context *ctx, const struct geul_buffer *buffer, const void *address,
                                 void *dst, size_t size);
    /* The same in queue's order, perhaps later. The host memory is host_alloc()'s where the backend has that, and stays
     * as it is (upload) or is not looked at (download) until a ticket that was recorded behind it is done. Both
     * functions NULL: core waits and uses the two above. */
    enum geul_status (*upload_async)(struct geul_context *ctx, struct geul_queue *queue, struct geul_buffer *buffer,
                                     void *address, const void *src, size_t size);
    enum geul_status (*download_async)(struct geul_context *ctx, struct geul_queue *queue,
                                       const struct geul_buffer *buffer, const void *address, void *dst, size_t size);
    /* Device to device in the order of queue, whose device is dst's. Ranges of one buffer do not overlap. src may be of
     * another device: the caller has ordered its work before (wait_on(), event_wait()), and neither overwrites it
     * before the copy is done nor frees it. *done false: not between these two, core copies through host memory. NULL:
     * never.
     */
    enum geul_status (*copy)(struct geul_context *ctx, struct geul_queue *queue, struct geul_buffer *dst,
                             void *dst_address, const struct geul_buffer *src, const void *src_address, size_t size,
                             bool *done);

    /* Whether the dispatch array has an entry for op: some nodes of it can be computed. */
    bool (*has_op)(enum geul_op op);
    /* Whether the kernel of node's op takes its types and shapes; op and layout were checked (geul_device_supports()).
     * Never looks at data. */
    bool (*supports)(const struct geul_device *device, const struct geul_tensor *node);

    /* A queue of device, NULL (recorded) on failure. options may be NULL: the defaults. All queues are freed before
     * their device is closed. */
    struct geul_queue *(*queue_new)(struct geul_context *ctx, struct geul_device *device,
                                    const struct geul_queue_options *options);
    void (*queue_free)(struct geul_context *ctx, struct geul_queue *queue);
    /* Makes queue ready to run nodes, which have their addresses, in order and as often as wanted: the place for
     * fusing, scratch, pipelines. The list, the nodes and what they point to are as they are now whenever run() is
     * called; they may be gone when release() is, which therefore looks at nothing of them. A queue is ready for
     * several lists at a time, which run one after the other and may share the memory of their values. A result that is
     * not `kept` (tensor.h) need not be stored if the nodes that read it are computed without. */
    enum geul_status (*prepare)(struct geul_context *ctx, struct geul_queue *queue, struct geul_tensor *const *nodes,
                                int n_nodes, struct geul_prepared **out);
    /* Starts computing them. watch may be NULL; once its cancel is true, the rest is left undone as soon as that is
     * possible, and the result is GEUL_ERROR_CANCELLED (not recorded), if the backend notices. */
    enum geul_status (*run)(struct geul_context *ctx, struct geul_queue *queue, struct geul_prepared *prepared,
                            const struct geul_run_watch *watch);
    /* Before its queue is freed. Waits if it must; prepared may be NULL. */
    void (*release)(struct geul_context *ctx, struct geul_queue *queue, struct geul_prepared *prepared);
    /* Bytes of its own that prepare() and run() would take for these nodes, which have no addresses yet; SIZE_MAX when
     * that cannot be counted. May be NULL. */
    size_t (*working)(const struct geul_queue *queue, struct geul_tensor *const *nodes, int n_nodes);

    /* A ticket for all work given so far, and waiting for it: the status is that of the work too. */
    enum geul_status (*event_record)(struct geul_context *ctx, struct geul_queue *queue, uint64_t *ticket);
    enum geul_status (*event_wait)(struct geul_context *ctx, struct geul_queue *queue, uint64_t ticket);
    /* What is given to queue from now on starts after `ticket` of other, a queue of any backend. *done false: it cannot
     * order itself behind that one, the caller waits. NULL: never. */
    enum geul_status (*wait_on)(struct geul_context *ctx, struct geul_queue *queue, struct geul_queue *other,
                                uint64_t ticket, bool *done);
    /* Measures what the device can do, which takes well below a second. NULL: it cannot say. */
    enum geul_status (*measure)(struct geul_context *ctx, struct geul_device *device, struct geul_device_ceilings *out);
};

/* The backends (registry.c, from backends.def): those in the library, then those that were found as modules; NULL after
 * the last. Like all functions here it may be called from any thread. */
const struct geul_backend *geul_backend_at(int i);
/* The devices of this machine (geul_device_count()): those of the first backend, then those of the next. */
enum { GEUL_MAX_DEVICES = 8 }; /* that one model or runtime uses */
enum { GEUL_DEVICE_HOST = 0 }; /* the CPU: always there, has every op and defines what it means */
/* Opens device i. n_threads: CPU threads for a device that computes on the CPU; 0: one per core. NULL (recorded) when
 * there is no such device or it cannot be opened. Close with geul_device_close(). */
struct geul_device *geul_device_open(struct geul_context *ctx, int i, int n_threads);
/* ctx as when it was opened; device may be NULL. */
void geul_device_close(struct geul_context *ctx, struct geul_device *device);

/* The rest is core's own (schedule.c, runtime.c). */
/* Whether device can compute node: its backend has the op, the layout column holds, and the backend takes node's types
 * and shapes. For the scheduler and for tests that run single nodes. */
bool geul_device_supports(const struct geul_device *device, const struct geul_tensor *node);
/* buffer_new() for any size: one that is larger than the device's largest buffer is refused. what, for the message,
 * names what the memory is for. */
enum geul_status geul_device_buffer(struct geul_context *ctx, struct geul_device *device, size_t size, const char *what,
                                    struct geul_buffer *out);

#endif

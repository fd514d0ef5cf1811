/* schedule.h: a graph divided among devices: what runtime.c runs. */
#ifndef GEUL_SCHEDULE_H
#define GEUL_SCHEDULE_H

#include "core/device_list.h"
#include "core/graph.h"
#include "core/plan.h"

/* The copy of a value on another device. */
struct geul_copy {
    const struct geul_tensor *root; /* what is copied: a contiguous result, input or weight */
    struct geul_tensor *on;         /* its twin on device */
    const struct geul_tensor *reader;
    int device;
    int value;  /* index in that device's plan */
    int before; /* step before which it is made; copies are in the order of these */
};

struct geul_segment {
    int device, first_copy, n_copies, n_nodes;
    struct geul_tensor **nodes;
};

struct geul_schedule {
    int *device; /* per node */
    int *value;  /* per node: index in its device's plan, -1 for views and stores */
    int *last;   /* per node: last step that reads its memory; n_nodes: the caller reads it after the run */
    int *leaf_device, *leaf_value;
    size_t *leaf_offset; /* in the region of its device's inputs */
    struct geul_plan_value *values[GEUL_MAX_DEVICES];
    int n_values[GEUL_MAX_DEVICES];
    bool is_used[GEUL_MAX_DEVICES];       /* whether anything needs memory of it */
    int n_blocks[GEUL_MAX_DEVICES];       /* of memory that the values take */
    size_t input_bytes[GEUL_MAX_DEVICES]; /* of the region of its inputs, which is its value 0 */
    struct geul_copy *copies;
    int n_copies;
    struct geul_segment *segments;
    int n_segments;
};

/* A device's memory as a schedule is put into it: the k-th block, and the host memory that inputs are written to; NULL:
 * they are written to the device's own. */
struct geul_place {
    struct geul_buffer *const *blocks;
    void *mirror;
};

/* The device of g's nodes and inputs, their copies, and the plan of every device's memory; in g's arena. NULL (recorded
 * in its context) on failure. */
struct geul_schedule *geul_schedule_make(const struct geul_devices *devices, struct geul_graph *g);
/* Gives every tensor its address in places, one of each device, and cuts the nodes into segments. */
enum geul_status geul_schedule_place(const struct geul_devices *devices, struct geul_graph *g, struct geul_schedule *s,
                                     const struct geul_place *places);
/* The number of device among devices; their number when it is none of them. */
int geul_device_index(const struct geul_devices *devices, const struct geul_device *device);

#endif

/* schedule.h: which device computes which node, what is copied between them, and the memory for all of it. */
#ifndef GEUL_SCHEDULE_H
#define GEUL_SCHEDULE_H

#include "backends/backend.h"
#include "core/graph.h"

#define GEUL_MAX_DEVICES 8

/* The devices behind geul_runtime. Tests build one around their own devices. The first device takes what nobody else
 * claims, and must support every op. Graphs planned on a runtime must come from contexts with ctx's allocator. */
struct geul_runtime *geul_runtime_over(struct geul_context *ctx, struct geul_device *const *devices, int n_devices);
/* Number of device segments / inserted copies of the planned graph, and bytes of planned memory per device. */
int geul_runtime_segments(const struct geul_runtime *rt);
int geul_runtime_copies(const struct geul_runtime *rt);
size_t geul_runtime_bytes(const struct geul_runtime *rt, int device);
/* Whether g is the graph that rt holds the memory of. */
bool geul_runtime_planned(const struct geul_runtime *rt, const struct geul_graph *g);
/* What planning and running g would take, without taking it: bytes of values, and of the backends' working memory. */
enum geul_status geul_runtime_measure(struct geul_runtime *rt, struct geul_graph *g, size_t *values, size_t *working);
/* Whether device can compute node: its backend has the op, the layout column holds, and the backend takes node's types
 * and shapes. The scheduler asks here, and so do tests that run single nodes. */
bool geul_device_supports(const struct geul_device *device, const struct geul_tensor *node);

#endif

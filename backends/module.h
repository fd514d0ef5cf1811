/* module.h: a backend as a shared object of its own, libgeul-NAME.so, which registry.c opens at run time where it lies
 * beside the library. So one package serves machines with and without what the backend drives.
 *
 * A module exports one thing, geul_backend_module. It is linked with objects of core that are its own and that nobody
 * else sees: calling into libgeul.so instead would be a circle of libraries, and could not be done by a module that
 * serves programs with libgeul.a inside. What it shares with the program are structs, tensors and contexts among them,
 * so both must have been compiled from the same ones; that is checked before anything is called. The objects of core
 * that it needs (context.c, tensor.c, plan.c) keep nothing between calls but what hangs on those structs. */
#ifndef GEUL_MODULE_H
#define GEUL_MODULE_H

#include "backends/backend.h"

/* Raise the number with every change of backend.h or of what its functions mean. */
enum { GEUL_MODULE_CONTRACT = 1, GEUL_MODULE_SIZES = 8 };
#define GEUL_MODULE_MARK "geul-backend"

/* The first three fields stay as they are in all versions. */
struct geul_module {
    char mark[16];
    uint32_t contract;
    uint32_t bytes; /* of this struct */
    char version[24];
    uint32_t sizes[GEUL_MODULE_SIZES]; /* of what both share */
    const size_t *context_bytes;
    const struct geul_backend *backend;
};

/* What a module that is compiled from these headers has. */
#define GEUL_MODULE(backend_)                                                                                          \
    {                                                                                                                  \
        GEUL_MODULE_MARK, GEUL_MODULE_CONTRACT, sizeof(struct geul_module), GEUL_VERSION,                              \
            {sizeof(struct geul_backend),                                                                              \
             sizeof(struct geul_device),                                                                               \
             sizeof(struct geul_buffer),                                                                               \
             sizeof(struct geul_queue),                                                                                \
             sizeof(struct geul_tensor),                                                                               \
             sizeof(union geul_op_params),                                                                             \
             GEUL_OP_COUNT,                                                                                            \
             GEUL_TYPE_COUNT},                                                                                         \
            &geul_context_bytes, backend_                                                                              \
    }

/* Opens the module at path for good. NULL: why says why not. */
const struct geul_backend *geul_module_open(const char *path, char *why, size_t size);

#endif

/* frame.h: what fuzz targets share: an input as a file with a path, and a context that may use so much memory and no
 * more, so that absurd sizes are refused as on a small machine instead of ending the fuzzer. */
#ifndef GEUL_FUZZ_FRAME_H
#define GEUL_FUZZ_FRAME_H

#define _GNU_SOURCE
#include "geul.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Path of a file in memory with these bytes, in storage of the caller; the next call replaces it. */
static inline const char *fuzz_file(const uint8_t *data, size_t size, char path[64])
{
    static int fd = -1;
    if (fd < 0)
        fd = memfd_create("fuzz", MFD_CLOEXEC);
    if (fd < 0 || ftruncate(fd, 0) != 0 || pwrite(fd, data, size, 0) != (ssize_t)size)
        abort();
    snprintf(path, 64, "/proc/self/fd/%d", fd);
    return path;
}

struct fuzz_memory {
    size_t used, most;
};

static inline void *fuzz_allocate(void *user, void *ptr, size_t old_size, size_t size)
{
    struct fuzz_memory *m = user;
    if (size > old_size && size - old_size > m->most - m->used)
        return NULL;
    void *p = size ? realloc(ptr, size) : (free(ptr), NULL);
    if (p || !size)
        m->used = m->used - old_size + size;
    return p;
}

static inline struct geul_context *fuzz_context(struct fuzz_memory *m)
{
    struct geul_context_options options = {.allocate = fuzz_allocate, .allocate_user = m};
    return geul_context_new(&options);
}

#endif

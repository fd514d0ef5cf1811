/* hostile.h: for tests of parsers: files built byte by byte, and contexts that measure what a parser allocates. */
#ifndef GEUL_TESTS_HOSTILE_H
#define GEUL_TESTS_HOSTILE_H

#include "geul_tensor.h"

#include <stddef.h>

struct bytes {
    uint8_t *data;
    size_t size, capacity;
};
void bytes_put(struct bytes *b, const void *data, size_t size);
void bytes_zeros(struct bytes *b, size_t size);
/* A little-endian number of n bytes. */
void bytes_number(struct bytes *b, uint64_t v, int n);
/* A text without its NUL. */
void bytes_text(struct bytes *b, const char *text);
void bytes_free(struct bytes *b);

/* Bytes that a context holds, and the most it held. */
struct meter {
    size_t now, peak;
};
/* A context whose memory is counted in *m and which refuses requests above 64 MB. */
struct geul_context *meter_context(struct meter *m);
/* Checks that the last call on ctx left a one-line message that holds `part`, that nothing is allocated beyond the
 * context itself (held: what m->now was before the call), and that never more than 16 MB were. */
void check_failure(struct geul_context *ctx, const struct meter *m, size_t held, const char *what, const char *part);

#endif

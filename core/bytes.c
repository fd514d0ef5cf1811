/* bytes.c: see bytes.h. */
#include "core/bytes.h"

#include <stdio.h>
#include <string.h>

bool geul_bytes_room(struct geul_context *ctx, struct geul_bytes *b, size_t n)
{
    size_t need;
    if (!geul_add_size(b->length, n, &need)) {
        geul_fail_memory(ctx, SIZE_MAX);
        return false;
    }
    return need <= b->capacity || geul_reserve(ctx, &b->data, &b->capacity, need, 1);
}

bool geul_bytes_add(struct geul_context *ctx, struct geul_bytes *b, const void *data, size_t n)
{
    if (!geul_bytes_room(ctx, b, n))
        return false;
    if (n)
        memcpy(b->data + b->length, data, n);
    b->length += n;
    return true;
}

uint64_t geul_hash_bytes(uint64_t hash, const void *data, size_t n)
{
    const unsigned char *p = data;
    for (size_t i = 0; i < n; i++)
        hash = (hash ^ p[i]) * UINT64_C(0x100000001b3);
    return hash;
}

const char *geul_bytes_text(uint64_t bytes, char *text, size_t size)
{
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB"};
    double v = (double)bytes;
    int u = 0;
    while (v >= 1024 && u < 5) {
        v /= 1024;
        u++;
    }
    snprintf(text, size, u == 0 || v >= 100 ? "%.0f %s" : "%.1f %s", v, units[u]);
    return text;
}

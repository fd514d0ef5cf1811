/* hostile.c: see hostile.h. */
#include "tests/hostile.h"

#include "tests/harness.h"

void bytes_put(struct bytes *b, const void *data, size_t size)
{
    if (b->size + size > b->capacity) {
        b->capacity = 2 * (b->size + size) + 256;
        b->data = realloc(b->data, b->capacity);
    }
    if (size)
        memcpy(b->data + b->size, data, size);
    b->size += size;
}

void bytes_zeros(struct bytes *b, size_t size)
{
    for (size_t i = 0; i < size; i++)
        bytes_put(b, "", 1);
}

void bytes_number(struct bytes *b, uint64_t v, int n)
{
    for (int i = 0; i < n; i++) {
        uint8_t byte = (uint8_t)(v >> (8 * i));
        bytes_put(b, &byte, 1);
    }
}

void bytes_text(struct bytes *b, const char *text)
{
    bytes_put(b, text, strlen(text));
}

void bytes_free(struct bytes *b)
{
    free(b->data);
    *b = (struct bytes){0};
}

static void *metered(void *user, void *ptr, size_t old_size, size_t size)
{
    struct meter *m = user;
    if (size > ((size_t)64 << 20))
        return NULL;
    m->now += size;
    m->peak = m->now > m->peak ? m->now : m->peak;
    if (ptr)
        m->now -= old_size;
    if (size == 0) {
        free(ptr);
        return NULL;
    }
    return realloc(ptr, size);
}

struct geul_context *meter_context(struct meter *m)
{
    *m = (struct meter){0};
    return geul_context_new(&(struct geul_context_options){.allocate = metered, .allocate_user = m});
}

void check_failure(struct geul_context *ctx, const struct meter *m, size_t held, const char *what, const char *part)
{
    const char *message = geul_error(ctx);
    CHECK_MSG(geul_error_status(ctx) != GEUL_OK, "%s: no failure was recorded", what);
    CHECK_MSG(strstr(message, part) != NULL, "%s: \"%s\" lacks \"%s\"", what, message, part);
    CHECK_MSG(strchr(message, '\n') == NULL, "%s: the message has more than one line", what);
    CHECK_MSG(m->now == held, "%s: %zu bytes are left allocated", what, m->now - held);
    CHECK_MSG(m->peak < ((size_t)16 << 20), "%s: %zu bytes were allocated", what, m->peak);
}

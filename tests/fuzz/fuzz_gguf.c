/* fuzz_gguf.c: any bytes as a GGUF file; everything that opening promises is then touched. */
#include "core/gguf.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Reads through an array value and its name. */
static uint64_t walk_key(const struct geul_gguf *g, int64_t i)
{
    const char *name = geul_gguf_key_name(g, i), *s;
    struct geul_gguf_array array;
    uint64_t sum = strlen(name), u = 0;
    double d = 0;
    bool b = false;
    size_t n;
    if (geul_gguf_string(g, name, &s, &n) && n)
        sum += (uint64_t)s[0] + (uint64_t)s[n - 1];
    if (geul_gguf_u64(g, name, &u) || geul_gguf_f64(g, name, &d) || geul_gguf_bool(g, name, &b))
        sum += u + b;
    if (!geul_gguf_get_array(g, name, &array))
        return sum;
    if (array.type != GEUL_GGUF_STRING && array.count)
        return sum + (uint64_t)geul_gguf_array_i64(&array, array.count - 1) + (uint64_t)geul_gguf_array_i64(&array, 0);
    while (geul_gguf_array_next(&array, &s, &n))
        sum += n ? (uint64_t)s[n - 1] : 0;
    return sum;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct geul_context *ctx = geul_context_new(NULL);
    struct geul_gguf *g = geul_gguf_open_memory(ctx, data, size, "fuzz");
    uint64_t sum = 0;
    if ((g != NULL) != (geul_error_status(ctx) == GEUL_OK))
        abort();
    for (int64_t i = 0; g && i < geul_gguf_key_count(g); i++)
        sum += walk_key(g, i);
    for (int64_t i = 0; g && i < geul_gguf_tensor_count(g); i++) {
        const struct geul_gguf_tensor *t = geul_gguf_tensor_at(g, i);
        const uint8_t *p = t->data;
        if (geul_gguf_find_tensor(g, t->name) != t || p < data || t->bytes > size - (size_t)(p - data))
            abort();
        sum += p[0] + p[t->bytes - 1];
    }
    geul_gguf_close(g);
    geul_context_free(ctx);
    return sum == 0x5eed; /* keeps the reads; other results than 0 would only leave an input out */
}

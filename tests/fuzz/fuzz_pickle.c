/* fuzz_pickle.c: any bytes as a PyTorch archive or a file of the older form, and as the program inside of either (which
 * mutation alone would seldom keep well-formed). */
#include "formats/pickle.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void put(uint8_t *to, size_t *at, uint64_t v, int bytes)
{
    for (int i = 0; i < bytes; i++)
        to[(*at)++] = (uint8_t)(v >> (8 * i));
}

static void put_local(uint8_t *to, size_t *at, const char *name, const uint8_t *data, size_t size)
{
    put(to, at, 0x04034b50, 4);
    put(to, at, 0, 8);
    put(to, at, 0, 8);
    put(to, at, 0, 6);
    put(to, at, strlen(name), 2);
    put(to, at, 0, 2);
    memcpy(to + *at, name, strlen(name));
    *at += strlen(name);
    if (size)
        memcpy(to + *at, data, size);
    *at += size;
}

static void put_entry(uint8_t *to, size_t *at, const char *name, size_t size, size_t offset)
{
    put(to, at, 0x02014b50, 4);
    put(to, at, 0, 8);
    put(to, at, 0, 8);
    put(to, at, size, 4);
    put(to, at, size, 4);
    put(to, at, strlen(name), 2);
    put(to, at, 0, 8);
    put(to, at, 0, 4);
    put(to, at, offset, 4);
    memcpy(to + *at, name, strlen(name));
    *at += strlen(name);
}

/* An archive with that program as a/data.pkl and 64 bytes as a/data/0; free() it. */
static uint8_t *wrap(const uint8_t *program, size_t size, size_t *length)
{
    static const uint8_t storage[64];
    uint8_t *zip = malloc(size + 1024);
    size_t at = 0, second, directory;
    put_local(zip, &at, "a/data.pkl", program, size);
    second = at;
    put_local(zip, &at, "a/data/0", storage, sizeof storage);
    directory = at;
    put_entry(zip, &at, "a/data.pkl", size, 0);
    put_entry(zip, &at, "a/data/0", sizeof storage, second);
    size_t bytes = at - directory;
    put(zip, &at, 0x06054b50, 4);
    put(zip, &at, 0, 6);
    put(zip, &at, 2, 2);
    put(zip, &at, bytes, 4);
    put(zip, &at, directory, 4);
    put(zip, &at, 0, 2);
    *length = at;
    return zip;
}

/* The program as the dictionary of a file of the older form, with the 64 bytes of a storage "0" of 16 floats; free()
 * it. */
static uint8_t *wrap_old(const uint8_t *program, size_t size, size_t *length)
{
    static const uint8_t head[] = {0x80, 2,   0x8a, 10, 0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50,
                                   0x19, '.', 0x80, 2,  'M',  0xe9, 3,    '.',  0x80, 2,    '}',  '.'};
    static const uint8_t keys[] = {0x80, 2, ']', 'X', 1, 0, 0, 0, '0', 'a', '.', 16, 0, 0, 0, 0, 0, 0, 0};
    uint8_t *file = calloc(size + 256, 1);
    memcpy(file, head, sizeof head);
    if (size)
        memcpy(file + sizeof head, program, size);
    memcpy(file + sizeof head + size, keys, sizeof keys);
    *length = sizeof head + size + sizeof keys + 64;
    return file;
}

/* The last element has to lie in the file, and none can be counted twice beyond its size. */
static void check_tensor(const struct geul_source_tensor *t, const uint8_t *data, size_t size)
{
    size_t each = geul_dtype_info(t->dtype)->bytes, last = t->bytes / each - 1;
    float x;
    if (t->bytes == 0)
        return;
    for (int d = 0; t->strided && d < t->n_dims; d++)
        last = (d ? last : 0) + (size_t)((t->shape[d] - 1) * t->stride[d]);
    if (t->data < data || t->bytes > size || (last + 1) * each > size - (size_t)(t->data - data))
        abort();
    if (geul_source_is_float(t))
        geul_source_read(t, (int64_t)(t->bytes / each) - 1, 1, &x);
}

static void check(const uint8_t *data, size_t size)
{
    struct geul_context *ctx = geul_context_new(NULL);
    struct geul_source_list list = {0};
    if ((geul_pickle_read(ctx, "fuzz", data, size, &list) == GEUL_OK) != (geul_error_status(ctx) == GEUL_OK))
        abort();
    for (size_t i = 0; i < list.count; i++)
        check_tensor(&list.items[i], data, size);
    geul_source_free(ctx, &list);
    geul_context_free(ctx);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    size_t length;
    check(data, size);
    uint8_t *zip = wrap(data, size, &length);
    check(zip, length);
    free(zip);
    uint8_t *old = wrap_old(data, size, &length);
    check(old, length);
    free(old);
    return 0;
}

/* fuzz_pickle.c: any bytes as a PyTorch archive, and as the program inside one (which mutation alone would seldom
 * keep in a well-formed archive). */
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

static void check(const uint8_t *data, size_t size)
{
    struct geul_context *ctx = geul_context_new(NULL);
    struct geul_source_list list = {0};
    if ((geul_pickle_read(ctx, "fuzz", data, size, &list) == GEUL_OK) != (geul_error_status(ctx) == GEUL_OK))
        abort();
    for (size_t i = 0; i < list.count; i++)
        if (list.items[i].data < data || list.items[i].bytes > size - (size_t)(list.items[i].data - data))
            abort();
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
    return 0;
}

/* fuzz_safetensors.c: any bytes as a safetensors file. */
#include "formats/safetensors.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct geul_context *ctx = geul_context_new(NULL);
    struct geul_source_list list = {0};
    if ((geul_safetensors_read(ctx, "fuzz", data, size, &list) == GEUL_OK) != (geul_error_status(ctx) == GEUL_OK))
        abort();
    for (size_t i = 0; i < list.count; i++)
        if (list.items[i].data < data || list.items[i].bytes > size - (size_t)(list.items[i].data - data))
            abort();
    geul_source_free(ctx, &list);
    geul_context_free(ctx);
    return 0;
}

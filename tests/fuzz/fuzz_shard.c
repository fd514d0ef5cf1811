/* fuzz_shard.c: any bytes as a token shard; every token that was accepted is in the vocabulary. */
#include "data/shard.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct geul_context *ctx = geul_context_new(NULL);
    struct geul_shard *s = geul_shard_open_memory(ctx, data, size, "fuzz");
    if ((s != NULL) != (geul_error_status(ctx) == GEUL_OK))
        abort();
    for (uint64_t i = 0; s && i < geul_shard_count(s); i++) {
        int32_t id;
        geul_shard_read(s, i, 1, &id);
        if (id < 0 || id >= geul_shard_get_kind(s)->n_vocab)
            abort();
    }
    if (s && (geul_shard_get_kind(s)->end < 0 || geul_shard_get_kind(s)->end >= geul_shard_get_kind(s)->n_vocab))
        abort();
    geul_shard_close(s);
    geul_context_free(ctx);
    return 0;
}

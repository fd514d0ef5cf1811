/* fuzz_base_logits.c: any bytes as a base model's logits; everything that opening promises is then touched. The hash of
 * the header is put right first, or nothing would get past it. */
#include "core/bytes.h"
#include "eval/base_logits.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { HASH_AT = 48, IDS_AT = 56, TOKENS_AT = 32 };

/* Makes the hash that of the header and the ids, as far as there are any. */
static void mend_hash(uint8_t *file, size_t size)
{
    uint64_t n_tokens;
    if (size < IDS_AT)
        return;
    memcpy(&n_tokens, file + TOKENS_AT, sizeof n_tokens);
    size_t most = (size - IDS_AT) / sizeof(int32_t), ids = n_tokens < most ? (size_t)n_tokens : most;
    uint64_t hash = geul_hash_bytes(GEUL_HASH_START, file, HASH_AT);
    hash = geul_hash_bytes(hash, file + IDS_AT, ids * sizeof(int32_t));
    memcpy(file + HASH_AT, &hash, sizeof hash);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct geul_context *ctx = geul_context_new(NULL);
    uint8_t *file = malloc(size + 1);
    double sum = 0, nats;
    memcpy(file, data, size);
    mend_hash(file, size);
    struct geul_base_logits *b = geul_base_logits_open_memory(ctx, file, size, "fuzz");
    if ((b != NULL) != (geul_error_status(ctx) == GEUL_OK))
        abort();
    for (size_t i = 0; b && i < b->windows.n_scored; i++) {
        const float *row = geul_base_logits_row(b, i, &nats);
        sum += nats + (double)row[0] + (double)row[b->n_vocab - 1];
    }
    for (size_t i = 0; b && i < b->windows.n_tokens; i++)
        sum += b->ids[i];
    geul_base_logits_close(ctx, b);
    geul_context_free(ctx);
    free(file);
    return sum == 0.5; /* keeps the reads; other results than 0 would only leave an input out */
}

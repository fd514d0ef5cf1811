/* fuzz_adapter.c: any bytes as a GGUF adapter; what was accepted has to be what models/lora.h promises. */
#include "core/gguf.h"
#include "models/lora.h"

#include <math.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_finite(const float *x, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        if (!isfinite(x[i]))
            abort();
}

static void check_source(const struct geul_lora *d, const struct geul_lora_pair *s)
{
    if (s->rank < 1 || s->n < 1 || s->k < 1 || s->layer < 0 || geul_lora_find(d, s->layer, s->target) != s)
        abort();
    check_finite(s->a, s->rank * s->k);
    check_finite(s->b, s->n * s->rank);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct geul_context *ctx = geul_context_new(NULL);
    struct geul_gguf *g = geul_gguf_open_memory(ctx, data, size, "fuzz");
    struct geul_lora *d = g ? geul_lora_parse(ctx, g) : NULL;
    if ((d != NULL) != (geul_error_status(ctx) == GEUL_OK) || (d && (d->n_pairs < 1 || !(d->alpha > 0))))
        abort();
    for (int i = 0; d && i < d->n_pairs; i++)
        check_source(d, &d->pairs[i]);
    geul_lora_free(d);
    geul_gguf_close(g);
    geul_context_free(ctx);
    return 0;
}

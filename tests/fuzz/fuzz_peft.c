/* fuzz_peft.c: any bytes as PEFT's adapter_config.json; ranks and scales of modules are then looked up. */
#include "formats/json_file.h"
#include "convert/peft_config.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char *const modules[] = {"gpt_neox.layers.0.attention.query_key_value",
                                          "gpt_neox.layers.17.mlp.dense_4h_to_h"};
    struct geul_context *ctx = geul_context_new(NULL);
    struct geul_peft_config c;
    json_t *json = geul_json_parse(ctx, "fuzz", data, size);
    bool ok = json && geul_peft_config_read(ctx, "fuzz", json, &c) == GEUL_OK;
    if (ok != (geul_error_status(ctx) == GEUL_OK) || (ok && (c.rank < 1 || !(c.alpha > 0))))
        abort();
    for (int i = 0; ok && i < 2; i++) {
        int64_t rank;
        double alpha;
        ok = geul_peft_config_module(ctx, "fuzz", &c, modules[i], &rank, &alpha) == GEUL_OK;
        if (ok && (rank < 1 || !(alpha > 0)))
            abort();
    }
    json_decref(json);
    geul_context_free(ctx);
    return 0;
}

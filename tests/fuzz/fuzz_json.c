/* fuzz_json.c: any bytes as JSON. What jansson reads by itself is read the same. */
#include "formats/json_file.h"
#include "formats/json_text.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct geul_context *ctx = geul_context_new(NULL);
    json_error_t error;
    json_t *strict = json_loadb((const char *)data, size, JSON_ALLOW_NUL, &error);
    json_t *json = geul_json_parse(ctx, "fuzz", data, size);
    if ((strict && (!json || !json_equal(strict, json))) || (json != NULL) != (geul_error_status(ctx) == GEUL_OK))
        abort();
    json_decref(strict);
    json_decref(json);
    geul_context_free(ctx);
    return 0;
}

/* fuzz_config.c: any bytes as a config.json, and as the generation_config.json beside it. What is accepted describes a
 * model that there can be, and is the same after it was written and read again. */
#include "convert/end_ids.h"
#include "convert/neox_config.h"
#include "formats/json_file.h"

#include <math.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_config(const struct geul_neox_config *c)
{
    if (c->n_layers < 1 || c->n_heads < 1 || c->d_head < 1 || c->n_heads * c->d_head != c->d_model || c->d_ff < 1 ||
        c->n_vocab < 1 || c->n_context < 1)
        abort();
    if (c->n_rot < 0 || c->n_rot % 2 != 0 || c->n_rot > c->d_head)
        abort();
    if (!(c->norm_eps >= 0 && c->norm_eps <= 1) || !(c->rope_base >= 1 && isfinite(c->rope_base)))
        abort();
}

/* An accepted config, written as geul writes it, is accepted again and means the same. */
static void check_again(struct geul_context *ctx, const struct geul_neox_config *c)
{
    struct geul_neox_config again;
    json_t *json = geul_neox_config_to_json(c, "float16");
    if (!json || geul_neox_config_read(ctx, "again", json, &again) != GEUL_OK || !geul_neox_config_equal(c, &again))
        abort();
    json_decref(json);
}

/* End tokens are ids of the tokenizer, each once. */
static void check_ends(const json_t *config, const json_t *generation, int32_t own)
{
    enum { N_TOKENS = 300 };
    bool wrong;
    struct geul_tok_ids ends = geul_end_ids_choose(config, generation, own, own >= 0, N_TOKENS, &wrong);
    for (int i = 0; i < ends.n; i++) {
        if (ends.id[i] < 0 || ends.id[i] >= N_TOKENS)
            abort();
        for (int k = 0; k < i; k++)
            if (ends.id[k] == ends.id[i])
                abort();
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct geul_context *ctx = geul_context_new(NULL);
    struct geul_neox_config c;
    json_t *json = geul_json_parse(ctx, "fuzz", data, size);
    if (json) {
        enum geul_status status = geul_neox_config_read(ctx, "fuzz", json, &c);
        if (status != geul_error_status(ctx))
            abort();
        if (status == GEUL_OK) {
            check_config(&c);
            check_again(ctx, &c);
        }
        check_ends(json, NULL, 2);
        check_ends(NULL, json, -1);
        check_ends(json, json, 0);
    }
    json_decref(json);
    geul_context_free(ctx);
    return 0;
}

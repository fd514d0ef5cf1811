/* lora_files.c: see lora_files.h. */
#include "command/lora_files.h"

#include "command/report.h"

#include "models/lora.h"

#include <stdio.h>
#include <string.h>

static bool is_adapter(const struct geul_gguf *g)
{
    const char *s;
    size_t n;
    return geul_gguf_string(g, "general.type", &s, &n) && n == 7 && memcmp(s, "adapter", 7) == 0;
}

bool geul_lora_is_gguf(const char *path)
{
    struct geul_context *ctx = geul_context_new(NULL);
    struct geul_gguf *g = ctx ? geul_gguf_open(ctx, path) : NULL;
    bool adapter = g && is_adapter(g);
    geul_gguf_close(g);
    geul_context_free(ctx);
    return adapter;
}

/* ----------------------------------------------------------------------------------- showing -- */

/* What an adapter's pairs have in common. */
struct extent {
    int low_rank, high_rank, first_layer, last_layer;
    int count[GEUL_NEOX_TARGETS];
};

static struct extent measure(const struct geul_lora *d)
{
    const struct geul_lora_pair *s = d->pairs;
    struct extent e = {s->rank, s->rank, s->layer, s->layer, {0}};
    for (int i = 0; i < d->n_pairs; i++, s++) {
        e.low_rank = s->rank < e.low_rank ? s->rank : e.low_rank;
        e.high_rank = s->rank > e.high_rank ? s->rank : e.high_rank;
        e.first_layer = s->layer < e.first_layer ? s->layer : e.first_layer;
        e.last_layer = s->layer > e.last_layer ? s->layer : e.last_layer;
        e.count[s->target]++;
    }
    return e;
}

void geul_lora_print(const struct geul_gguf *g)
{
    struct geul_context *ctx = is_adapter(g) ? geul_context_new(NULL) : NULL;
    struct geul_lora *d = ctx ? geul_lora_parse(ctx, g) : NULL;
    if (d) {
        struct extent e = measure(d);
        printf("  adapter          LoRA, rank %d", e.low_rank);
        if (e.high_rank > e.low_rank)
            printf(" to %d", e.high_rank);
        printf(", alpha %g%s", (double)d->alpha, d->rslora ? " (rsLoRA)" : "");
        if (e.high_rank == e.low_rank)
            printf(", scale %g", (double)geul_lora_pair_scale(d, e.low_rank));
        printf("\n  adapts           layers %d to %d:", e.first_layer, e.last_layer);
        const char *comma = "";
        for (int t = 0; t < GEUL_NEOX_TARGETS; t++)
            if (e.count[t]) {
                printf("%s %s (%d)", comma, geul_neox_target_name((enum geul_neox_target)t), e.count[t]);
                comma = ",";
            }
        putchar('\n');
    } else if (ctx) {
        printf("  adapter          unusable: %s\n", geul_error(ctx));
    }
    geul_lora_free(d);
    geul_context_free(ctx);
}

json_t *geul_lora_json(const struct geul_gguf *g)
{
    struct geul_context *ctx = is_adapter(g) ? geul_context_new(NULL) : NULL;
    struct geul_lora *d = ctx ? geul_lora_parse(ctx, g) : NULL;
    json_t *json = NULL;
    if (d) {
        struct extent e = measure(d);
        json_t *targets = json_object();
        for (int t = 0; t < GEUL_NEOX_TARGETS; t++)
            if (e.count[t])
                json_object_set_new(targets, geul_neox_target_name((enum geul_neox_target)t), json_integer(e.count[t]));
        json = json_pack("{s:i, s:i, s:o, s:b, s:i, s:i, s:o}", "rank", e.low_rank, "highest_rank", e.high_rank,
                         "alpha", geul_report_json_real((double)d->alpha), "rslora", d->rslora, "first_layer",
                         e.first_layer, "last_layer", e.last_layer, "targets", targets);
    } else if (ctx) {
        json = json_pack("{s:o}", "error", geul_report_json_text(geul_error(ctx), strlen(geul_error(ctx))));
    }
    geul_lora_free(d);
    geul_context_free(ctx);
    return json;
}

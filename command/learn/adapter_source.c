/* adapter_source.c: see adapter_source.h. */
#include "command/learn/adapter_source.h"

#include "command/report.h"

#include "convert/peft.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* The targets of an adapter as bits. */
static unsigned targets_of(const struct geul_lora *d)
{
    unsigned bits = 0;
    for (int i = 0; i < d->n_pairs; i++)
        bits |= 1u << d->pairs[i].target;
    return bits;
}

/* Refuses options that ask for another adapter than d. Returns 0 or 2. */
static int refuse_others(const struct geul_lora_options *o, const struct geul_lora *d)
{
    const char *advice = "training goes on with that; leave the option out";
    int rank = d->pairs[0].rank;
    if (o->rank && o->rank != rank)
        return geul_report_usage("--rank %d: %s has rank %d, and %s", o->rank, o->from, rank, advice);
    if (o->alpha > 0 && fabsf(o->alpha - d->alpha) > 1e-5f * d->alpha)
        return geul_report_usage("--lora-alpha %g: %s has alpha %g, and %s", (double)o->alpha, o->from,
                                 (double)d->alpha, advice);
    if (o->rslora && !d->rslora)
        return geul_report_usage("--rslora: %s is scaled by alpha / rank, and %s", o->from, advice);
    if (o->targets && o->targets != targets_of(d)) {
        char words[100] = "";
        size_t n = 0;
        for (int t = 0; t < GEUL_NEOX_TARGETS && n < sizeof words; t++)
            if (targets_of(d) >> t & 1)
                n += (size_t)snprintf(words + n, sizeof words - n, "%s%s", n ? "," : "",
                                      geul_neox_target_word((enum geul_neox_target)t));
        return geul_report_usage("--lora-targets: %s adapts %s, and %s", o->from, words, advice);
    }
    return 0;
}

/* Writes d where the trainer can read it. */
static enum geul_status save_start(struct geul_context *ctx, const struct geul_train_args *args,
                                   const struct geul_lora *d, struct geul_train_options *o)
{
    static char path[4096];
    snprintf(path, sizeof path, "%s/start.gguf", args->output);
    o->lora.from = args->plan || args->preview > 0 ? NULL : path;
    return o->lora.from ? geul_lora_save(ctx, d, path) : GEUL_OK;
}

int geul_adapter_source_take(struct geul_context *ctx, const struct geul_train_args *args, struct geul_train_options *o,
                             const struct geul_model_shape *shape, char **template_text)
{
    const char *path = o->lora.from;
    char file[8];
    *template_text = NULL;
    geul_error_clear(ctx);
    struct geul_lora *d = geul_lora_read_any(ctx, path, geul_lora_shape_of(shape));
    if (!d)
        return geul_report_failure(ctx);
    int code = refuse_others(&o->lora, d);
    enum geul_status status = code == 0 ? geul_lora_check_shape(ctx, d, shape, path) : GEUL_OK;
    if (code == 0 && status == GEUL_OK) {
        o->lora.rank = d->pairs[0].rank;
        o->lora.alpha = d->alpha;
        o->lora.rslora = d->rslora;
        o->lora.targets = targets_of(d);
        if (d->template_text && !(*template_text = geul_strndup(ctx, d->template_text, strlen(d->template_text))))
            status = GEUL_ERROR_MEMORY;
        fprintf(stderr, "adapter: goes on from %s, rank %d, alpha %g%s\n", path, o->lora.rank, (double)d->alpha,
                d->rslora ? ", rank-stabilized" : "");
    }
    FILE *f = code == 0 && status == GEUL_OK ? fopen(path, "rb") : NULL;
    bool gguf = f && fread(file, 1, 4, f) == 4 && memcmp(file, "GGUF", 4) == 0;
    if (f)
        fclose(f);
    if (code == 0 && status == GEUL_OK && !gguf)
        status = save_start(ctx, args, d, o);
    geul_lora_free(d);
    return code ? code : status == GEUL_OK ? 0 : geul_report_failure(ctx);
}

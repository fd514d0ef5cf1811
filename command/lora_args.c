/* lora_args.c: see lora_args.h. */
#include "command/lora_args.h"

#include "core/context.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define SETTINGS struct geul_lora_args

/* clang-format off */
const struct geul_option geul_lora_option_rows[] = {
    OPTION_PATHS("--lora",        plain,  "FILE", FILE_OR_DIR,
                 "adds an adapter, a GGUF file or a directory of PEFT; may be given several times"),
    OPTION_LIST( "--lora-scaled", scaled, "FILE:X", "the same, X times as strong"),
    OPTION_END,
};
/* clang-format on */

/* Splits "FILE:X". */
static enum geul_status parse_scaled(struct geul_context *ctx, const char *text, struct geul_lora_choice *out)
{
    const char *colon = strrchr(text, ':');
    char *end = NULL;
    double scale = colon ? strtod(colon + 1, &end) : 0;
    if (!colon || colon == text || end == colon + 1 || *end || !isfinite((float)scale))
        return geul_fail(ctx, GEUL_ERROR_ARGUMENT,
                         "--lora-scaled takes FILE:X, for instance adapter.gguf:0.5, not \"%.200s\"", text);
    out->scale = (float)scale;
    out->path = geul_strndup(ctx, text, (size_t)(colon - text));
    return out->path ? GEUL_OK : GEUL_ERROR_MEMORY;
}

int geul_lora_args_choices(struct geul_context *ctx, const struct geul_lora_args *args,
                           struct geul_lora_choice choices[GEUL_LORAS_MAX])
{
    int n = 0;
    memset(choices, 0, GEUL_LORAS_MAX * sizeof *choices);
    for (int i = 0; i < args->plain.n; i++, n++) {
        const char *path = args->plain.items[i];
        choices[n] = (struct geul_lora_choice){geul_strndup(ctx, path, strlen(path)), 1};
        if (!choices[n].path)
            return -1;
    }
    for (int i = 0; i < args->scaled.n; i++, n++)
        if (parse_scaled(ctx, args->scaled.items[i], &choices[n]) != GEUL_OK)
            return -1;
    return n;
}

enum geul_status geul_lora_args_add(struct geul_context *ctx, const struct geul_lora_args *args,
                                    struct geul_model *model)
{
    struct geul_lora_choice choices[GEUL_LORAS_MAX];
    int n = geul_lora_args_choices(ctx, args, choices);
    enum geul_status status = n < 0 ? geul_error_status(ctx) : GEUL_OK;
    for (int i = 0; status == GEUL_OK && i < n; i++)
        status = geul_model_add_any_adapter(ctx, model, choices[i].path, choices[i].scale);
    for (int i = 0; i < GEUL_LORAS_MAX; i++)
        geul_free(ctx, choices[i].path);
    return status;
}

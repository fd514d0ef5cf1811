/* adapters.c: adapters from either form into the other, and into models; see geul_tools.h. */
#include "convert/peft.h"
#include "core/file_kind.h"
#include "core/inputs.h"
#include "geul_tools.h"
#include "models/model.h"

struct geul_lora *geul_lora_read_any(struct geul_context *ctx, const char *path, struct geul_lora_shape base)
{
    if (geul_peft_is(path))
        return geul_peft_read(ctx, path, base);
    const struct geul_file_kind *kind = geul_file_kind_of_directory(path);
    if (!kind)
        return geul_lora_read(ctx, path);
    geul_fail_kind(ctx, path, "an adapter (it has no adapter_config.json)", kind);
    return NULL;
}

/* Takes the options; *base gets what is known of the model that they name. */
static enum geul_status take_options(struct geul_context *ctx, const struct geul_peft_options *options,
                                     struct geul_peft_options *o, struct geul_lora_shape *base)
{
    *base = (struct geul_lora_shape){0};
    geul_error_clear(ctx);
    enum geul_status status = geul_take_struct(ctx, o, sizeof *o, options, "geul_peft_options");
    return status == GEUL_OK && o->base ? geul_peft_read_base(ctx, o->base, base) : status;
}

enum geul_status geul_convert_peft(struct geul_context *ctx, const char *dir, const char *out_path,
                                   const struct geul_peft_options *options)
{
    struct geul_peft_options o;
    struct geul_lora_shape base;
    geul_inputs_begin(ctx);
    enum geul_status status = take_options(ctx, options, &o, &base);
    struct geul_lora *d = status == GEUL_OK ? geul_peft_read(ctx, dir, base) : NULL;
    if (d)
        d->name = o.name ? o.name : d->name; /* borrowed; outlives d */
    status = d ? geul_lora_save(ctx, d, out_path) : geul_error_status(ctx);
    geul_lora_free(d);
    geul_inputs_end(ctx);
    return status;
}

enum geul_status geul_export_peft(struct geul_context *ctx, const char *gguf_path, const char *dir,
                                  const struct geul_peft_options *options)
{
    struct geul_peft_options o;
    struct geul_lora_shape base;
    geul_inputs_begin(ctx);
    enum geul_status status = take_options(ctx, options, &o, &base);
    struct geul_lora *d = status == GEUL_OK ? geul_lora_read(ctx, gguf_path) : NULL;
    status = d ? geul_peft_write(ctx, d, base, dir) : geul_error_status(ctx);
    geul_lora_free(d);
    geul_inputs_end(ctx);
    return status;
}

enum geul_status geul_model_add_any_adapter(struct geul_context *ctx, struct geul_model *model, const char *path,
                                            float scale)
{
    geul_error_clear(ctx);
    struct geul_lora *d = geul_lora_read_any(ctx, path, geul_lora_shape_of(geul_model_get_shape(model)));
    if (!d)
        return geul_error_status(ctx);
    enum geul_status status = geul_model_add_lora(ctx, model, d, scale, path);
    geul_lora_free(d);
    return status;
}

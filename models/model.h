/* model.h: a loaded model: the mapped file, its weights on their devices, its tokenizer. */
#ifndef GEUL_MODEL_H
#define GEUL_MODEL_H

#include "models/neox.h"

#include "core/runtime.h"
#include "models/fit.h"

/* How weights are held: in place in the mapped file, as float32 copies that training may change, or as tensors of that
 * shape without memory, for estimates. */
enum geul_weights { GEUL_WEIGHTS_MAPPED, GEUL_WEIGHTS_OWN, GEUL_WEIGHTS_NONE };

struct geul_adapter;
struct geul_lora;
struct geul_weights_upload;

struct geul_model {
    struct geul_context *ctx; /* the caller's, for errors while loading and for memory */
    struct geul_context *own; /* holds the weight leaves */
    struct geul_gguf *file;
    struct geul_tokenizer *tokenizer;
    struct geul_neox neox;
    struct geul_device *devices[GEUL_MAX_DEVICES]; /* the first has every operation */
    int n_devices;
    struct geul_devices own_devices; /* those of them that are closed with the model */
    enum geul_weights weights;
    struct geul_placement placement; /* where the weights and caches are */
    bool tied;                       /* as geul_fit_tied() */
    struct geul_buffer *buffers;     /* room for one per tensor of the file */
    int64_t n_buffers;
    struct geul_weights_upload *upload; /* while loading, where a device cannot read the mapped file */
    char *name;
    char *template_text;            /* NULL: a base model */
    struct geul_adapter **adapters; /* neox.n_adapters of them */
    const struct geul_neox_adapter **neox_adapters;
};

enum { GEUL_LAYERS_BY_OPTIONS = -2 };
/* geul_model_load() over given devices: layers 0 .. first_layers-1 and everything outside the layers on devices[0], the
 * other layers on the last device; GEUL_LAYERS_BY_OPTIONS: as the options say. n_devices 0: the options say which
 * devices too, and the model opens them for itself. */
struct geul_model *geul_model_load_on(struct geul_context *ctx, const char *path,
                                      const struct geul_model_options *options, struct geul_device *const *devices,
                                      int n_devices, int first_layers);
/* The same with weights held in another way. */
struct geul_model *geul_model_load_as(struct geul_context *ctx, const char *path,
                                      const struct geul_model_options *options, struct geul_device *const *devices,
                                      int n_devices, int first_layers, enum geul_weights weights);
/* The device of a layer's weights and cache. */
struct geul_device *geul_model_layer_device(const struct geul_model *m, int layer);
/* geul_model_add_adapter() with a LoRA that was read or made elsewhere; it is copied. where is for messages. */
enum geul_status geul_model_add_lora(struct geul_context *ctx, struct geul_model *model, const struct geul_lora *d,
                                     float scale, const char *where);
/* Ids from here on are padding rows and never sampled. */
int geul_model_usable_vocab(const struct geul_model *m);

#endif

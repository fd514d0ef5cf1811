/* peft.h: LoRA adapters of Hugging Face's PEFT in memory; geul_convert_peft() and others (geul_tools.h) use it. In
 * files the rows of query_key_value's lora_B are in the order of Hugging Face's models, by head; in memory they are all
 * of Q, then K, then V (see geul_neox_qkv_row()). */
#ifndef GEUL_PEFT_H
#define GEUL_PEFT_H

#include "models/lora.h"

/* Reads the sizes of the model at path, a GGUF file or a Hugging Face directory. */
enum geul_status geul_peft_read_base(struct geul_context *ctx, const char *path, struct geul_lora_shape *base);
/* Reads an adapter for the model `base`. Its own model is looked up too: a config.json in dir, otherwise the directory
 * that adapter_config.json names, if it is on this machine; sizes that differ from base's are an error. Without heads
 * an adapter of query_key_value cannot be read. NULL on failure; free with geul_lora_free(). */
struct geul_lora *geul_peft_read(struct geul_context *ctx, const char *dir, struct geul_lora_shape base);
/* Writes d in float32 into dir, made when it is missing; the configuration is written last. Where d does not know the
 * heads, base has to; what both know has to be the same. */
enum geul_status geul_peft_write(struct geul_context *ctx, const struct geul_lora *d, struct geul_lora_shape base,
                                 const char *dir);

/* Reads an adapter, a GGUF file or a PEFT directory; base as above. NULL on failure; free with
 * geul_lora_free(). */
struct geul_lora *geul_lora_read_any(struct geul_context *ctx, const char *path, struct geul_lora_shape base);

#endif

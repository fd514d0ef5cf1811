/* hf_foreign.c: see hf_foreign.h. */
#include "convert/hf_foreign.h"

#include <stdio.h>
#include <string.h>

#define COUNT(a) (sizeof(a) / sizeof *(a))

#define UNQUANTIZE                                                                                                     \
    "geul converts unquantized weights (and quantizes by itself): take the original model, or load this one with "     \
    "transformers, call model.dequantize() and save it in float16"
#define MERGE                                                                                                          \
    "merge it with PEFT (merge_and_unload()) and save the model, or save the adapter alone, which geul takes beside "  \
    "a "                                                                                                               \
    "model"

/* How people write the methods of quantization_config; others are printed as they are. */
static const struct {
    const char *method, *name;
} methods[] = {
    {"bitsandbytes", "bitsandbytes"},
    {"bitsandbytes_4bit", "bitsandbytes"},
    {"bitsandbytes_8bit", "bitsandbytes"},
    {"gptq", "GPTQ"},
    {"awq", "AWQ"},
    {"fp8", "FP8"},
};

/* Where the configuration of a quantized model stands; the second is of older compressed-tensors. */
static const char *const places[] = {"quantization_config", "compression_config"};

/* Names that only such tensors have: a part of a name or its end, and the words for it. */
static const struct {
    const char *part;
    bool end;
    const char *what, *advice;
} parts[] = {
    {".lora_A.", false, "an adapter (LoRA) that was not merged", MERGE},
    {".lora_B.", false, "an adapter (LoRA) that was not merged", MERGE},
    {".base_layer.weight", true, "a model with an adapter round it that was not merged", MERGE},
    {".quant_state.bitsandbytes__nf4", true, "weights quantized by bitsandbytes (4 bit)", UNQUANTIZE},
    {".quant_state.bitsandbytes__fp4", true, "weights quantized by bitsandbytes (4 bit)", UNQUANTIZE},
    {".weight.absmax", true, "weights quantized by bitsandbytes (4 bit)", UNQUANTIZE},
    {".SCB", true, "weights quantized by bitsandbytes (8 bit)", UNQUANTIZE},
    {".qweight", true, "weights quantized by GPTQ or AWQ", UNQUANTIZE},
    {".qzeros", true, "weights quantized by GPTQ or AWQ", UNQUANTIZE},
    {".weight_packed", true, "weights quantized by compressed-tensors", UNQUANTIZE},
    {".weight_scale", true, "weights in 8 bits with scales (FP8)", UNQUANTIZE},
    {".weight_scale_inv", true, "weights in 8 bits with scales (FP8)", UNQUANTIZE},
    {".W_q", true, "weights quantized by HQQ", UNQUANTIZE},
};

/* Bits per weight by a quantization_config; 0: it does not say. */
static int read_bits(const json_t *q)
{
    if (json_is_true(json_object_get(q, "load_in_4bit")))
        return 4;
    if (json_is_true(json_object_get(q, "load_in_8bit")))
        return 8;
    const json_t *bits = json_object_get(q, "bits");
    return json_is_integer(bits) && json_integer_value(bits) > 0 && json_integer_value(bits) <= 16
               ? (int)json_integer_value(bits)
               : 0;
}

/* "bitsandbytes, 4 bit" into text; returns text. */
static const char *method_text(const json_t *q, char *text, size_t size)
{
    const char *method = json_string_value(json_object_get(q, "quant_method"));
    char name[48];
    int bits = read_bits(q);
    /* the first configurations of bitsandbytes had no method */
    bool no_method = !method && (json_object_get(q, "load_in_4bit") || json_object_get(q, "load_in_8bit"));
    geul_printable(no_method ? "bitsandbytes" : method ? method : "a method that it does not name", name, sizeof name);
    for (size_t i = 0; method && i < COUNT(methods); i++)
        if (strcmp(method, methods[i].method) == 0)
            snprintf(name, sizeof name, "%s", methods[i].name);
    if (bits)
        snprintf(text, size, "%s, %d bit", name, bits);
    else
        snprintf(text, size, "%s", name);
    return text;
}

enum geul_status geul_hf_check_config(struct geul_context *ctx, const char *name, const json_t *json)
{
    char text[80];
    for (size_t i = 0; i < COUNT(places); i++) {
        const json_t *q = json_object_get(json, places[i]);
        if (json_is_object(q) && json_object_size(q) > 0)
            return geul_fail(ctx, GEUL_ERROR_UNSUPPORTED,
                             "%s: %s says that the weights are quantized (%s); " UNQUANTIZE
                             ". If the weights are plain floats after all, remove %s",
                             name, places[i], method_text(q, text, sizeof text), places[i]);
    }
    return GEUL_OK;
}

enum geul_status geul_hf_check_tensors(struct geul_context *ctx, const char *dir, const struct geul_checkpoint *c)
{
    for (size_t i = 0; i < geul_checkpoint_count(c); i++) {
        const char *name = geul_checkpoint_at(c, i)->name;
        for (size_t k = 0; k < COUNT(parts); k++) {
            size_t n = strlen(name), m = strlen(parts[k].part);
            char text[100];
            if (parts[k].end ? n >= m && strcmp(name + n - m, parts[k].part) == 0 : strstr(name, parts[k].part) != NULL)
                return geul_fail(ctx, GEUL_ERROR_UNSUPPORTED, "%s: holds %s (tensor %s); %s", dir, parts[k].what,
                                 geul_printable(name, text, sizeof text), parts[k].advice);
        }
    }
    return GEUL_OK;
}

/* lora_files.h: the contents of an adapter's file, for `geul export` and `geul info`. */
#ifndef GEUL_LORA_FILES_H
#define GEUL_LORA_FILES_H

#include "core/gguf.h"

#include <jansson.h>

/* Whether path is a GGUF file that says it is an adapter. */
bool geul_lora_is_gguf(const char *path);
/* Prints what the adapter in g does; nothing when g is not an adapter. */
void geul_lora_print(const struct geul_gguf *g);
/* The same as JSON; NULL when g is not an adapter. */
json_t *geul_lora_json(const struct geul_gguf *g);

#endif

/* adapter_files.h: adapters from one form into the other, and what is in them: for `geul convert`, `export` and `info`.
 */
#ifndef GEUL_ADAPTER_FILES_H
#define GEUL_ADAPTER_FILES_H

#include "core/gguf.h"

#include <jansson.h>

/* Whether path is a GGUF file that says it is an adapter. */
bool geul_adapter_is_gguf(const char *path);
/* A directory of PEFT into a GGUF file, and back. base: the model, a GGUF file or a Hugging Face directory; NULL: not
 * named. name takes the place of the directory's; NULL: that. */
enum geul_status geul_adapter_to_gguf(struct geul_context *ctx, const char *dir, const char *base, const char *name,
                                      const char *path);
enum geul_status geul_adapter_to_peft(struct geul_context *ctx, const char *path, const char *base, const char *dir);
/* Prints what the adapter in g does; nothing when g is none. */
void geul_adapter_print(const struct geul_gguf *g);
/* The same as JSON; NULL when g is none. */
json_t *geul_adapter_json(const struct geul_gguf *g);

#endif

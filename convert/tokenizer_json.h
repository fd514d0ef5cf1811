/* tokenizer_json.h: Hugging Face's tokenizer.json, of every version, as a tokenizer spec. */
#ifndef GEUL_TOKENIZER_JSON_H
#define GEUL_TOKENIZER_JSON_H

#include "tokenizer/tokenizer.h"

#include <jansson.h>

/* Reads a tokenizer.json held in memory. spec must be initialised; on failure free it as always. Which tokens begin and
 * end a text it does not say, but which ids are put before and after one (post_processor). */
enum geul_status geul_tokenizer_spec_from_json(struct geul_context *ctx, const char *json, size_t size,
                                               struct geul_tokenizer_spec *spec);
/* The same for a document that is parsed already. */
enum geul_status geul_tokenizer_spec_from_object(struct geul_context *ctx, const json_t *root,
                                                 struct geul_tokenizer_spec *spec);

#endif

/* tokenizer_json.h: Hugging Face's tokenizer.json, of every version, as a tokenizer spec. */
#ifndef GEUL_TOKENIZER_JSON_H
#define GEUL_TOKENIZER_JSON_H

#include "tokenizer/tokenizer.h"

/* Reads a tokenizer.json held in memory. spec must be initialised; on failure free it as always. spec->eos is the id of
 * <|endoftext|> when there is one, otherwise -1 (tokenizer_config.json may name another). */
enum geul_status geul_tokenizer_spec_from_json(struct geul_context *ctx, const char *json, size_t size,
                                               struct geul_tokenizer_spec *spec);

#endif

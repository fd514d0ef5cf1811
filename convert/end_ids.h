/* end_ids.h: which tokens end a text, as the files of a Hugging Face directory say it. */
#ifndef GEUL_END_IDS_H
#define GEUL_END_IDS_H

#include "tokenizer/tokenizer_spec.h"

#include <jansson.h>

/* The end tokens that config.json and generation_config.json mean (NULL: no such file; the latter comes first, as in
 * transformers), own being the id of the tokenizer's own eos_token or -1. None said: own. Ids from n_tokens on and such
 * that are no ids are left out. own stands first where it is one of several. Sets *wrong when the files say 0 where the
 * tokenizer's own is <|endoftext|>, own_usual, with another id, which Polyglot-Ko's published files do: own then. */
struct geul_tok_ids geul_end_ids_choose(const json_t *config, const json_t *generation, int32_t own, bool own_usual,
                                        int32_t n_tokens, bool *wrong);
/* The value of eos_token_id: a number, or a list where there are several; NULL when there are none or without memory.
 */
json_t *geul_end_ids_json(const struct geul_tok_ids *ends);
/* Whether both hold the same ids, in any order. */
bool geul_end_ids_equal(const struct geul_tok_ids *a, const struct geul_tok_ids *b);

#endif

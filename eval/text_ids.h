/* text_ids.h: the token ids of a text that is measured. */
#ifndef GEUL_TEXT_IDS_H
#define GEUL_TEXT_IDS_H

#include "geul.h"

/* The ids of a text, special tokens by their texts; start: the end token before them, unless the tokenizer
 * itself puts tokens before a text. A text without any id is one end token: texts are separated by it, so one begins
 * after it. A tokenizer without an end token adds none. *ids is allocated,
 * freed by geul_tokens_free(). */
enum geul_status geul_text_ids(struct geul_context *ctx, const struct geul_tokenizer *tok, const char *text,
                               size_t length, bool start, int32_t **ids, size_t *n);

#endif

/* tokenizer.h: making a tokenizer from its spec or from a GGUF file.
 *
 *     struct geul_tokenizer_spec spec;
 *     geul_tokenizer_spec_init(&spec);
 *     if (geul_tokenizer_spec_from_json(ctx, json, size, &spec) == GEUL_OK)
 *         tok = geul_tokenizer_new(ctx, &spec, engine);      // empties spec, also on failure
 *     geul_tokenizer_spec_free(ctx, &spec);                  // harmless on an empty spec
 */
#ifndef GEUL_TOKENIZER_H
#define GEUL_TOKENIZER_H

#include "core/gguf.h"
#include "tokenizer/tokenizer_spec.h"
#include "geul.h"

/* The tokenizer of a spec. Empties the spec, also on failure. NULL when the spec contradicts itself (the message says
 * where), when it needs a regular expression and engine is NULL, or when memory is short. engine itself must outlive
 * the tokenizer and its match must be safe to call from several threads. It is given valid UTF-8 only. */
struct geul_tokenizer *geul_tokenizer_new(struct geul_context *ctx, struct geul_tokenizer_spec *spec,
                                          const struct geul_regex_engine *engine);
/* What tok was made from; lives as long as tok. */
const struct geul_tokenizer_spec *geul_tokenizer_get_spec(const struct geul_tokenizer *tok);

/* Bytes [begin, end) of a text. */
struct geul_tok_span {
    size_t begin, end;
};
/* geul_tokenize() for a text of which users wrote a part: special tokens count only where one of the n_own spans
 * contains them whole; anywhere else their text is ordinary text. Spans are ascending and within the text. */
enum geul_status geul_tokenize_spans(struct geul_context *ctx, const struct geul_tokenizer *tok, const char *text,
                                     size_t length, const struct geul_tok_span *own, size_t n_own, int32_t **ids,
                                     size_t *count);

/* Reads the tokenizer keys of an open GGUF file into spec. UNSUPPORTED when the file carries only a
 * tokenizer.huggingface.json or a model other than "gpt2". */
enum geul_status geul_tokenizer_spec_from_gguf(struct geul_context *ctx, const struct geul_gguf *g,
                                               struct geul_tokenizer_spec *spec);
/* Both in one: the tokenizer of an open file. NULL on failure. The file may be closed afterwards. */
struct geul_tokenizer *geul_tokenizer_from_gguf(struct geul_context *ctx, const struct geul_gguf *g,
                                                const struct geul_regex_engine *engine);
/* Whether an open file has a tokenizer that geul_tokenizer_from_gguf() would try to read. */
bool geul_gguf_has_tokenizer(const struct geul_gguf *g);
/* Sets the standard tokenizer keys (llama.cpp reads those) and geul's own, which carry what the standard ones cannot.
 * Ids from the spec's size up to n_vocab (rows of the model) are written as unused "[PAD<id>]". */
enum geul_status geul_tokenizer_write_gguf(struct geul_context *ctx, struct geul_gguf_writer *w,
                                           const struct geul_tokenizer_spec *spec, int32_t n_vocab);

#endif

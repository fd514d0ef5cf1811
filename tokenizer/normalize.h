/* normalize.h: the steps that change a text before it is split. */
#ifndef GEUL_NORMALIZE_H
#define GEUL_NORMALIZE_H

#include "core/bytes.h"
#include "tokenizer/pattern_search.h"
#include "tokenizer/text_table.h"
#include "tokenizer/tokenizer_spec.h"
#include "geul.h"

/* A normalizer step, ready to use; the texts belong to the spec. */
struct geul_normal_step {
    enum geul_tok_step_kind kind;
    bool left, right;          /* Strip */
    struct geul_slice text;    /* Prepend: what is put before; Replace: what is searched for */
    struct geul_slice content; /* Replace: the replacement */
    struct geul_search search; /* Replace with a regular expression; compiled NULL: with a text */
};

/* Appends the normalized form of [s, s+n) to out; false (recorded) when memory is short or a search takes more than is
 * left of *budget (pattern_search.h). Bytes that are not valid UTF-8 are kept. */
bool geul_normalize(struct geul_context *ctx, const struct geul_normal_step *step, const char *s, size_t n,
                    struct geul_bytes *out, uint64_t *budget);
/* Whether the character never changes under the form and joins with nothing before it, so that the fast path may copy
 * it. */
bool geul_normal_inert(enum geul_tok_step_kind form, int32_t c);
/* Appends [s, s+n) to out with every match of the step's text or pattern replaced; false as geul_normalize(). Bytes
 * that are not valid UTF-8 are kept. */
bool geul_replace(struct geul_context *ctx, const struct geul_normal_step *step, const char *s, size_t n,
                  struct geul_bytes *out, uint64_t *budget);
/* The next position of needle (not empty) in text at or after start; text_n when there is none. */
size_t geul_find_text(const char *text, size_t text_n, size_t start, struct geul_slice needle);

#endif

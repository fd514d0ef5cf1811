/* lookup.h: where the last tokens of a text occurred before. Drafts of prompt lookup come from here: answers that quote
 * their prompt, or repeat themselves, continue as the text did there. (Saxena 2023, "prompt lookup decoding") */
#ifndef GEUL_LOOKUP_H
#define GEUL_LOOKUP_H

#include "core/context.h"

/* A text and an index of its pairs of tokens. Adding and finding take bounded time; memory is 12 bytes per token. */
struct geul_lookup;

enum { GEUL_LOOKUP_SHORTEST = 2, GEUL_LOOKUP_LONGEST = 32 }; /* tokens of a match */

/* An empty text of at most size tokens. NULL when memory is short. Free with geul_lookup_free(). */
struct geul_lookup *geul_lookup_new(struct geul_context *ctx, int size);
void geul_lookup_free(struct geul_lookup *l);
/* Makes the text these n tokens; only what follows the common prefix with the present text is indexed again. Tokens
 * beyond size are left out. */
void geul_lookup_set(struct geul_lookup *l, const int32_t *tokens, int n);
int geul_lookup_length(const struct geul_lookup *l);
/* Appends a token. */
void geul_lookup_push(struct geul_lookup *l, int32_t token);
/* The longest match of the end of the text with an earlier position, of several the latest: its tokens (at most
 * GEUL_LOOKUP_LONGEST; 0: no match), and in *next the position that follows it. */
int geul_lookup_find(const struct geul_lookup *l, int *next);
/* Copies n tokens of the text from next on to draft; behind its end the copy continues with itself, so that a text
 * which repeats itself keeps repeating. */
void geul_lookup_copy(const struct geul_lookup *l, int next, int n, int32_t *draft);

#endif

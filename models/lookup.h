/* lookup.h: where the last words of a text stood before. Drafts of prompt lookup come from here: answers that quote
 * their prompt, or repeat themselves, go on as the text did there. (Saxena 2023, "prompt lookup decoding") */
#ifndef GEUL_LOOKUP_H
#define GEUL_LOOKUP_H

#include "core/context.h"

/* A text and an index of its pairs of tokens. Adding and finding take bounded time; memory is 12 bytes per token. */
struct geul_lookup;

enum { GEUL_LOOKUP_SHORTEST = 2, GEUL_LOOKUP_LONGEST = 32 }; /* tokens of a match */

/* An empty text of at most size tokens. NULL when memory is short. Free with geul_lookup_free(). */
struct geul_lookup *geul_lookup_new(struct geul_context *ctx, int size);
void geul_lookup_free(struct geul_lookup *l);
/* Makes the text these n tokens; only what differs from the present text is done again. What is beyond size is left
 * out. */
void geul_lookup_set(struct geul_lookup *l, const int32_t *tokens, int n);
int geul_lookup_length(const struct geul_lookup *l);
/* Appends a token. */
void geul_lookup_push(struct geul_lookup *l, int32_t token);
/* The longest match of the end of the text with an earlier place, of several the latest: its tokens (at most
 * GEUL_LOOKUP_LONGEST; 0: no match), and in *next the position that follows it. */
int geul_lookup_find(const struct geul_lookup *l, int *next);
/* How the text goes on from next, n tokens; behind its end it goes on with what was copied. */
void geul_lookup_copy(const struct geul_lookup *l, int next, int n, int32_t *draft);

#endif

/* perplexity.h: how surprised a model is by a text: per token, per character and per byte. */
#ifndef GEUL_PERPLEXITY_H
#define GEUL_PERPLEXITY_H

#include "eval/statistics.h"

/* What a token stands for in its text. A character whose bytes lie in several tokens is shared among them in
 * proportion to its bytes, so lengths are counted in twelfths of a character: whole numbers for 1 to 4 bytes. */
struct geul_text_length {
    uint32_t bytes, twelfths;
};
/* The lengths of n ids that follow each other; bytes that are not UTF-8 count as a character each. Allocated; free with
 * geul_free(). NULL on failure. */
struct geul_text_length *geul_text_lengths(struct geul_context *ctx, const struct geul_tokenizer *tok,
                                           const int32_t *ids, size_t n);

/* -log of the probability that the softmax of n logits gives to target, in nats, computed in double precision. Not
 * finite when the logits are not. */
double geul_nats(const float *logits, int n, int32_t target);

/* Sums over scored tokens. Zero it to start. */
struct geul_perplexity {
    struct geul_moments chars, bytes; /* nats of every token with its characters and its bytes */
};
void geul_perplexity_add(struct geul_perplexity *p, double nats, struct geul_text_length length);

/* The figures so far. */
struct geul_perplexity_report geul_perplexity_get(const struct geul_perplexity *p);

#endif

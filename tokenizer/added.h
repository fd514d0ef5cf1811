/* added.h: finding added tokens such as <|endoftext|> in a text, before anything else happens to it. */
#ifndef GEUL_ADDED_H
#define GEUL_ADDED_H

#include "tokenizer/text_table.h"
#include "tokenizer/tokenizer_spec.h"

/* A trie over the tokens' texts. */
struct geul_added_set {
    struct geul_pair_table edges; /* node, byte -> node (in id) */
    int32_t *item;                /* by node: index into added, -1: no token ends here */
    size_t n_nodes;
    const struct geul_tok_added *added;
    bool first[256]; /* bytes that begin a token */
};

/* A set with room for texts of n_bytes bytes in all. added must outlive the set. */
bool geul_added_init(struct geul_context *ctx, struct geul_added_set *set, const struct geul_tok_added *added,
                     size_t n_bytes);
/* Adds added[index] under that text, unless another token has it already. Empty texts are never found. */
void geul_added_insert(struct geul_added_set *set, int32_t index, const char *s, size_t n);
void geul_added_free(struct geul_context *ctx, struct geul_added_set *set);

/* The state of a search through a text: zero it to start. */
struct geul_added_cursor {
    size_t search;  /* end of the last token's own bytes: where to look for the next one */
    size_t covered; /* end of the last token with the white space it took: where plain text begins */
};
/* The next token in [text, text+n): the piece of plain text before it is [from, to). -1 at the end, with the last piece
 * in from and to. special: find special tokens too. The leftmost match, of several the longest. */
int32_t geul_added_next(const struct geul_added_set *set, struct geul_added_cursor *cursor, const char *text, size_t n,
                        bool special, size_t *from, size_t *to);

#endif

/* tokenizer_parts.h: the tokenizer behind the public handle; shared by tokenizer_build.c and tokenizer.c alone. */
#ifndef GEUL_TOKENIZER_PARTS_H
#define GEUL_TOKENIZER_PARTS_H

#include "core/bytes.h"
#include "tokenizer/added.h"
#include "tokenizer/normalize.h"
#include "tokenizer/pretokenize.h"
#include "tokenizer/text_table.h"
#include "tokenizer/tokenizer_spec.h"

#define GEUL_TOK_NO_ID UINT32_MAX

enum { /* what is known of an id */
       GEUL_TOK_IS_ADDED = 1,
       GEUL_TOK_IS_SPECIAL = 2,
       GEUL_TOK_IS_NORMALIZED = 8, /* an added token that is searched for in normalized text */
       GEUL_TOK_IS_WHOLE = 4,      /* a word of this text becomes this one id: no merging needed */
       GEUL_TOK_IS_END = 16,       /* ends a text */
};

/* Everything here is read-only once built. Slices point into spec.pool or decoded. */
struct geul_tokenizer {
    struct geul_context *ctx; /* its own, for memory and for errors while it is built */
    struct geul_tokenizer_spec spec;
    int32_t n_ids;                    /* highest id with a text, plus one */
    unsigned char *flags;             /* by id */
    struct geul_slice *raw;           /* by id: as the file writes it */
    struct geul_slice *text;          /* by id: the bytes it stands for */
    struct geul_bytes decoded;        /* all texts, which text points into */
    struct geul_text_table raw_table; /* raw -> id */
    struct geul_text_table table;     /* text -> id */
    size_t longest;                   /* bytes of the longest text */
    struct geul_pair_table merges;
    bool byte_level;                 /* words are sequences of bytes, not of characters */
    bool all_bytes;                  /* every byte has an id */
    uint32_t byte_id[256];           /* byte level: the id of the byte; otherwise of its <0xXX> */
    uint32_t unk;                    /* GEUL_TOK_NO_ID: none */
    struct geul_normal_step *normal; /* normalizer */
    size_t n_normal;
    struct geul_split_step *split; /* pre-tokenizer */
    size_t n_split;
    struct geul_normal_step *decode; /* Replace steps of the decoder */
    struct geul_added_set added_raw, added_normal;
    bool has_added_raw, has_added_normal;
    uint64_t budget; /* what searching in the texts of the tokens may still cost, while they are built */
};

/* Whether a tokenizer's steps may turn a text of n bytes into one of `now`; false is recorded. Honest steps make a few
 * bytes of one; those of a hostile file, one after the other, could fill any memory. */
bool geul_tok_growth_fits(struct geul_context *ctx, size_t n, size_t now);

/* Runs all normalizer steps over [*s, *s + *n); *s then points to the text itself or into one of the two buffers.
 * *budget: what searching may still cost (pattern_search.h). */
bool geul_tok_normalize(struct geul_context *ctx, const struct geul_tokenizer *tok, const char **s, size_t *n,
                        struct geul_bytes buffers[2], uint64_t *budget);

#endif

/* pretokenize.h: splitting a text into the words that are merged one by one. */
#ifndef GEUL_PRETOKENIZE_H
#define GEUL_PRETOKENIZE_H

#include "tokenizer/scan.h"
#include "tokenizer/pattern_search.h"
#include "tokenizer/text_table.h"
#include "tokenizer/tokenizer_spec.h"
#include "geul.h"

/* What a split looks for. */
enum geul_matcher {
    GEUL_MATCHER_SCANNER, /* a known pattern */
    GEUL_MATCHER_REGEX,   /* a pattern for the engine */
    GEUL_MATCHER_TEXT,    /* a literal text */
    GEUL_MATCHER_DIGIT,   /* the next three: one character of a class */
    GEUL_MATCHER_PUNCTUATION,
    GEUL_MATCHER_SPACE,
    GEUL_MATCHER_PREFIX /* not a split: puts a space before a piece that does not begin with one */
};

/* One step of the splitting; a piece goes through all steps in order. */
struct geul_split_step {
    enum geul_matcher matcher;
    enum geul_scanner scanner;
    enum geul_tok_behavior behavior;
    bool invert;
    struct geul_slice text;    /* TEXT; belongs to the spec */
    struct geul_search search; /* REGEX */
};

/* Receives the words in order; false stops. The text is valid during the call only. */
typedef bool (*geul_word_callback)(void *user, const char *s, size_t n);

/* Splits [s, s+n) by the steps. false when the callback stopped, memory was short or searching took more than is left
 * of *budget (pattern_search.h; both recorded). */
bool geul_pretokenize(struct geul_context *ctx, const struct geul_split_step *steps, size_t n_steps, const char *s,
                      size_t n, geul_word_callback word, void *user, uint64_t *budget);

#endif

/* tokenizer_spec.h: what a tokenizer is made of, as plain data that a reader fills: convert/tokenizer_json.c from
 * Hugging Face's tokenizer.json, tokenizer_gguf.c from a GGUF file. All texts live in one pool; they are kept as
 * (offset, length) because the pool moves while it grows. geul_tokenizer_new() makes a tokenizer of it. */
#ifndef GEUL_TOKENIZER_SPEC_H
#define GEUL_TOKENIZER_SPEC_H

#include "core/context.h"

#define GEUL_TOK_ABSENT  SIZE_MAX
#define GEUL_TOK_MAX_IDS 32 /* of a short list: end tokens, tokens put before or after a text */

/* length bytes at pool + at; at is GEUL_TOK_ABSENT where there is no text. */
struct geul_tok_text {
    size_t at, length;
};

/* How a Split treats what its pattern matched (Hugging Face's five behaviors). */
enum geul_tok_behavior {
    GEUL_TOK_BEHAVIOR_REMOVED,
    GEUL_TOK_BEHAVIOR_ISOLATED,
    GEUL_TOK_BEHAVIOR_MERGED_WITH_PREVIOUS,
    GEUL_TOK_BEHAVIOR_MERGED_WITH_NEXT,
    GEUL_TOK_BEHAVIOR_CONTIGUOUS,
    GEUL_TOK_BEHAVIOR_COUNT
};

/* The lists of steps that a text goes through. */
enum geul_tok_stage { GEUL_TOK_STAGE_NORMALIZE, GEUL_TOK_STAGE_SPLIT, GEUL_TOK_STAGE_DECODE, GEUL_TOK_STAGE_COUNT };

/* The fields of a step that its kind uses, in the order in which GGUF files list them. */
enum {
    GEUL_TOK_HAS_REGEX = 1,
    GEUL_TOK_HAS_TEXT = 2,
    GEUL_TOK_HAS_CONTENT = 4,
    GEUL_TOK_HAS_BEHAVIOR = 8,
    GEUL_TOK_HAS_INVERT = 16,
    GEUL_TOK_HAS_LEFT = 32,
    GEUL_TOK_HAS_RIGHT = 64,
};

enum geul_tok_step_kind {
#define STEP(id, name, stage, fields) GEUL_TOK_STEP_##id,
#include "tokenizer/steps.def"
#undef STEP
    GEUL_TOK_STEP_COUNT
};

/* One row of steps.def. */
struct geul_tok_step_info {
    const char *name; /* as tokenizer.json calls it */
    enum geul_tok_stage stage;
    unsigned fields;
};
const struct geul_tok_step_info *geul_tok_step_info(enum geul_tok_step_kind kind);
/* The kind of that name in a stage, GEUL_TOK_STEP_COUNT when there is none. */
enum geul_tok_step_kind geul_tok_step_find(enum geul_tok_stage stage, const char *name, size_t length);
/* "MergedWithNext" and back; GEUL_TOK_BEHAVIOR_COUNT for an unknown name. */
const char *geul_tok_behavior_name(enum geul_tok_behavior behavior);
enum geul_tok_behavior geul_tok_behavior_find(const char *name, size_t length);

struct geul_tok_step {
    enum geul_tok_step_kind kind;
    bool regex;  /* text is a regular expression, otherwise a literal */
    bool invert; /* Split: what is between the matches counts as the match */
    enum geul_tok_behavior behavior;
    int32_t left, right; /* see steps.def */
    struct geul_tok_text text, content;
};

struct geul_tok_steps {
    struct geul_tok_step *items;
    size_t count, capacity;
};

struct geul_tok_merge {
    struct geul_tok_text left, right;
};

/* A token that is cut out of the text before anything else happens to it. */
struct geul_tok_added {
    int32_t id;
    bool special;        /* left out by skip_special */
    bool lstrip, rstrip; /* takes the white space before / after it along */
    bool single_word;    /* not inside a word */
    bool normalized;     /* searched for after normalization */
};

/* A short list of ids. */
struct geul_tok_ids {
    int32_t id[GEUL_TOK_MAX_IDS];
    int n;
};

struct geul_tokenizer_spec {
    char *pool;
    size_t pool_length, pool_capacity;
    struct geul_tok_text *tokens; /* by id, as the file writes them (byte-level alphabet); ABSENT: a hole */
    int32_t n_tokens;
    struct geul_tok_merge *merges; /* best first */
    size_t n_merges, merge_capacity;
    struct geul_tok_added *added; /* their texts are in tokens */
    size_t n_added, added_capacity;
    struct geul_tok_steps stages[GEUL_TOK_STAGE_COUNT];
    struct geul_tok_text unk;          /* text of the token for the unknown */
    bool ignore_merges;                /* a word that is a token is taken whole */
    bool byte_fallback;                /* unknown characters become <0xXX> tokens */
    bool fuse_unk;                     /* neighbouring unknown characters become one unk token */
    int32_t bos;                       /* the start token, which GGUF names; -1: not given */
    struct geul_tok_ids ends;          /* any of them ends a text; the first is put after texts that are learned */
    struct geul_tok_ids before, after; /* what is put before and after every text (TemplateProcessing, add_bos_token) */
};

/* An empty spec, and back to it. spec_free() may be called on any spec that was initialised. */
void geul_tokenizer_spec_init(struct geul_tokenizer_spec *spec);
void geul_tokenizer_spec_free(struct geul_context *ctx, struct geul_tokenizer_spec *spec);
/* The bytes of a text of the spec; valid until the next addition. */
const char *geul_tokenizer_spec_text(const struct geul_tokenizer_spec *spec, struct geul_tok_text text);
/* Copies n bytes into the pool. false (recorded) when memory is short. */
bool geul_tokenizer_spec_intern(struct geul_context *ctx, struct geul_tokenizer_spec *spec, const char *s, size_t n,
                                struct geul_tok_text *out);
/* Makes room for ids 0..n-1, all holes. Call once, before the tokens. */
bool geul_tokenizer_spec_reserve(struct geul_context *ctx, struct geul_tokenizer_spec *spec, int32_t n);
/* Each appends or sets one item; false (recorded) when memory is short or the item is not possible. */
bool geul_tokenizer_spec_token(struct geul_context *ctx, struct geul_tokenizer_spec *spec, int32_t id, const char *s,
                               size_t n);
bool geul_tokenizer_spec_merge(struct geul_context *ctx, struct geul_tokenizer_spec *spec, const char *left,
                               size_t n_left, const char *right, size_t n_right);
bool geul_tokenizer_spec_added(struct geul_context *ctx, struct geul_tokenizer_spec *spec,
                               const struct geul_tok_added *added);
bool geul_tokenizer_spec_step(struct geul_context *ctx, struct geul_tokenizer_spec *spec,
                              const struct geul_tok_step *step);
/* A merge in the form "left right": exactly one space. number is for the message. */
bool geul_tokenizer_spec_merge_line(struct geul_context *ctx, struct geul_tokenizer_spec *spec, const char *s, size_t n,
                                    size_t number);
/* Whether the list has the id, and appending it unless it is there already; false: the list is full. */
bool geul_tok_ids_have(const struct geul_tok_ids *list, int32_t id);
bool geul_tok_ids_add(struct geul_tok_ids *list, int32_t id);
/* Whether the token's text is that of one that stands for nothing, "<|unused0|>" and its like. */
bool geul_tokenizer_spec_is_unused(const struct geul_tokenizer_spec *spec, int32_t id);
/* The id of that text (as the file writes it), -1 when there is none. Looks at every token: for a few look-ups only. */
int32_t geul_tokenizer_spec_find(const struct geul_tokenizer_spec *spec, const char *s, size_t n);

#endif

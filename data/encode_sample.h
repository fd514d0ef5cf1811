/* encode_sample.h: texts to token ids with their targets, tokenized as they are when the model is used.
 *
 * A prompt is tokenized by itself, as it is when a model is asked, and what follows it by itself: the prompt's ids are
 * a prefix of the sample's. Special tokens count only where the template has them; the text of one in a question or an
 * answer is ordinary text. So every answer ends with exactly one end token. */
#ifndef GEUL_ENCODE_SAMPLE_H
#define GEUL_ENCODE_SAMPLE_H

#include "core/context.h"
#include "geul.h"

/* n ids; target[i]: id i is to be learned. The first may be a target here; a dataset ignores that. */
struct geul_sample {
    int32_t *ids;
    bool *target;
    size_t n;
    size_t id_capacity, target_capacity;
    bool joined;  /* an input or the system's text went into a question */
    bool not_nfc; /* a text is not in NFC, or was not */
};

/* What becomes a sample; zero is the default of every field but turns and n. */
struct geul_conversation {
    const struct geul_turn *turns; /* n of them, all with answers */
    int n;
    const char *system; /* before the first question */
    const char *input;  /* beside question number input_turn */
    int input_turn;
    const bool *learned; /* by turn: false: its answer is only read. NULL: all are learned */
    bool whole;          /* prompts are targets too */
    bool nfc;            /* texts are brought into NFC */
};

/* A conversation. Targets are every answer that is learned, what the template's text has between {output} and its own
 * <|endoftext|> (white space alone does not count), and one end token per answer; with whole the prompts too. A
 * template's {input} takes the input of a question or, in the first, the system's text. Without one, and where a
 * question has both, the system's text goes before the question and an input follows it, each after a blank line. t may
 * be NULL: questions and answers are joined as they are. Fails when an answer is empty or the tokenizer has no end
 * token. Free with geul_sample_free(), also after a failure. */
enum geul_status geul_sample_of_turns(struct geul_context *ctx, const struct geul_tokenizer *tok,
                                      const struct geul_template *t, const struct geul_conversation *c,
                                      struct geul_sample *out);
/* A text, which is brought into NFC or not, and its end token, everything a target. */
enum geul_status geul_sample_of_text(struct geul_context *ctx, const struct geul_tokenizer *tok, const char *text,
                                     size_t length, bool nfc, struct geul_sample *out);
void geul_sample_free(struct geul_context *ctx, struct geul_sample *s);

#endif

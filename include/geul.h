/* geul.h: run and train Polyglot-Ko and other GPT-NeoX models.
 *
 *     struct geul_context *ctx = geul_context_new(NULL);
 *     struct geul_model   *model = geul_model_load(ctx, "polyglot-ko-1.3b-q8_0.gguf", NULL);
 *     struct geul_session *session = model ? geul_session_new(ctx, model, NULL) : NULL;
 *     struct geul_sampling sampling = geul_sampling_default();
 *     sampling.temperature = 0.7f;
 *     struct geul_generation how = {.sampling = &sampling, .max_tokens = 128, .on_text = print_text};
 *     if (!session || geul_generate(session, "한국의 수도는", &how, NULL) != GEUL_OK)
 *         fprintf(stderr, "%s\n", geul_error(ctx));
 *     geul_session_free(session);
 *     geul_model_free(model);
 *     geul_context_free(ctx);
 *
 * Conventions  Texts are UTF-8, with explicit lengths where NUL may occur. Token ids are int32_t.
 * Lifetime     Objects refer to what they were made from: free sessions before their model, and everything before its
 *              context. Returned pointers that are const belong to the object. _free() functions accept NULL.
 * Errors       Calls return geul_status or NULL; the reason is in the context passed to the call or, without one, in
 *              that of the object. Each call that loads, evaluates, generates or trains begins by clearing that
 *              context's last failure.
 * Threads      Models, tokenizers and templates are read-only once made, and so is a filled dataset: they may serve
 *              several threads, each with a context of its own. Everything else belongs to one thread at a time,
 *              together with its context; only geul_context_cancel() may be called from any.
 *              Sessions and trainers compute with threads of their own: those of one model, each used by one thread,
 *              run at the same time. So give them together as many as there are cores (n_threads; 0 is all cores,
 *              for each). No result depends on the number of threads. Where the system refuses threads (limits of
 *              processes or memory, OMP_THREAD_LIMIT) calls compute with fewer; inside an OpenMP region of the
 *              application they compute with the calling thread alone.
 * Structs      Those of geul.h and geul_tensor.h do not begin with their size, and a section may say that one of them
 *              can gain fields. So start from its _default() function, or from all zero where it has none, set fields
 *              by name, and compile against the headers of the very library that is linked. Options are copied; what
 *              they point to must live as long as what is made with them.
 * Stability    Each section says what it promises. "Stable": until 1.0 it changes only with a new SONAME and a line
 *              under "Changed" in CHANGELOG.md; after 1.0 never. "May still change": what is in parentheses can change
 *              in any MINOR version, the SONAME with it. New functions, and new values at the end of an enum, are not
 *              changes: give a switch over an enum a default.
 */
#ifndef GEUL_H
#define GEUL_H

#include "geul_tensor.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ----------------------------------------------------------------------------------- version -- */
/* Stability: stable. */

/* The version of the library that is running: "0.1.0". */
GEUL_API const char *geul_version(void);

/* --------------------------------------------------------------------------------- tokenizer -- */
/* Stability: stable. */

struct geul_tokenizer;

/* Matches regular expressions for which the tokenizer has no scanner of its own. An application that loads tokenizers
 * with unusual patterns supplies one. */
struct geul_regex_engine {
    /* Compiled pattern (UTF-8, Unicode properties), or NULL with a message in error (size bytes). */
    void *(*compile)(const char *pattern, size_t length, char *error, size_t size);
    /* The first match at or after start in text: true and [*from, *to) in bytes. Threads that share a tokenizer call it
     * concurrently. */
    bool (*match)(void *compiled, const char *text, size_t length, size_t start, size_t *from, size_t *to);
    void (*free)(void *compiled);
    /* As match, in text that is valid UTF-8, for patterns of unknown origin: takes the steps of its work from *budget
     * and, when they do not suffice, gives up with false and *budget 0. The same arguments take the same steps. NULL:
     * match is called instead and has to bound its work itself. */
    bool (*match_within)(void *compiled, const char *text, size_t length, size_t start, size_t *from, size_t *to,
                         uint64_t *budget);
};

/* Reads the tokenizer that a GGUF file carries. engine may be NULL; otherwise it must outlive the tokenizer. NULL on
 * failure, also when a pattern needs an engine. Free with geul_tokenizer_free(). */
GEUL_API struct geul_tokenizer *geul_tokenizer_load(struct geul_context *ctx, const char *gguf_path,
                                                    const struct geul_regex_engine *engine);
GEUL_API void geul_tokenizer_free(struct geul_tokenizer *tok);
/* Number of ids, 0 to size - 1 (padding rows of the model are not counted). */
GEUL_API int32_t geul_tokenizer_size(const struct geul_tokenizer *tok);
/* Splits any bytes (NUL and broken UTF-8 included) into *count ids at *ids; free them with geul_tokens_free(); NULL and
 * 0 on failure. parse_special: texts such as "<|endoftext|>" become their id (as in HF); otherwise they are ordinary
 * text. Safe to call from several threads on one tokenizer if each passes its own ctx. */
GEUL_API enum geul_status geul_tokenize(struct geul_context *ctx, const struct geul_tokenizer *tok, const char *text,
                                        size_t length, bool parse_special, int32_t **ids, size_t *count);
/* The same with the ids that the tokenizer puts before and after a text: what Hugging Face calls add_special_tokens
 * (TemplateProcessing, add_bos_token, add_eos_token); for most GPT-NeoX models there are none. open: without those
 * after it, for a text that is to be continued. geul_generate() and the training data begin with the ids before a text;
 * geul_tokenize() adds none. */
GEUL_API enum geul_status geul_tokenize_whole(struct geul_context *ctx, const struct geul_tokenizer *tok,
                                              const char *text, size_t length, bool parse_special, bool open,
                                              int32_t **ids, size_t *count);
/* ctx: the one they were made with. */
GEUL_API void geul_tokens_free(struct geul_context *ctx, int32_t *ids);
/* The bytes of one id as they appear in a text, *length of them, not NUL-terminated; 0 for ids without a text or out of
 * range. Valid as long as tok. Special tokens give their text. */
GEUL_API const char *geul_token_text(const struct geul_tokenizer *tok, int32_t id, size_t *length);
/* Whether id is a special token; false for ids out of range. */
GEUL_API bool geul_token_is_special(const struct geul_tokenizer *tok, int32_t id);
/* The id whose exact text this is (special tokens included), -1 when there is none. */
GEUL_API int32_t geul_token_find(const struct geul_tokenizer *tok, const char *text, size_t length);
/* The token that ends a text, usually <|endoftext|>, -1 when the tokenizer has none. Where there are several it is the
 * first: the one that is put after a text that is learned. */
GEUL_API int32_t geul_token_end(const struct geul_tokenizer *tok);
/* All tokens that end a text: *ids, in order; returns how many. Valid as long as tok. */
GEUL_API int geul_token_ends(const struct geul_tokenizer *tok, const int32_t **ids);
/* Whether id is one of them; false for ids out of range. */
GEUL_API bool geul_token_is_end(const struct geul_tokenizer *tok, int32_t id);
/* Text of count ids, *length bytes and a NUL; free with geul_text_free(). NULL on failure. skip_special leaves special
 * tokens out; ids out of range give no text. Thread-safe like geul_tokenize(). */
GEUL_API char *geul_detokenize(struct geul_context *ctx, const struct geul_tokenizer *tok, const int32_t *ids,
                               size_t count, bool skip_special, size_t *length);
/* ctx: the one it was made with. */
GEUL_API void geul_text_free(struct geul_context *ctx, char *text);

/* Whether texts are brought into NFC, the composed form, before they become ids. Hangul from macOS is often decomposed
 * (NFD): it looks the same, but to a model that learned from composed text it is another, unknown text. */
enum geul_nfc {
    GEUL_NFC_AUTO, /* where the tokenizer does not bring texts into a normal form by itself */
    GEUL_NFC_ON,
    GEUL_NFC_OFF,
};
/* Whether texts for this tokenizer are to be brought into NFC: what AUTO comes to. */
GEUL_API bool geul_nfc_applies(const struct geul_tokenizer *tok, enum geul_nfc nfc);
/* The NFC of a text, *nfc_length bytes and a NUL; bytes that are not UTF-8 are kept. Free with geul_text_free(); NULL
 * when memory is short. Nothing else applies it on its own but geul_samples_read() and geul_shards_write(): a program
 * calls it on what its users write. */
GEUL_API char *geul_text_nfc(struct geul_context *ctx, const char *text, size_t length, size_t *nfc_length);

/* Streaming: bytes come in token by token, whole code points go out. A byte that can no longer become valid UTF-8 goes
 * out as U+FFFD. Plain data that owns no memory: zero it to start. */
struct geul_utf8_stream {
    unsigned char held[4];
    int n_held;
};
/* Appends length bytes; writes what is complete into out, which must hold 3 * (length + 4) bytes; returns how many
 * bytes it wrote. Not NUL-terminated. */
GEUL_API size_t geul_utf8_push(struct geul_utf8_stream *s, const char *bytes, size_t length, char *out);
/* The end of the text: what is held goes out as U+FFFD. out must hold 12 bytes; returns how many were written. */
GEUL_API size_t geul_utf8_finish(struct geul_utf8_stream *s, char *out);

/* ------------------------------------------------------------------------------------- model -- */
/* Stability: stable but for geul_model_options and geul_model_shape, which may still change (they may gain fields:
 * progress; other shapes of models). */

struct geul_model;

struct geul_session_options;

/* Values of n_gpu_layers; others are the number of layers. */
enum {
    GEUL_LAYERS_AUTO = 0,  /* as many as fit beside the planned sessions */
    GEUL_LAYERS_ALL = -1,  /* all, and the output */
    GEUL_LAYERS_NONE = -2, /* none: everything is on the CPU */
};

struct geul_model_options {
    int n_threads;                         /* of sessions that do not say; 0: one per core */
    const struct geul_regex_engine *regex; /* for tokenizers with unusual patterns; may be NULL */
    bool no_tokenizer;                     /* the tokenizer is not loaded: the model takes ids only */
    /* Where it lies and is computed. The layers on other devices than the CPU are the last ones; the output (the matrix
     * of logits) counts as one more after them, the embedding goes with the first layer when all layers are there.
     * A number that does not fit there is a failure, which says what would. */
    const char *devices; /* as in geul_runtime_options; NULL: the CPU alone */
    int n_gpu_layers;    /* on other devices than the CPU: a number, or GEUL_LAYERS_... */
    /* How the layers are shared among those devices, in their order: {3, 1} is three quarters and one. All 0: by the
     * memory that is free. */
    float tensor_split[7];
    /* The session, or the largest of those at a time, that room is kept for on them; read by geul_model_load() alone.
     * NULL: one with the default options. */
    const struct geul_session_options *session;
    size_t reserve_bytes; /* that are left free besides on each of them: for adapters, or a second session */
};

/* The shape of a GPT-NeoX model. */
struct geul_model_shape {
    int n_layers, d_model, d_ff, n_heads, d_head;
    int n_rot;     /* rotary dims per head */
    int n_context; /* positions it was trained for */
    int n_vocab;   /* rows of the embedding, padding included */
    float norm_eps, rope_base;
    bool parallel_residual;
    enum geul_gelu gelu;
    int64_t n_params;
};

/* Maps a GGUF file (the first part of a split one); weights stay in the file, which must not be truncated while the
 * model lives (the system would end the process with SIGBUS); renaming another file over it is fine. What lies on other
 * devices than the CPU is copied there. options may be NULL. NULL on failure. Free with geul_model_free(). */
GEUL_API struct geul_model *geul_model_load(struct geul_context *ctx, const char *path,
                                            const struct geul_model_options *options);
GEUL_API void geul_model_free(struct geul_model *model);
/* Valid as long as the model, as are the results of the next three. */
GEUL_API const struct geul_model_shape *geul_model_get_shape(const struct geul_model *model);
/* NULL when the file has no tokenizer or options said no_tokenizer. */
GEUL_API const struct geul_tokenizer *geul_model_get_tokenizer(const struct geul_model *model);
/* The prompt template that the file, or its last adapter with one, names or carries, for geul_template_new():
 * "koalpaca", "kullm", "kgoat" or a template text; NULL: none (a base model). */
GEUL_API const char *geul_model_get_template(const struct geul_model *model);
/* general.name of the file, "" when it has none. */
GEUL_API const char *geul_model_get_name(const struct geul_model *model);

/* Adds a low-rank adapter (LoRA) to what the model computes: scale * alpha / rank * B A x at every adapted product.
 * path is a GGUF file as geul, or llama.cpp's convert_lora_to_gguf.py, writes it; scale 1 is the adapter as it was
 * trained. Several adapters add up. Call it before the model's first session is made and while no other thread uses the
 * model. The weights, of any type, are unchanged. A prompt template in the adapter replaces the model's. On failure the
 * model is unchanged. */
GEUL_API enum geul_status geul_model_add_adapter(struct geul_context *ctx, struct geul_model *model, const char *path,
                                                 float scale);
/* The number of adapters added. */
GEUL_API int geul_model_adapter_count(const struct geul_model *model);

/* ----------------------------------------------------------------------------------- session -- */
/* Stability: may still change (geul_session_options and geul_batch_item may gain fields: adapters
 * per sequence; embeddings in addition to logits). */

struct geul_session;

struct geul_session_options {
    int n_context;             /* positions per sequence; 0: the model's */
    int n_sequences;           /* independent texts in the cache; 0: 1 */
    int n_batch;               /* most tokens computed at once; 0: 512 */
    enum geul_type cache_type; /* of keys and values: F32 (0), F16, BF16, or Q8_0 where d_head is a multiple of 32 */
    int n_threads;             /* that its calls compute with; 0: the model's */
    bool exact;                /* equal bits however texts are divided, on every device: see geul_session_eval() */
};

/* KV cache and working memory for evaluating texts. options may be NULL: as with all zero, but an F16 cache. NULL on
 * failure. Free with geul_session_free(). */
GEUL_API struct geul_session *geul_session_new(struct geul_context *ctx, const struct geul_model *model,
                                               const struct geul_session_options *options);
GEUL_API void geul_session_free(struct geul_session *s);
/* The model and the context that it was made with. */
GEUL_API const struct geul_model *geul_session_model(const struct geul_session *s);
GEUL_API struct geul_context *geul_session_context(const struct geul_session *s);
/* Tokens that sequence seq holds (0 when there is no such sequence), and how many each sequence can hold. */
GEUL_API int geul_session_length(const struct geul_session *s, int seq);
GEUL_API int geul_session_capacity(const struct geul_session *s);
/* Bytes of the KV cache. */
GEUL_API size_t geul_session_cache_bytes(const struct geul_session *s);

/* A token to append to a sequence. */
struct geul_batch_item {
    int32_t token;
    int32_t seq; /* 0 to n_sequences - 1 */
    bool want_logits;
};
/* Called once per item that wants logits, in order, on the calling thread: n_vocab floats, valid during the call; item
 * is its index. false stops with GEUL_ERROR_CANCELLED. */
typedef bool (*geul_logits_callback)(void *user, int item, const float *logits, int n_vocab);

/* Appends n items to their sequences and computes them together, in pieces of n_batch. A token's logits depend on the
 * tokens up to it in its sequence and on nothing else, to the last bit: not on how these were divided into calls and
 * pieces, not on other sequences computed in the same batch, and not on the number of threads. (They do depend on
 * weights, cache type, device and instruction set.) That holds on the CPU, and where the session is `exact` on every
 * device. Without it a GPU chooses, by how many tokens it computes at once, among kernels that add in different orders:
 * there the logits of the same text divided differently differ by roundings of its arithmetic, and with the same
 * division are equal to the last bit. callback may be NULL. On failure, geul_context_cancel() included, the sequences
 * keep their old lengths; after GEUL_ERROR_DEVICE, their contents are gone too. */
GEUL_API enum geul_status geul_session_eval(struct geul_session *s, const struct geul_batch_item *items, int n,
                                            geul_logits_callback callback, void *user);
/* The common case: appends n tokens to seq; *logits (n_vocab floats of the last token; NULL when n is 0) is valid until
 * the next call on s. logits may be NULL. On failure seq keeps its old length. */
GEUL_API enum geul_status geul_session_append(struct geul_session *s, int seq, const int32_t *tokens, int n,
                                              const float **logits);
/* Discards the tokens of seq from position length on; no effect if the sequence is shorter. */
GEUL_API void geul_session_truncate(struct geul_session *s, int seq, int length);
/* Makes sequence `to` an exact copy of sequence `from`. On failure it is empty, or as it was. */
GEUL_API enum geul_status geul_session_copy(struct geul_session *s, int from, int to);

/* ---------------------------------------------------------------------------------- sampling -- */
/* Stability: may still change (geul_sampling may gain fields; grammars that restrict what is chosen). */

/* A step from logits to the distribution that a token is drawn from. */
enum geul_sampling_step {
    GEUL_SAMPLING_END, /* ends an order */
    GEUL_SAMPLING_TOP_K,
    GEUL_SAMPLING_TYPICAL,
    GEUL_SAMPLING_TOP_P,
    GEUL_SAMPLING_MIN_P,
    GEUL_SAMPLING_TEMPERATURE,
    GEUL_SAMPLING_STEPS /* how many there are, with the end */
};

struct geul_sampling {
    float temperature;       /* <= 0: greedy */
    int top_k;               /* 0: off */
    float top_p;             /* 1: off */
    float min_p;             /* 0: off */
    float typical_p;         /* 1: off */
    float repeat_penalty;    /* 1: off; positive logits of seen tokens are divided by it, negative ones multiplied */
    float presence_penalty;  /* 0: off; subtracted once per seen token */
    float frequency_penalty; /* 0: off; subtracted per occurrence */
    int penalty_last_n;      /* how many of the last tokens count as seen; -1: all (of the last 2^20) */
    uint64_t seed;
    /* The steps in their order, after the penalties; one that is missing is not taken. All 0: llama.cpp's order, top-k,
     * typical, top-p, min-p, temperature. */
    enum geul_sampling_step order[GEUL_SAMPLING_STEPS];
};

/* Temperature 0.8, top-k 40, top-p 0.95, min-p 0.05, no penalties over the last 64 tokens, seed 0. */
GEUL_API struct geul_sampling geul_sampling_default(void);
/* Sets sampling->order from a text: "llama.cpp"; "hf", the order of transformers: temperature, top_k, top_p, min_p,
 * typ_p; or names of steps like these, separated by ; or , such as "top_k;temperature;top_p". What else llama.cpp's
 * default order names has no effect: "penalties", which come first in any case and nowhere else, "dry", "top_n_sigma"
 * and "xtc". On GEUL_ERROR_ARGUMENT, recorded in ctx, the order stays as it is. */
GEUL_API enum geul_status geul_sampling_set_order(struct geul_context *ctx, struct geul_sampling *sampling,
                                                  const char *order);

struct geul_sampler;
/* For logits of n_vocab floats; ids from n_allowed on (padding rows) are never chosen. sampling is copied; NULL: the
 * default. NULL on failure. Free with geul_sampler_free(). */
GEUL_API struct geul_sampler *geul_sampler_new(struct geul_context *ctx, const struct geul_sampling *sampling,
                                               int n_vocab, int n_allowed);
GEUL_API void geul_sampler_free(struct geul_sampler *sampler);
/* Chooses the next token and adds it to the history. Same seed, logits and history: same token on every platform. -1
 * when no logit is finite. Filters run in the order: penalties, top-k, typical, top-p, min-p, temperature. */
GEUL_API int32_t geul_sampler_next(struct geul_sampler *sampler, const float *logits);
/* Adds a token that the sampler did not choose (of the prompt) to the history, for the penalties. */
GEUL_API void geul_sampler_accept(struct geul_sampler *sampler, int32_t token);
/* Clears the history and restarts the random numbers from seed. */
GEUL_API void geul_sampler_reset(struct geul_sampler *sampler, uint64_t seed);

/* ------------------------------------------------------------------------------- speculation -- */
/* Stability: may still change (geul_speculation may gain fields). */

/* Speculative decoding: drafts tokens so that one evaluation may yield several. The generated text is the same with and
 * without, token by token, greedy and for every seed: each token is still chosen from the model's own logits, and
 * drafts that differ from the choice are discarded. On a GPU that takes a session that is `exact`; without it, logits
 * of several tokens at a time differ by roundings from those of one, and where two tokens are as good as equally likely
 * the other one may be chosen. A draft session need not be exact. */
struct geul_speculation {
    /* A session of a smaller model with the same tokenizer, with at least as many sequences and positions; the
     * speculator appends to it and truncates it. NULL: none. */
    struct geul_session *draft;
    bool lookup; /* prompt lookup: continues a passage as it continued earlier in the text; drafting is free */
    int n_max;   /* most tokens drafted at a time, 1 to 64 */
    int n_min;   /* shorter drafts are not tried */
    float p_min; /* the draft model stops where p1 / (p1 + p2) of its two best tokens is less; 0: never */
    bool always; /* n_max tokens every time; otherwise the length adapts to what has paid so far, down to 0 */
};

/* Neither draft nor lookup, lengths 1 to 16, p_min 0.75, not always. */
GEUL_API struct geul_speculation geul_speculation_default(void);

struct geul_speculator;
/* Drafts for s; serves one generation after the other and learns from them what pays. how is copied. NULL on failure,
 * with the reason in the context of s. Free with geul_speculator_free(), before both sessions. */
GEUL_API struct geul_speculator *geul_speculator_new(struct geul_session *s, const struct geul_speculation *how);
GEUL_API void geul_speculator_free(struct geul_speculator *p);

/* -------------------------------------------------------------------------------- generation -- */
/* Stability: may still change (geul_generation and geul_generation_result may gain fields: grammars,
 * log-probabilities). */

/* What ended a text: max_tokens; an end token; a stop string; a full sequence; on_text or geul_context_cancel(). */
enum geul_stop_reason { GEUL_STOP_LENGTH, GEUL_STOP_END_TOKEN, GEUL_STOP_STRING, GEUL_STOP_CONTEXT, GEUL_STOP_CALLER };

struct geul_generation {
    const struct geul_sampling *sampling; /* NULL: the default */
    int max_tokens;                       /* <= 0: no limit but the session's capacity */
    /* Strings that end the text; never part of it, not even their beginnings. One that is a special token's text ends
     * it at that token too, which gives no text. */
    const char *const *stop;
    int n_stop;
    bool ignore_end_token;              /* end tokens do not end the text */
    int seq;                            /* sequence of the session to continue */
    struct geul_speculator *speculator; /* made for the session; NULL: one token at a time */
    /* Receives the text as it is generated, in whole code points, not NUL-terminated, once no stop string can begin
     * there any more; false ends it (GEUL_STOP_CALLER). Both callbacks run on the calling thread. May be NULL. */
    bool (*on_text)(void *user, const char *text, size_t length);
    /* While the prompt is read, in tokens: many times in each piece of n_batch tokens, where the part that is done is
     * an estimate, and after it; false stops with GEUL_ERROR_CANCELLED. It must not use the session, and should return
     * soon: the session's other threads wait for it. May be NULL. */
    bool (*on_prompt)(void *user, int done, int total);
    void *user;
};

struct geul_generation_result {
    enum geul_stop_reason reason;
    int n_prompt, n_reused, n_generated; /* tokens; reused: of the prompt, that the session still held */
    int n_drafted, n_accepted;           /* by speculation; accepted: those the model itself chose */
    double prompt_seconds, generation_seconds;
    int32_t *tokens; /* generated ids, end token included; free with geul_tokens_free() */
    char *text;      /* the whole continuation, NUL-terminated; free with geul_text_free() */
    size_t text_length;
};

/* Continues prompt, which is NUL-terminated, after the tokens that the tokenizer puts before a text; special tokens in
 * it count as such; without any token the text begins after geul_token_end(). The longest prefix of the prompt's tokens
 * that the sequence already holds is not computed again; what follows it there is discarded. result may be NULL; on
 * failure it is all zeros, otherwise tokens and text belong to the caller, to be freed with the session's context. On
 * success the sequence holds the prompt and the continuation except its last token. geul_context_cancel() of the
 * session's context ends the text like an on_text that returns false; while the prompt is read it is a failure: the
 * sequence then holds the pieces of n_batch tokens that were evaluated, which the next call with this prompt finds
 * there. */
GEUL_API enum geul_status geul_generate(struct geul_session *s, const char *prompt, const struct geul_generation *how,
                                        struct geul_generation_result *result);
/* The same for n >= 1 ids. Without a tokenizer only tokens are generated: text is empty. */
GEUL_API enum geul_status geul_generate_ids(struct geul_session *s, const int32_t *ids, int n,
                                            const struct geul_generation *how, struct geul_generation_result *result);

/* --------------------------------------------------------------------------------- templates -- */
/* Stability: stable. */

/* An element of an array; it stays as it is. */
struct geul_turn {
    const char *question;
    const char *answer; /* such as geul_generation_result.text; NULL: the turn still waits for its answer */
};

/* A prompt template. */
struct geul_template;
/* name_or_text is "koalpaca", "kullm" or "kgoat", or a text with {instruction}, where needed {input}, and after them
 * {output} (at the end when it is missing). NULL when {instruction} is missing or comes after {output}. Free with
 * geul_template_free(). */
GEUL_API struct geul_template *geul_template_new(struct geul_context *ctx, const char *name_or_text);
GEUL_API void geul_template_free(struct geul_template *t);
/* One of the three names, or "file" for a text. */
GEUL_API const char *geul_template_name(const struct geul_template *t);
/* The prompt for a conversation of n turns, the last of them usually without an answer. input (extra context of the
 * first question) may be NULL; it is ignored where the template has no {input}. Finished turns end as the template
 * says, in those three with <|endoftext|>. White space at both ends of an answer is left out, as the template sets its
 * own, so that a session still holds the conversation that it wrote. NUL-terminated; free with geul_text_free(). NULL
 * on failure. */
GEUL_API char *geul_template_apply(struct geul_context *ctx, const struct geul_template *t,
                                   const struct geul_turn *turns, int n, const char *input);
/* The strings that end an answer under this template, for geul_generation.stop: *n of them, perhaps 0. Valid as long as
 * t. */
GEUL_API const char *const *geul_template_stops(const struct geul_template *t, int *n);

/* ---------------------------------------------------------------------------------- datasets -- */
/* Stability: stable. */

/* Training samples as token ids: single ones in memory, or windows of mapped shards. A target is a token that the model
 * learns to predict from those before it; the first token of a sample has nothing before it and is never a target. On
 * failure the dataset is unchanged. */
struct geul_dataset;

/* An empty dataset, NULL when memory is short. Free with geul_dataset_free(). */
GEUL_API struct geul_dataset *geul_dataset_new(struct geul_context *ctx);
GEUL_API void geul_dataset_free(struct geul_dataset *d);
/* Appends a copy of n >= 2 ids. target[i] says whether id i is a target; NULL: all of them are. A sample without any
 * target is refused. */
GEUL_API enum geul_status geul_dataset_add(struct geul_dataset *d, const int32_t *ids, const bool *target, int n);
/* Appends a question (with extra input, or NULL) and its answer in a template, ended by exactly one geul_token_end().
 * The prompt is tokenized separately, as it is in a conversation; the text of a special token inside question, input or
 * answer is ordinary text. Targets are the answer and that end token, with whole also the prompt. If the template has
 * no {input}, the input follows the question after a blank line. t may be NULL: question and answer are then simply
 * concatenated. An empty answer is refused. */
GEUL_API enum geul_status geul_dataset_add_answer(struct geul_dataset *d, const struct geul_tokenizer *tok,
                                                  const struct geul_template *t, const char *question,
                                                  const char *input, const char *answer, bool whole);
/* Appends a plain text, ended by one geul_token_end(); everything but the first token is a target. */
GEUL_API enum geul_status geul_dataset_add_text(struct geul_dataset *d, const struct geul_tokenizer *tok,
                                                const char *text, size_t length);
/* Maps a token shard (docs/training-data.md has the format), checks each of its ids once and appends its windows of
 * n_context + 1 tokens, each of which starts with the last token of the one before; the last window of a shard may be
 * shorter; a shard of a single token has none. */
GEUL_API enum geul_status geul_dataset_add_shard(struct geul_dataset *d, const char *path, int n_context);
/* The number of samples, and of all their tokens and targets. */
GEUL_API int64_t geul_dataset_sample_count(const struct geul_dataset *d);
GEUL_API int64_t geul_dataset_token_count(const struct geul_dataset *d);
GEUL_API int64_t geul_dataset_target_count(const struct geul_dataset *d);
/* Ids of sample i, 0 when there is no such sample. */
GEUL_API int geul_dataset_length(const struct geul_dataset *d, int64_t i);
/* Copies the first n ids of sample i, and which of them are targets; either may be NULL. i must exist and n must not
 * exceed its length. Safe to call from several threads. */
GEUL_API void geul_dataset_read(const struct geul_dataset *d, int64_t i, int n, int32_t *ids, bool *target);

/* ---------------------------------------------------------------------------------- training -- */
/* Stability: may still change (geul_train_options, geul_train_report and geul_train_estimate may gain fields; devices
 * and memory per device; several machines). */

/* Training a model, or a low-rank adapter of a model whose weights stay as they are in their file:
 *
 *     struct geul_train_options how = geul_train_options_default();
 *     how.model_path = "polyglot-ko-1.3b-q4_k_m.gguf";
 *     how.lora.rank = 8;
 *     struct geul_trainer *t = geul_trainer_new(ctx, &how, data);
 *     struct geul_train_report report;
 *     while (t && geul_trainer_total_steps(t) > geul_trainer_steps_done(t) && geul_trainer_step(t, &report) == GEUL_OK)
 *         printf("%lld: %.4f\n", (long long)report.step, report.loss);
 *     if (!t || geul_error(ctx)[0] || geul_trainer_export(t, "adapter.gguf", GEUL_TYPE_F32) != GEUL_OK)
 *         fprintf(stderr, "%s\n", geul_error(ctx));
 *     geul_trainer_free(t);
 *
 * Everything is a function of the options, the data and the step: the same run gives the same bits for every number of
 * threads, and one that was saved and loaded continues as if it had not been interrupted. */

/* GEUL_OPTIMIZER_ADAMW (0), _ADAMW8, ... as geul_optimizers.def lists them. */
enum geul_optimizer {
#define OPTIMIZER(id, name, title, state0, state1, beta1, beta2, epsilon, weight_decay) GEUL_OPTIMIZER_##id,
#include "geul_optimizers.def"
#undef OPTIMIZER
};
/* The learning rate after the warm-up. WSD (warm-up, stable, decay): constant, then falling at the end. */
enum geul_rate_schedule { GEUL_RATE_COSINE, GEUL_RATE_LINEAR, GEUL_RATE_CONSTANT, GEUL_RATE_WSD };
/* The matrices of a layer that have an adapter: attn_qkv, attn_output, ffn_up, ffn_down. */
enum { GEUL_LORA_QKV = 1, GEUL_LORA_OUT = 2, GEUL_LORA_UP = 4, GEUL_LORA_DOWN = 8, GEUL_LORA_ALL = 15 };

/* Activation recomputation. LIGHT recomputes norms, rotations and GELUs (about 2 % of the time), FULL everything but
 * the layers' outputs (about 30 %), NONE nothing. The results are bit-equal. */
enum geul_recompute { GEUL_RECOMPUTE_LIGHT, GEUL_RECOMPUTE_FULL, GEUL_RECOMPUTE_NONE };

struct geul_lora_options {
    int rank;         /* 0: no adapter, all weights are trained */
    float alpha;      /* B A is scaled by alpha / rank */
    float dropout;    /* on the adapter's input: probability, 0: none */
    bool rslora;      /* scaled by alpha / sqrt(rank) instead */
    unsigned targets; /* GEUL_LORA_... */
    /* A GGUF adapter to go on from, with new optimizer states; NULL: a new one. Its rank, alpha, rslora and targets are
     * taken from it: the fields above must be the same, or 0 (targets also GEUL_LORA_ALL). */
    const char *from; /* has to live as long as the trainer */
};

struct geul_train_options {
    const char *model_path;                /* a GGUF file; it is not changed */
    int n_threads;                         /* 0: one per core */
    const struct geul_regex_engine *regex; /* as in geul_model_options */
    struct geul_lora_options lora;
    enum geul_precision precision; /* of products: F32 or BF16; weights, sums and everything else are float32 */
    enum geul_recompute recompute;
    /* A step learns from n_accumulate batches. A batch holds n_batch samples, or with packing as many as fit n_batch *
     * n_context tokens. Samples never attend to each other. Longer samples are cut to n_context + 1 ids. */
    int n_context; /* 0: the model's */
    int n_batch, n_accumulate;
    bool packing;
    bool attend_across_documents; /* windows of shards: attend across documents; false: attention stops at end tokens */
    enum geul_optimizer optimizer;
    /* What they mean to each optimizer, and their ranges, is in geul_optimizers.def;
     * geul_train_options_set_optimizer() sets its usual values. Biases and norms have no weight decay. */
    float rate, beta1, beta2, epsilon, weight_decay;
    float clip; /* gradients are scaled down to this norm; 0: never */
    enum geul_rate_schedule schedule;
    float rate_floor;        /* where the schedule ends, as a share of rate */
    float decay_share;       /* WSD: share of the steps, at the end, over which the rate falls */
    int64_t warmup;          /* steps over which the rate rises from 0; -1: 3 % of all */
    int64_t steps;           /* 0: as many as epochs need */
    double epochs;           /* passes over the data, when steps is 0 */
    float smoothing, z_loss; /* as in geul_cross_entropy() */
    uint64_t seed;           /* of the order of samples, dropout and new adapters */
    int worker, n_workers;   /* this worker's number, and how many share the data; 0 and 0: alone */
    /* Called before an update with finite numbers, on the calling thread; false skips the update. May be NULL. */
    bool (*judge)(void *user, double loss, double grad_norm);
    void *user;
};

/* LoRA off, float32, light recomputation, batches of 4, AdamW (0.9, 0.95, 1e-8, decay 0.1), clip 1, rate 1e-4 with
 * 3 % warm-up (warmup -1) and cosine decay to a tenth, one epoch, packing. */
GEUL_API struct geul_train_options geul_train_options_default(void);
/* Sets an optimizer together with its usual beta1, beta2, epsilon and weight decay. A value outside the enum is left
 * for geul_trainer_new() to refuse. */
GEUL_API void geul_train_options_set_optimizer(struct geul_train_options *options, enum geul_optimizer optimizer);

/* The outcome of a step. */
enum geul_step_outcome {
    GEUL_STEP_APPLIED,
    GEUL_STEP_NOT_FINITE, /* loss or gradient was NaN or infinite; the weights are unchanged */
    GEUL_STEP_REFUSED,    /* judge returned false; the weights are unchanged */
};

struct geul_train_report {
    int64_t step;                     /* from 1 */
    double loss;                      /* mean over the targets, nats; without smoothing and z_loss */
    double rate, grad_norm;           /* the learning rate; the norm before clipping, NaN when NOT_FINITE */
    int64_t tokens, targets, samples; /* of this step */
    double epoch;                     /* passes over the data so far */
    double seconds;                   /* of this step */
    enum geul_step_outcome outcome;
    char where[96]; /* NOT_FINITE: the weight, layer or gradient where it began; otherwise "" */
};

struct geul_trainer;

/* Loads the model and makes what is trained and its optimizer states. options are copied; data must outlive the
 * trainer. NULL on failure, with the reason in ctx. Free with geul_trainer_free(). */
GEUL_API struct geul_trainer *geul_trainer_new(struct geul_context *ctx, const struct geul_train_options *options,
                                               const struct geul_dataset *data);
GEUL_API void geul_trainer_free(struct geul_trainer *t);
/* One optimizer step. report may be NULL. On failure (out of memory, cancelled) weights and step count are unchanged,
 * unless a device failed in the middle of the update. */
GEUL_API enum geul_status geul_trainer_step(struct geul_trainer *t, struct geul_train_report *report);
/* From the next step on the learning rate is scale (>= 0) times the schedule's: to go on more carefully after a
 * failure. 1 at first; not a part of what geul_trainer_save() keeps. */
GEUL_API void geul_trainer_scale_rate(struct geul_trainer *t, double scale);
/* The options in use: as given, with -1 for the warm-up replaced by its steps. Valid as long as t. */
GEUL_API const struct geul_train_options *geul_trainer_get_options(const struct geul_trainer *t);
/* Steps of the whole run, and steps done. */
GEUL_API int64_t geul_trainer_total_steps(const struct geul_trainer *t);
GEUL_API int64_t geul_trainer_steps_done(const struct geul_trainer *t);
/* Mean loss per target over a dataset, in nats, computed as in training, without dropout, smoothing and z_loss. NaN
 * without a target. */
GEUL_API enum geul_status geul_trainer_evaluate(struct geul_trainer *t, const struct geul_dataset *data, double *loss);
/* The model under training, for sessions that generate from it between steps. It belongs to the trainer. After a step
 * or a load a session's cache is stale: truncate it to 0. Free sessions before the trainer. No adapter can be added. */
GEUL_API struct geul_model *geul_trainer_model(struct geul_trainer *t);
/* Saves what resuming needs: trained weights, optimizer states, position in the data. Written atomically: until the
 * file is complete, an older one of that name stays. note: up to 4,000 bytes that the caller wants to keep with it; may
 * be NULL. */
GEUL_API enum geul_status geul_trainer_save(struct geul_trainer *t, const char *path, const void *note,
                                            size_t note_bytes);
/* Restores what a trainer with the same model and options saved. keep_position: weights and states only; position in
 * the data and step count stay (for rewinding after a failure). On failure t is unchanged, unless reading fails in the
 * middle: then it must be loaded again before the next step. note receives *note_bytes of what was kept with it and has
 * room for 4,000; both may be NULL. */
GEUL_API enum geul_status geul_trainer_load(struct geul_trainer *t, const char *path, bool keep_position, void *note,
                                            size_t *note_bytes);
/* Writes the result as a GGUF file for geul_model_load(), or for geul_model_add_adapter() with a rank: matrices in type
 * (F32, F16 or BF16; adapters are always F32). Written atomically. */
GEUL_API enum geul_status geul_trainer_export(struct geul_trainer *t, const char *path, enum geul_type type);
/* From any thread or signal handler: geul_context_cancel() of the trainer's context. The step or evaluation in
 * progress, or the next one, fails with GEUL_ERROR_CANCELLED; an update of the weights that has begun is completed. */
GEUL_API void geul_trainer_cancel(struct geul_trainer *t);

/* Estimated memory and time of a run, before anything large is allocated. */
struct geul_train_estimate {
    /* Bytes. weights: trained or copied; mapped: the part of the file that is read. */
    size_t weights, mapped;
    size_t gradients, states, activations, scratch, other;
    size_t total;     /* peak of resident memory */
    size_t available; /* memory of this machine that is free now; 0: unknown */
    int64_t trained;  /* parameters */
    int64_t tokens_per_step, steps;
    double seconds_per_step; /* from the speed of matrix products measured now; 0: not measured */
};
/* Fills *estimate for what geul_trainer_new() would make from the same arguments. measure: also the time per step,
 * which takes about a second. */
GEUL_API enum geul_status geul_train_estimate(struct geul_context *ctx, const struct geul_train_options *options,
                                              const struct geul_dataset *data, bool measure,
                                              struct geul_train_estimate *estimate);

#ifdef __cplusplus
}
#endif
#endif

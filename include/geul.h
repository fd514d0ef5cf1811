/* geul.h: run Polyglot-Ko and other GPT-NeoX models.
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
 * Conventions  Texts are UTF-8 with explicit lengths where NUL may occur. Token ids are int32_t.
 * Lifetime     A session keeps a reading hold on its model; free sessions before models, models before their context.
 * Errors       Calls return geul_status or NULL; the reason is in the context the object was made with. Each call that
 *              loads, evaluates or generates begins by clearing that context's last failure.
 * Threads      A model is read-only after loading and may serve sessions of several threads, each session with a
 *              context of its own. A session belongs to one thread at a time.
 */
#ifndef GEUL_H
#define GEUL_H

#include "geul_tensor.h"

#ifdef __cplusplus
extern "C" {
#endif

/* "0.1.0" */
GEUL_API const char *geul_version(void);

/* --------------------------------------------------------------------------------- tokenizer -- */

struct geul_tokenizer;

/* Matches regular expressions that are not among those geul has a scanner for. The geul command passes one made with
 * PCRE2; an application that loads such a tokenizer supplies its own. */
struct geul_regex_engine {
    /* Compiled pattern (UTF-8, Unicode properties), or NULL with a message in error (size bytes). */
    void *(*compile)(const char *pattern, size_t length, char *error, size_t size);
    /* The first match at or after start in text: true and [*from, *to) in bytes. */
    bool (*match)(void *compiled, const char *text, size_t length, size_t start, size_t *from, size_t *to);
    void (*free)(void *compiled);
};

/* Reads the tokenizer that a GGUF file carries. engine may be NULL. NULL on failure. */
GEUL_API struct geul_tokenizer *geul_tokenizer_load(struct geul_context *ctx, const char *gguf_path,
                                                    const struct geul_regex_engine *engine);
GEUL_API void geul_tokenizer_free(struct geul_tokenizer *tok);
/* Number of ids that have a text (padding rows of the model are not counted). */
GEUL_API int32_t geul_tokenizer_size(const struct geul_tokenizer *tok);
/* Splits any bytes (NUL and broken UTF-8 included) into ids. *ids is allocated, freed by geul_tokens_free().
 * parse_special: texts such as "<|endoftext|>" become their id (as HF does); otherwise they are ordinary text.
 * Safe to call from several threads on one tokenizer when each passes its own ctx. */
GEUL_API enum geul_status geul_tokenize(struct geul_context *ctx, const struct geul_tokenizer *tok, const char *text,
                                        size_t length, bool parse_special, int32_t **ids, size_t *count);
GEUL_API void geul_tokens_free(struct geul_context *ctx, int32_t *ids);
/* The bytes of one id as they appear in a text; not NUL-terminated; length 0 for ids without one. Valid as long as
 * tok. Special tokens give their text. */
GEUL_API const char *geul_token_text(const struct geul_tokenizer *tok, int32_t id, size_t *length);
GEUL_API bool geul_token_is_special(const struct geul_tokenizer *tok, int32_t id);
/* The id whose exact text this is (special tokens included), -1 when there is none. */
GEUL_API int32_t geul_token_find(const struct geul_tokenizer *tok, const char *text, size_t length);
/* The token that ends a text (<|endoftext|>), -1 when the tokenizer has none. */
GEUL_API int32_t geul_token_end(const struct geul_tokenizer *tok);
/* Text of ids; allocated and NUL-terminated; free with geul_text_free(). NULL on failure. skip_special leaves special
 * tokens out. */
GEUL_API char *geul_detokenize(struct geul_context *ctx, const struct geul_tokenizer *tok, const int32_t *ids,
                               size_t count, bool skip_special, size_t *length);
GEUL_API void geul_text_free(struct geul_context *ctx, char *text);

/* Streaming: bytes come in token by token, whole code points go out. A byte that can no longer become valid UTF-8 goes
 * out as U+FFFD. Plain data, no memory of its own: zero it to start. */
struct geul_utf8_stream {
    unsigned char held[4];
    int n_held;
};
/* Appends bytes; writes what is complete into out, which must hold 3 * (length + 4) bytes; returns its length. */
GEUL_API size_t geul_utf8_push(struct geul_utf8_stream *s, const char *bytes, size_t length, char *out);
/* The end of the text: what is held goes out as U+FFFD. out must hold 12 bytes. */
GEUL_API size_t geul_utf8_finish(struct geul_utf8_stream *s, char *out);

/* ------------------------------------------------------------------------------------- model -- */

struct geul_model;

struct geul_model_options {
    int n_threads;                         /* 0: one per core */
    const struct geul_regex_engine *regex; /* for unusual tokenizers; may be NULL */
    bool no_tokenizer;                     /* ids only */
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

/* Maps a GGUF file; weights stay in the file, which must not be cut short while the model lives (the system would end
 * the process with SIGBUS); replacing it by renaming another over it is fine. options may be NULL. NULL on failure. */
GEUL_API struct geul_model *geul_model_load(struct geul_context *ctx, const char *path,
                                            const struct geul_model_options *options);
GEUL_API void geul_model_free(struct geul_model *model);
GEUL_API const struct geul_model_shape *geul_model_get_shape(const struct geul_model *model);
/* NULL when the file has no tokenizer or it was not wanted. */
GEUL_API const struct geul_tokenizer *geul_model_get_tokenizer(const struct geul_model *model);
/* The chat template named or carried by the file: "koalpaca", "kullm", "kgoat", a template text, or NULL (a base
 * model). */
GEUL_API const char *geul_model_get_template(const struct geul_model *model);
/* general.name of the file, "" when it has none. */
GEUL_API const char *geul_model_get_name(const struct geul_model *model);

/* Adds a low-rank adapter (LoRA) to what the model computes: scale * alpha / rank * B A x at every adapted product.
 * path is a GGUF file as geul, or llama.cpp's convert_lora_to_gguf.py, writes it; scale is 1 to take it as it was
 * trained. Several add up. To be called before the model's first session is made. The weights themselves stay as they
 * are, of whatever type. A prompt template that the adapter brings takes the place of the model's. On failure the model
 * is as it was. */
GEUL_API enum geul_status geul_model_add_adapter(struct geul_context *ctx, struct geul_model *model, const char *path,
                                                 float scale);
/* How many were added. */
GEUL_API int geul_model_adapter_count(const struct geul_model *model);

/* ----------------------------------------------------------------------------------- session -- */

struct geul_session;

struct geul_session_options {
    int n_context;             /* positions per sequence; 0: the model's */
    int n_sequences;           /* independent texts in the cache; 0: 1 */
    int n_batch;               /* most tokens computed at once; 0: 512 */
    enum geul_type cache_type; /* of keys and values: F32 (0), F16, BF16, or Q8_0 where d_head is a multiple of 32 */
};

/* KV cache and working memory for evaluating texts. options may be NULL (f16 cache). NULL on failure. */
GEUL_API struct geul_session *geul_session_new(struct geul_context *ctx, const struct geul_model *model,
                                               const struct geul_session_options *options);
GEUL_API void geul_session_free(struct geul_session *s);
GEUL_API const struct geul_model *geul_session_model(const struct geul_session *s);
GEUL_API struct geul_context *geul_session_context(const struct geul_session *s);
/* Tokens that sequence seq holds, and how many it can. */
GEUL_API int geul_session_length(const struct geul_session *s, int seq);
GEUL_API int geul_session_capacity(const struct geul_session *s);
/* Bytes of the KV cache. */
GEUL_API size_t geul_session_cache_bytes(const struct geul_session *s);

/* A token to append to a sequence. */
struct geul_batch_item {
    int32_t token;
    int32_t seq;
    bool want_logits;
};
/* Called once per item that wants logits, in order: n_vocab floats, valid during the call. false stops. */
typedef bool (*geul_logits_callback)(void *user, int item, const float *logits, int n_vocab);

/* Appends items to their sequences and computes them together, in pieces of n_batch. A token's logits depend on the
 * tokens up to it in its sequence and on nothing else, to the last bit: not on how these were cut into calls and
 * pieces, not on what other sequences are computed beside it, and not on the number of threads. (They do depend on
 * weights, cache type and instruction set.) On failure the sequences keep their old lengths. */
GEUL_API enum geul_status geul_session_eval(struct geul_session *s, const struct geul_batch_item *items, int n,
                                            geul_logits_callback callback, void *user);
/* The common case: appends n tokens to seq; *logits (n_vocab floats of the last token) is valid until the next call on
 * s. logits may be NULL. */
GEUL_API enum geul_status geul_session_append(struct geul_session *s, int seq, const int32_t *tokens, int n,
                                              const float **logits);
/* Forgets everything from position length on. Longer than the sequence: no effect. */
GEUL_API void geul_session_truncate(struct geul_session *s, int seq, int length);
/* Makes sequence to an exact copy of sequence from. */
GEUL_API enum geul_status geul_session_copy(struct geul_session *s, int from, int to);

/* ---------------------------------------------------------------------------------- sampling -- */

struct geul_sampling {
    float temperature;       /* <= 0: greedy */
    int top_k;               /* 0: off */
    float top_p;             /* 1: off */
    float min_p;             /* 0: off */
    float typical_p;         /* 1: off */
    float repeat_penalty;    /* 1: off; logits of seen tokens are divided (> 0) or multiplied (< 0) by it */
    float presence_penalty;  /* 0: off; subtracted once per seen token */
    float frequency_penalty; /* 0: off; subtracted per occurrence */
    int penalty_last_n;      /* how many tokens count as seen; -1: all */
    uint64_t seed;
};

/* Temperature 0.8, top-k 40, top-p 0.95, min-p 0.05, no penalties over the last 64 tokens, seed 0. */
GEUL_API struct geul_sampling geul_sampling_default(void);

struct geul_sampler;
/* n_allowed: ids from n_allowed on (padding rows) are never chosen. NULL on failure. */
GEUL_API struct geul_sampler *geul_sampler_new(struct geul_context *ctx, const struct geul_sampling *sampling,
                                               int n_vocab, int n_allowed);
GEUL_API void geul_sampler_free(struct geul_sampler *sampler);
/* Chooses the next token and remembers it. Same seed, logits and history: same token on every platform. -1 when no
 * logit is finite. Filters run in the order: penalties, top-k, typical, top-p, min-p, temperature. */
GEUL_API int32_t geul_sampler_next(struct geul_sampler *sampler, const float *logits);
/* Tells the sampler of a token it did not choose (the prompt), for the penalties. */
GEUL_API void geul_sampler_accept(struct geul_sampler *sampler, int32_t token);
/* Forgets the history and starts the random numbers again from seed. */
GEUL_API void geul_sampler_reset(struct geul_sampler *sampler, uint64_t seed);

/* ------------------------------------------------------------------------------- speculation -- */

/* Guesses tokens ahead, so that one evaluation may yield several. What is generated is the same with and without, token
 * by token, in greedy mode and for every seed: each token is still chosen from the model's own logits, and guesses that
 * differ from the choice are dropped. */
struct geul_speculation {
    /* A session of a smaller model with the same tokenizer, with at least as many sequences and positions; the
     * speculator evaluates and truncates it as it likes. NULL: none. */
    struct geul_session *draft;
    bool lookup; /* guesses that passages which begin as before go on as before; costs nothing to make */
    int n_max;   /* most tokens guessed at a time, 1 to 64 */
    int n_min;   /* shorter guesses are not tried */
    float p_min; /* the draft model stops where p1 / (p1 + p2) of its two best tokens is less; 0: never */
    bool always; /* n_max tokens every time; otherwise as many as were worth it so far, perhaps none */
};

/* Neither draft nor lookup, lengths 1 to 16, p_min 0.75, not always. */
GEUL_API struct geul_speculation geul_speculation_default(void);

struct geul_speculator;
/* Speculates for s; serves one generation after the other and learns from them what pays. NULL on failure, with the
 * reason in the context of s. Free before both sessions. */
GEUL_API struct geul_speculator *geul_speculator_new(struct geul_session *s, const struct geul_speculation *how);
GEUL_API void geul_speculator_free(struct geul_speculator *p);

/* -------------------------------------------------------------------------------- generation -- */

enum geul_stop_reason { GEUL_STOP_LENGTH, GEUL_STOP_END_TOKEN, GEUL_STOP_STRING, GEUL_STOP_CONTEXT, GEUL_STOP_CALLER };

struct geul_generation {
    const struct geul_sampling *sampling; /* NULL: the default */
    int max_tokens;                       /* <= 0: until something else stops it */
    const char *const *stop;              /* strings that end the text; never printed, not even partly */
    int n_stop;
    bool ignore_end_token;
    int seq;                            /* sequence of the session to continue */
    struct geul_speculator *speculator; /* made for the session; NULL: one token at a time */
    /* Whole code points as they become certain; false stops. May be NULL. */
    bool (*on_text)(void *user, const char *text, size_t length);
    /* After each evaluated piece of the prompt; false stops with GEUL_ERROR_CANCELLED. May be NULL. */
    bool (*on_prompt)(void *user, int done, int total);
    void *user;
};

struct geul_generation_result {
    enum geul_stop_reason reason;
    int n_prompt, n_reused, n_generated; /* reused: prompt tokens that the session still held */
    int n_drafted, n_accepted;           /* by speculation; accepted: as the model would have chosen */
    double prompt_seconds, generation_seconds;
    int32_t *tokens; /* generated ids, end token included; free with geul_tokens_free() */
    char *text;      /* the whole continuation; free with geul_text_free() */
    size_t text_length;
};

/* Continues prompt. The longest prefix of the prompt's tokens that the session already holds is not computed again.
 * result may be NULL; on failure it is all zeros. The session then holds the prompt and the continuation but
 * for its last token. */
GEUL_API enum geul_status geul_generate(struct geul_session *s, const char *prompt, const struct geul_generation *how,
                                        struct geul_generation_result *result);
/* The same for ids. */
GEUL_API enum geul_status geul_generate_ids(struct geul_session *s, const int32_t *ids, int n,
                                            const struct geul_generation *how, struct geul_generation_result *result);

/* --------------------------------------------------------------------------------- templates -- */

struct geul_turn {
    const char *question;
    const char *answer; /* NULL for the turn that waits for its answer */
};
/* A prompt template: "koalpaca", "kullm", "kgoat", or a text holding {instruction} and, behind it, {output}
 * (and {input} if it takes one). NULL when it holds no {instruction}. */
struct geul_template;
GEUL_API struct geul_template *geul_template_new(struct geul_context *ctx, const char *name_or_text);
GEUL_API void geul_template_free(struct geul_template *t);
GEUL_API const char *geul_template_name(const struct geul_template *t);
/* The prompt for a conversation of n turns; the last one has no answer. input (extra context) may be NULL. Finished
 * turns end with <|endoftext|>. Allocated; free with geul_text_free(). NULL on failure. */
GEUL_API char *geul_template_apply(struct geul_context *ctx, const struct geul_template *t,
                                   const struct geul_turn *turns, int n, const char *input);
/* The strings that end an answer under this template; *n of them. */
GEUL_API const char *const *geul_template_stops(const struct geul_template *t, int *n);

/* ---------------------------------------------------------------------------------- datasets -- */

/* Training samples as token ids: kept in memory one by one, or windows of mapped shards. A target is a token that the
 * model learns to predict from those before it; the first token of a sample has nothing before it and is never one. */
struct geul_dataset;

/* An empty dataset, NULL when memory is short. Free with geul_dataset_free(). */
GEUL_API struct geul_dataset *geul_dataset_new(struct geul_context *ctx);
GEUL_API void geul_dataset_free(struct geul_dataset *d);
/* Appends a copy of n >= 2 ids. target[i] says whether id i is a target; NULL: all of them are. A sample without any
 * target is refused. */
GEUL_API enum geul_status geul_dataset_add(struct geul_dataset *d, const int32_t *ids, const bool *target, int n);
/* Appends a question (with extra input, or NULL) and its answer in a template, ended by exactly one <|endoftext|>. The
 * prompt is tokenized by itself, as it is when the model is asked; the text of a special token inside question, input
 * or answer is ordinary text. Targets are the answer and that end; with whole also the prompt. An input for which the
 * template has no place follows the question after a blank line. t may be NULL: question and answer are then joined as
 * they are. An empty answer is refused. */
GEUL_API enum geul_status geul_dataset_add_answer(struct geul_dataset *d, const struct geul_tokenizer *tok,
                                                  const struct geul_template *t, const char *question,
                                                  const char *input, const char *answer, bool whole);
/* Appends a plain text, ended by one <|endoftext|>; everything is a target. */
GEUL_API enum geul_status geul_dataset_add_text(struct geul_dataset *d, const struct geul_tokenizer *tok,
                                                const char *text, size_t length);
/* Maps a token shard written by `geul tokenize --shards`, looks at each of its ids once and appends its windows of
 * n_context + 1 tokens, each of which begins with the last token of the one before; what is left at the end of a shard
 * is a shorter window; a single token is none. */
GEUL_API enum geul_status geul_dataset_add_shard(struct geul_dataset *d, const char *path, int n_context);
/* Samples, and all their tokens and targets. */
GEUL_API int64_t geul_dataset_sample_count(const struct geul_dataset *d);
GEUL_API int64_t geul_dataset_token_count(const struct geul_dataset *d);
GEUL_API int64_t geul_dataset_target_count(const struct geul_dataset *d);
/* Ids of sample i, 0 when there is no such sample. */
GEUL_API int geul_dataset_length(const struct geul_dataset *d, int64_t i);
/* Copies the first n ids of sample i, and which of them are targets; either may be NULL. i must exist and n must not
 * exceed its length. Safe to call from several threads. */
GEUL_API void geul_dataset_read(const struct geul_dataset *d, int64_t i, int n, int32_t *ids, bool *target);

/* ---------------------------------------------------------------------------------- training -- */

/* Training a model, or a low-rank adapter beside a model that stays as it is in its file:
 *
 *     struct geul_train_options how = geul_train_options_default();
 *     how.model_path = "polyglot-ko-1.3b-q4_k_m.gguf";
 *     how.lora.rank = 8;
 *     struct geul_trainer *t = geul_trainer_new(ctx, &how, data);
 *     struct geul_train_report report;
 *     while (t && geul_trainer_total_steps(t) > geul_trainer_steps_done(t) && geul_trainer_step(t, &report) == GEUL_OK)
 *         printf("%lld: %.4f\n", (long long)report.step, report.loss);
 *     geul_trainer_export(t, "adapter.gguf", GEUL_TYPE_F32);
 *
 * Everything is a function of the options, the data and the step: the same run gives the same bits whatever the number
 * of threads, and one that was saved and loaded goes on as if it had not been interrupted. */

/* GEUL_OPTIMIZER_ADAMW (0), _ADAMW8, ... as geul_optimizers.def lists them. */
enum geul_optimizer {
#define OPTIMIZER(id, name, title, state0, state1, beta1, beta2, epsilon, weight_decay) GEUL_OPTIMIZER_##id,
#include "geul_optimizers.def"
#undef OPTIMIZER
};
enum geul_rate_schedule { GEUL_RATE_COSINE, GEUL_RATE_LINEAR, GEUL_RATE_CONSTANT, GEUL_RATE_WSD };
enum { GEUL_LORA_QKV = 1, GEUL_LORA_OUT = 2, GEUL_LORA_UP = 4, GEUL_LORA_DOWN = 8, GEUL_LORA_ALL = 15 };

/* What of the forward pass is kept for the gradients, and what is computed again: only norms, rotations and GELUs,
 * which costs about 2 % of the time; everything but the layers' outputs, about 30 %; nothing. The results are the same
 * bits. */
enum geul_recompute { GEUL_RECOMPUTE_LIGHT, GEUL_RECOMPUTE_FULL, GEUL_RECOMPUTE_NONE };

struct geul_lora_options {
    int rank;         /* 0: no adapter, all weights are trained */
    float alpha;      /* the adapter's part is scaled by alpha / rank */
    float dropout;    /* of what enters the adapter */
    bool rslora;      /* alpha / sqrt(rank) instead */
    unsigned targets; /* GEUL_LORA_... */
};

struct geul_train_options {
    const char *model_path; /* a GGUF file; it is not changed */
    int n_threads;          /* 0: one per core */
    const struct geul_regex_engine *regex;
    struct geul_lora_options lora;
    enum geul_precision precision; /* of products: F32 or BF16; weights, sums and everything else are float32 */
    enum geul_recompute recompute;
    /* A step learns from n_accumulate batches. A batch holds n_batch samples, or with packing as many as fit n_batch *
     * n_context tokens. Samples never see each other. Longer samples are cut to n_context + 1 ids. */
    int n_context; /* 0: the model's */
    int n_batch, n_accumulate;
    bool packing;
    bool attend_across_documents; /* in windows of shards tokens see beyond the end tokens, which else part documents */
    enum geul_optimizer optimizer;
    /* What each optimizer takes them for, and what it allows, is in geul_optimizers.def; its usual values come with
     * geul_train_options_set_optimizer(). Decay spares biases and norms. */
    float rate, beta1, beta2, epsilon, weight_decay;
    float clip; /* largest gradient norm; 0: any */
    enum geul_rate_schedule schedule;
    float rate_floor;  /* what the schedule ends at, as a share of rate */
    float decay_share; /* WSD: share of the steps at the end over which the rate falls */
    int64_t warmup;    /* steps over which the rate rises from 0 */
    int64_t steps;     /* 0: as many as epochs need */
    double epochs;     /* passes over the data, when steps is 0 */
    float smoothing, z_loss;
    uint64_t seed;
    int worker, n_workers; /* this one's number, and how many share the data; 0 and 0: alone */
    /* Asked before an update, with finite numbers: false leaves the step out. May be NULL. */
    bool (*judge)(void *user, double loss, double grad_norm);
    void *user;
};

/* LoRA off, float32, light recomputation, batches of 4, AdamW (0.9, 0.95, 1e-8, decay 0.1), clip 1, rate 1e-4 falling
 * as a cosine to a tenth after 3 % warm-up (warmup -1), one epoch, packing. */
GEUL_API struct geul_train_options geul_train_options_default(void);
/* Chooses an optimizer together with its usual beta1, beta2, epsilon and weight decay. A value outside the enum is left
 * for geul_trainer_new() to refuse. */
GEUL_API void geul_train_options_set_optimizer(struct geul_train_options *options, enum geul_optimizer optimizer);

/* What became of a step. */
enum geul_step_outcome {
    GEUL_STEP_APPLIED,
    GEUL_STEP_NOT_FINITE, /* loss or gradient was NaN or infinite; the weights are as before */
    GEUL_STEP_REFUSED,    /* judge did not want it; the weights are as before */
};

struct geul_train_report {
    int64_t step; /* from 1 */
    double loss;  /* mean over the targets, nats; without smoothing and z */
    double rate, grad_norm;
    int64_t tokens, targets, samples;
    double epoch; /* passes over the data so far */
    double seconds;
    enum geul_step_outcome outcome;
    char where[96]; /* of a step that was not applied: the weight, layer or gradient where it began */
};

struct geul_trainer;

/* Loads the model, makes states and what is trained. data must outlive the trainer. NULL on failure, with the reason in
 * ctx.
 */
GEUL_API struct geul_trainer *geul_trainer_new(struct geul_context *ctx, const struct geul_train_options *options,
                                               const struct geul_dataset *data);
GEUL_API void geul_trainer_free(struct geul_trainer *t);
/* One optimizer step. On failure (out of memory, cancelled) the weights are as before, unless a device failed in the
 * middle of the update. */
GEUL_API enum geul_status geul_trainer_step(struct geul_trainer *t, struct geul_train_report *report);
/* The options in use: as they were given, but with the warm-up that -1 stands for. Valid as long as t. */
GEUL_API const struct geul_train_options *geul_trainer_get_options(const struct geul_trainer *t);
/* Steps in all, and done so far. */
GEUL_API int64_t geul_trainer_total_steps(const struct geul_trainer *t);
GEUL_API int64_t geul_trainer_steps_done(const struct geul_trainer *t);
/* Mean loss per target over a dataset, computed as in training, without dropout. */
GEUL_API enum geul_status geul_trainer_evaluate(struct geul_trainer *t, const struct geul_dataset *data, double *loss);
/* The model under training, for sessions that generate from it between steps. After a step or a load what a session
 * holds is of other weights: truncate it to 0. Free sessions before the trainer. It takes no other adapter. */
GEUL_API struct geul_model *geul_trainer_model(struct geul_trainer *t);
/* Everything that is needed to go on: weights, states, the place in the data. Appears whole or not at all; an older
 * file of that name stays until then. note: up to 4,000 bytes of the caller's own, kept with it; may be NULL. */
GEUL_API enum geul_status geul_trainer_save(struct geul_trainer *t, const char *path, const void *note,
                                            size_t note_bytes);
/* Takes up what was saved by a trainer with the same model and options. keep_position: weights and states only, the
 * place in the data and the step count stay (for going back to before a mishap). On failure t is as before, unless
 * reading breaks off in the middle: then it must be loaded again before the next step. note (4,000 bytes) and
 * *note_bytes may be NULL. */
GEUL_API enum geul_status geul_trainer_load(struct geul_trainer *t, const char *path, bool keep_position, void *note,
                                            size_t *note_bytes);
/* The result, for geul_model_load() or geul_model_add_adapter(): matrices in type (F32, F16 or BF16; adapters are F32).
 */
GEUL_API enum geul_status geul_trainer_export(struct geul_trainer *t, const char *path, enum geul_type type);
/* From any thread or signal handler: the step or evaluation in work, or else the next, ends before its next batch or
 * its update with GEUL_ERROR_CANCELLED. */
GEUL_API void geul_trainer_cancel(struct geul_trainer *t);

/* What a run will need, told before anything large is allocated. */
struct geul_train_estimate {
    size_t weights, mapped; /* bytes: trained or copied weights; of the file, mapped as it is used */
    size_t gradients, states, activations, scratch, other;
    size_t total;     /* of resident memory at its peak */
    size_t available; /* of this machine, now; 0: unknown */
    int64_t trained;  /* parameters */
    int64_t tokens_per_step, steps;
    double seconds_per_step; /* from the speed of products measured now; 0: was not measured */
};
/* measure: also estimates the time, in about a second. */
GEUL_API enum geul_status geul_train_estimate(struct geul_context *ctx, const struct geul_train_options *options,
                                              const struct geul_dataset *data, bool measure,
                                              struct geul_train_estimate *estimate);

#ifdef __cplusplus
}
#endif
#endif

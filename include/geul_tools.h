/* geul_tools.h: converting, quantizing, merging and measuring models, training data and logs: libgeul-tools.
 *
 *     struct geul_context *ctx = geul_context_new(NULL);
 *     struct geul_convert_options f16 = {.size = sizeof f16, .type = GEUL_TYPE_F16};
 *     struct geul_quantize_options how = {.size = sizeof how, .mix = geul_mix_find("q4_k_m")};
 *     struct geul_quantize *q = NULL;
 *     if (geul_convert_hf(ctx, "polyglot-ko-1.3b", "f16.gguf", &f16) == GEUL_OK)
 *         q = geul_quantize_new(ctx, "f16.gguf", &how);
 *     if (!q || geul_quantize_write(q, "q4_k_m.gguf") != GEUL_OK)
 *         fprintf(stderr, "%s\n", geul_error(ctx));
 *     geul_quantize_free(q);
 *     geul_context_free(ctx);
 *
 * Conventions  Texts, lifetime, errors, threads and stability are as geul.h has them.
 * Structs      Options and reports begin with their size, which the caller sets:
 *                  struct geul_journal_options o = {.size = sizeof o};
 *              Zero is the default of every field unless it says otherwise. Fields can be added at the end without
 *              breaking programs: what an older program does not know is zero, and what an older library does not know
 *              must be zero, or the call fails. Structs without a size do not change, unless they say so.
 * Pointers     A context, model, tokenizer, dataset, path or directory must not be NULL, nor an object that a function
 *              works on or a struct that it fills; the functions that free and close accept NULL. An array or text may
 *              be NULL if its length is 0. Where NULL means something else, it says so. A missing array, element or
 *              text is a GEUL_ERROR_ARGUMENT that names it, as is a number out of range (n_threads: 0 to 1024).
 * Progress     A callback gets what is done and the total; false stops the work, which then fails with
 *              GEUL_ERROR_CANCELLED. It is called on the thread that called the function. May be NULL.
 *              geul_context_cancel() stops the same work between two calls, too.
 * Files        Other than logs are written atomically: until one is complete, an older file of that name stays.
 */
#ifndef GEUL_TOOLS_H
#define GEUL_TOOLS_H

#include "geul.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ----------------------------------------------------------------------- regular expressions -- */
/* Stability: stable. */

/* PCRE2 as the engine for tokenizers with unusual patterns: geul_model_options.regex. One static object, which serves
 * any number of tokenizers and threads; never NULL. Patterns know Unicode properties; subjects may be any bytes; a
 * match that would take unreasonably long counts as none. \s and \w mean what they mean to Oniguruma, which Hugging
 * Face uses. */
GEUL_API const struct geul_regex_engine *geul_regex_pcre2(void);

/* ------------------------------------------------------------------ Hugging Face directories -- */
/* Stability: stable. */

/* The form of GELU: as config.json says, or one of the two regardless of it. */
enum geul_convert_gelu { GEUL_CONVERT_GELU_CONFIG, GEUL_CONVERT_GELU_ERF, GEUL_CONVERT_GELU_TANH };

struct geul_convert_options {
    size_t size;
    enum geul_type type; /* of the matrices: any of geul_convert_type_at(); for others see geul_quantize_new() */
    enum geul_convert_gelu gelu;
    const char *name; /* general.name; NULL: the directory's name */
    int n_threads;    /* 0: one per core */
    /* Bytes of the checkpoint. */
    bool (*progress)(void *user, uint64_t done, uint64_t total);
    void *user;
    bool no_tokenizer; /* the file holds no texts, ids only; otherwise a tokenizer that cannot be read is a failure */
    bool strict;       /* values that are not finite in the output are a failure, not a warning */
};

/* Number i of the types that geul_convert_hf() can write; GEUL_TYPE_COUNT after the last. Any thread. */
GEUL_API enum geul_type geul_convert_type_at(size_t i);

/* Converts the Hugging Face directory of a GPT-NeoX model, with its tokenizer, into a GGUF file. options may be NULL.
 *
 * Matrices get options->type; biases and norms are float32; a matrix whose rows are not a multiple of the block is
 * float16. With blocks of 4 or 5 bits the output matrix is q8_0: it decides every token, no activation after it softens
 * an error, and llama.cpp's users expect a better type there. token_embd is treated like the other matrices. A model
 * whose output is the embedding gets a copy of it, and one without attention biases zeros, because llama.cpp asks for
 * them; geul.tied_embeddings and geul.attention_bias say so, by which training and exporting go.
 *
 * What GGUF has no standard keys for is kept in tokenizer.huggingface.json, geul.hf.config and similar ones, so that
 * geul_export_hf() can restore the directory. */
GEUL_API enum geul_status geul_convert_hf(struct geul_context *ctx, const char *dir, const char *out_path,
                                          const struct geul_convert_options *options);

/* KEEP: the type of the matrices in the file, float16 if they are quantized; norms and biases that it would change are
 * written as float32, and then config.json says float32, so that transformers keeps them. */
enum geul_export_dtype { GEUL_EXPORT_KEEP, GEUL_EXPORT_F32, GEUL_EXPORT_F16, GEUL_EXPORT_BF16 };

struct geul_export_options {
    size_t size;
    enum geul_export_dtype dtype; /* but for KEEP, of every tensor, norms and biases too */
    uint64_t max_shard_bytes;     /* 0: 5 GB */
    int n_threads;                /* 0: one per core */
    /* Bytes of the output. */
    bool (*progress)(void *user, uint64_t done, uint64_t total);
    void *user;
    bool strict; /* values that are not finite in the output are a failure, not a warning */
};

/* Writes into dir (created when missing) model.safetensors, or shards with their index if it would be larger than
 * max_shard_bytes; config.json (the original one if the file kept it, with dtype and activation corrected);
 * tokenizer.json and its companions if they were kept. The weights are written last. options may be NULL. */
GEUL_API enum geul_status geul_export_hf(struct geul_context *ctx, const char *gguf_path, const char *dir,
                                         const struct geul_export_options *options);

/* -------------------------------------------------------------------------------- new models -- */
/* Stability: stable. */

/* How the weights of a new model are drawn. SMALL: as in EleutherAI's GPT-NeoX, with standard deviation
 * sqrt(2 / (5 d_model)) (Nguyen and Salazar 2019), and 2 / (n_layers sqrt(d_model)) for matrices whose products are
 * added to the residual stream (Wang and Komatsuzaki 2021). NORMAL: as in transformers, with 0.02 everywhere. */
enum geul_init { GEUL_INIT_SMALL, GEUL_INIT_NORMAL };

/* tokenizer, n_layers, d_model and n_heads must be set; d_model must be a multiple of n_heads. */
struct geul_new_model_options {
    size_t size;
    const char *tokenizer; /* a GGUF file with a tokenizer, a tokenizer.json, or a directory with one */
    int n_layers, d_model, n_heads;
    int d_ff;      /* 0: 4 * d_model */
    int n_rot;     /* rotary dimensions per head, even; 0: half of them; -1: none */
    int n_context; /* positions that it will be trained for; 0: 2048 */
    int n_vocab;   /* rows of the embedding; 0: as many as the tokenizer needs, a multiple of 64 */
    enum geul_gelu gelu;
    bool sequential_residual; /* feed-forward after attention instead of parallel to it */
    enum geul_init init;
    uint64_t seed;
    const char *name; /* general.name; NULL: "geul" */
    /* Bytes of the file. */
    bool (*progress)(void *user, uint64_t done, uint64_t total);
    void *user;
};

/* Writes a GPT-NeoX model with random weights, a float32 GGUF file for geul_trainer_new() to start from. Biases are 0,
 * and norms scale by 1; the same options give the same bytes. path must not be the tokenizer's file. Nothing is written
 * where the file would not find room. */
GEUL_API enum geul_status geul_new_model_write(struct geul_context *ctx, const char *path,
                                               const struct geul_new_model_options *options);
/* Bytes that the file would have; 0 on failure. */
GEUL_API uint64_t geul_new_model_bytes(struct geul_context *ctx, const struct geul_new_model_options *options);

/* The tokenizer of a tokenizer.json file, or of a Hugging Face directory as transformers' AutoTokenizer reads it
 * (tokenizer.json, or vocab.json with merges.txt, and the files that add tokens and settings), with PCRE2 for unusual
 * patterns. NULL on failure; free with geul_tokenizer_free(). */
GEUL_API struct geul_tokenizer *geul_tokenizer_from_json(struct geul_context *ctx, const char *path);

/* ---------------------------------------------------------------------------------- adapters -- */
/* Stability: stable. */

/* Low-rank adapters (LoRA) come as GGUF files, which geul_model_add_adapter() reads, and as directories of Hugging
 * Face's PEFT: adapter_config.json with adapter_model.safetensors or adapter_model.bin. */

/* Whether path is a directory with an adapter_config.json, that is, of PEFT. */
GEUL_API bool geul_peft_is(const char *path);
/* Whether path is a directory with the weights of a whole model, beside those of an adapter or without any: trainers
 * and merging tools leave an adapter_config.json beside a model. geul_convert_hf() converts the model,
 * geul_convert_peft() the adapter. */
GEUL_API bool geul_peft_has_model(const char *path);

struct geul_peft_options {
    size_t size;
    /* The model that the adapter is for, a GGUF file or a Hugging Face directory; its number of heads determines the
     * order of rows. NULL: as the adapter itself says; a PEFT directory may hold a config.json or name a directory on
     * this machine. */
    const char *base;
    const char *name; /* general.name of a GGUF file; NULL: the directory's name */
};

/* Converts a PEFT directory into a GGUF file, in float32. options may be NULL. */
GEUL_API enum geul_status geul_convert_peft(struct geul_context *ctx, const char *dir, const char *out_path,
                                            const struct geul_peft_options *options);
/* Writes a GGUF adapter into a PEFT directory, created when missing; its configuration is written last. options may be
 * NULL. */
GEUL_API enum geul_status geul_export_peft(struct geul_context *ctx, const char *gguf_path, const char *dir,
                                           const struct geul_peft_options *options);
/* geul_model_add_adapter() for a GGUF file or a PEFT directory, under the same conditions. */
GEUL_API enum geul_status geul_model_add_any_adapter(struct geul_context *ctx, struct geul_model *model,
                                                     const char *path, float scale);

/* ----------------------------------------------------------------------- importance matrices -- */
/* Stability: stable. */

/* How much each input of each matrix matters: the mean of its squares over a text. A rounded weight w' adds the error
 * (w - w')[j] * x[j] to the output, so its square is weighted by the mean of x[j]^2. Read-only once loaded. */
struct geul_imatrix;

/* Reads a file in llama.cpp's GGUF form (general.type "imatrix") or its older .dat form. NULL if it is missing or
 * broken. Free with geul_imatrix_free(). */
GEUL_API struct geul_imatrix *geul_imatrix_load(struct geul_context *ctx, const char *path);
GEUL_API void geul_imatrix_free(struct geul_imatrix *m);

/* Collecting one: for every weight matrix of a model, the sum of squares of each of its inputs over the tokens of
 * texts.
 *
 *     struct geul_importance *m = geul_importance_new(ctx);
 *     if (!m || geul_importance_collect_text(m, model, text, length, NULL) != GEUL_OK ||
 *         geul_importance_save(m, "korean.imatrix") != GEUL_OK)
 *         fprintf(stderr, "%s\n", geul_error(ctx));
 *     geul_importance_free(m);
 */
struct geul_importance;

/* Empty sums, NULL when memory is short. Failures of the calls below are in ctx. One thread at a time. Free with
 * geul_importance_free(). */
GEUL_API struct geul_importance *geul_importance_new(struct geul_context *ctx);
GEUL_API void geul_importance_free(struct geul_importance *m);

struct geul_importance_options {
    size_t size;
    int chunk_size;  /* tokens evaluated as one text; 0: 512. The last chunk of a text may be shorter */
    size_t n_chunks; /* most chunks; 0: the whole text */
    /* Most tokens computed at once, for which the inputs of all layers are held in memory; 0: as many as take 256 MiB,
     * 46 for 12.8B and 195 for 1.3B. */
    int n_batch;
    const char *dataset; /* names the text in the file; NULL: not named */
    /* Tokens; called with 0 first. It may call the counters below and geul_importance_save(). */
    bool (*progress)(void *user, uint64_t done, uint64_t total);
    void *user;
    bool exact; /* as in geul_session_options */
};

/* Adds the inputs that the model, with its adapters, computes for a text, in a session that is made for it. options may
 * be NULL. An empty text is one geul_token_end(). After a failure m may hold part of the text. */
GEUL_API enum geul_status geul_importance_collect_text(struct geul_importance *m, const struct geul_model *model,
                                                       const char *text, size_t length,
                                                       const struct geul_importance_options *options);
/* Adds the sums of a file, in any form that geul_imatrix_load() reads. */
GEUL_API enum geul_status geul_importance_add_file(struct geul_importance *m, const char *path);
/* Writes the sums in llama.cpp's GGUF form. */
GEUL_API enum geul_status geul_importance_save(struct geul_importance *m, const char *path);

/* Chunks so far, including those of files. */
GEUL_API uint64_t geul_importance_chunk_count(const struct geul_importance *m);
/* Tokens per chunk: of the text collected last, otherwise of the first file that says; 0 when none does. */
GEUL_API uint64_t geul_importance_chunk_size(const struct geul_importance *m);
/* Matrices with sums. */
GEUL_API int64_t geul_importance_matrix_count(const struct geul_importance *m);
/* The text collected last: its tokens (up to n_chunks), and its loss so far in nats per token; both 0 before. */
GEUL_API uint64_t geul_importance_tokens(const struct geul_importance *m);
GEUL_API double geul_importance_nats(const struct geul_importance *m);

/* -------------------------------------------------------------------------------- quantizing -- */
/* Stability: stable. */

/* A GGUF file is rewritten with quantized matrices, usually a smaller one; the example at the top shows how. */

/* A named mix of types: which type each tensor of a model gets. Every type of weights is a mix too. Mixes are constants
 * of the library, for every thread. */
struct geul_mix;
/* The mix of that name ("q4_k_m"; case does not matter; "q4_k" is "q4_k_m"), NULL when there is none, or no name. */
GEUL_API const struct geul_mix *geul_mix_find(const char *name);
/* Number i, from the largest files to the smallest; NULL after the last. */
GEUL_API const struct geul_mix *geul_mix_at(size_t i);
/* "q4_k_m"; never NULL. */
GEUL_API const char *geul_mix_name(const struct geul_mix *mix);

/* An element of an array: matrices whose names match pattern (PCRE2, anywhere in the name) get type. */
struct geul_quantize_rule {
    const char *pattern;
    enum geul_type type;
};

/* Changes matrices while they are written: changing() returns what change() needs for a tensor, NULL to leave it as it
 * is; change() modifies a decoded row (cols floats) before it is encoded, called by several threads. */
struct geul_quantize_hooks {
    size_t size;
    const void *(*changing)(void *user, const char *tensor);
    void (*change)(const void *how, int64_t row, float *x, int64_t cols);
    void *user;
    const char *template_text; /* replaces geul.template; NULL: that is kept */
};

/* One of mix, keep_types, target_bpw and max_bytes must be set (the last two may be combined). What pointers point to
 * must live until geul_quantize_free(). */
struct geul_quantize_options {
    size_t size;
    const struct geul_mix *mix;
    bool keep_types; /* instead of a mix: every matrix keeps its type */
    /* Bounds: bits per weight over all tensors (up to 32), and bytes of the file (of all its parts together). Types are
     * then chosen by measured error instead of by a mix. */
    double target_bpw;
    uint64_t max_bytes;
    const struct geul_quantize_rule *rules; /* take precedence over mix and bounds; the first that matches counts */
    int n_rules;
    const struct geul_imatrix *imatrix; /* NULL: all inputs matter equally */
    const char *imatrix_name;           /* for the key that says where the importance came from */
    /* How the output is split: parts of at most split_bytes (more if a single tensor has more), or of split_tensors
     * tensors, or as the input is split. All zero: one file. */
    uint64_t split_bytes;
    int64_t split_tensors;
    bool keep_split;
    const struct geul_quantize_hooks *hooks; /* geul_merge_hooks() has some; NULL: nothing is changed */
    int n_threads;                           /* 0: one per core */
    /* Bytes of the output, in geul_quantize_write(). */
    bool (*progress)(void *user, uint64_t done, uint64_t total);
    /* Tensors measured for a bound, in geul_quantize_new(); as progress. */
    bool (*measuring)(void *user, uint64_t done, uint64_t total);
    void *user;
    bool strict; /* values that are not finite in the output are a failure of geul_quantize_write(), not a warning */
};

/* A tensor before and after. */
struct geul_quantize_tensor {
    size_t size;
    const char *name; /* valid until geul_quantize_free() */
    int n_dims;
    int64_t shape[4]; /* row-major */
    enum geul_type from, to;
    uint64_t from_bytes, to_bytes;
    bool fell_back; /* its rows do not fit the chosen type; `to` is the substitute */
    bool written;   /* the two below are known */
    double error;   /* sum of importance * (x - x')^2 over that of importance * x^2 */
    int64_t lost;   /* values that are NaN, infinite or too large for the type */
};

/* The whole file before and after. */
struct geul_quantize_summary {
    size_t size;
    int64_t n_tensors, n_parts;
    int64_t n_fallbacks;           /* tensors that fell back */
    int64_t elements;              /* of all tensors */
    uint64_t from_bytes, to_bytes; /* of the whole files */
    double from_bpw, to_bpw;       /* bits per weight over all tensors */
};

/* A file to quantize, with the type that each tensor is to have. One thread at a time. */
struct geul_quantize;

/* Opens the file (the first part of a split one) and chooses types; writes nothing. NULL on failure; free with
 * geul_quantize_free(). */
GEUL_API struct geul_quantize *geul_quantize_new(struct geul_context *ctx, const char *path,
                                                 const struct geul_quantize_options *options);
GEUL_API void geul_quantize_free(struct geul_quantize *q);
/* Fill *out, whose size must be set, for the whole file and for tensor i, in the order of the input; if it is not
 * 0 <= i < n_tensors, all but the size is zero. */
GEUL_API void geul_quantize_get_summary(const struct geul_quantize *q, struct geul_quantize_summary *out);
GEUL_API void geul_quantize_get_tensor(const struct geul_quantize *q, int64_t i, struct geul_quantize_tensor *out);
/* Writes the file. All keys of the input are kept; tensors that keep their type and are not changed are copied byte by
 * byte. The output does not depend on the number of threads; all its parts appear together. Needs a few MB and a few
 * rows per thread. path must not be the input. */
GEUL_API enum geul_status geul_quantize_write(struct geul_quantize *q, const char *path);
/* The name of part i of the output: path itself if there is one part, otherwise "PATH-00001-of-0000N.gguf" with the
 * .gguf at the end of path left out. Free with geul_text_free(). NULL when memory is short. */
GEUL_API char *geul_quantize_part_name(const struct geul_quantize *q, const char *path, int64_t i);

/* ----------------------------------------------------------------------------------- merging -- */
/* Stability: stable. */

/* Adds adapters to the weights they belong to: W' = W + sum of scale * B A. geul_quantize_write() writes the result:
 *
 *     struct geul_merge *m = geul_merge_new(ctx, "f16.gguf", &(struct geul_merge_input){"adapter.gguf", 1}, 1);
 *     struct geul_quantize_options how = {.size = sizeof how, .keep_types = true, .hooks = geul_merge_hooks(m)};
 *     struct geul_quantize *q = m ? geul_quantize_new(ctx, "f16.gguf", &how) : NULL;
 *     if (!q || geul_quantize_write(q, "merged.gguf") != GEUL_OK)
 *         fprintf(stderr, "%s\n", geul_error(ctx));
 *     geul_quantize_free(q);
 *     geul_merge_free(m);
 *
 * A merge belongs to one thread at a time. */
struct geul_merge;

/* An element of an array. */
struct geul_merge_input {
    const char *path; /* of a GGUF adapter or a PEFT directory */
    float scale;      /* multiplied with the adapter's own; 1: as it was trained */
};

/* Reads n adapters and checks them against the model at base_path (the first part of a split one). NULL on failure;
 * free with geul_merge_free(). */
GEUL_API struct geul_merge *geul_merge_new(struct geul_context *ctx, const char *base_path,
                                           const struct geul_merge_input *inputs, int n);
GEUL_API void geul_merge_free(struct geul_merge *m);
/* How many matrices change, and whether any of them is quantized in the base. */
GEUL_API int geul_merge_matrix_count(const struct geul_merge *m);
GEUL_API bool geul_merge_is_quantized(const struct geul_merge *m);
/* The hooks by which geul_quantize_write() writes the merged model, with the prompt template of the last adapter that
 * has one. They belong to m, which must live until geul_quantize_free(). NULL for NULL. */
GEUL_API const struct geul_quantize_hooks *geul_merge_hooks(const struct geul_merge *m);

/* --------------------------------------------------------------------------------- measuring -- */
/* Stability: stable. */

/* How well a model predicts a text, and how far its predictions are from those of a base model:
 *
 *     struct geul_evaluation_options o = {.size = sizeof o, .n_context = 512, .save_base = "korean.base"};
 *     struct geul_evaluation_report r = {.size = sizeof r};
 *     if (geul_evaluate_text(ctx, original, text, length, &o, &r) == GEUL_OK)
 *         printf("perplexity %g +- %g\n", r.scored.perplexity.value, r.scored.perplexity.error);
 *     o = (struct geul_evaluation_options){.size = sizeof o, .compare_base = "korean.base"};
 *     if (geul_evaluate_text(ctx, quantized, NULL, 0, &o, &r) == GEUL_OK)
 *         printf("KL divergence %g nats\n", r.divergence.mean.value);
 */

/* How a text that is longer than the context is cut into windows, and which of their tokens are scored.
 *
 *   stride   transformers' recipe: windows of n_context tokens that begin every `stride` tokens; each scores the tokens
 *            that no earlier one has scored, so every token but the first is scored once, with at least
 *            n_context - stride tokens before it
 *   llama    llama.cpp's tool: adjacent windows of n_context tokens; of each the second half is scored, from token
 *            n_context/2 + 1 on; an incomplete window at the end is left out
 */
enum geul_windows_method {
    GEUL_WINDOWS_DEFAULT, /* as in compare_base; stride without one */
    GEUL_WINDOWS_STRIDE,
    GEUL_WINDOWS_LLAMA,
};

struct geul_evaluation_options {
    size_t size;
    enum geul_windows_method method;
    int n_context;             /* tokens of a window, at least 4; 0: as in compare_base; without one the model's */
    int stride;                /* tokens from window to window; 0: as in compare_base; without one half of n_context */
    size_t n_windows;          /* most windows; 0: as in compare_base; without one all */
    int n_batch;               /* most tokens computed at once; 0: 512. Short windows share a batch */
    enum geul_type cache_type; /* of keys and values, as in geul_session_options */
    bool start;                /* puts geul_token_end() before the text, so that its first token is scored too */
    const char *save_base;     /* a file to write: the text's ids and all logits of every scored token; or NULL */
    const char *compare_base;  /* such a file, of a model with the same ids, to compare with; or NULL */
    /* Tokens; called with 0 first, when everything is ready. The report then holds the figures so far. */
    bool (*progress)(void *user, uint64_t done, uint64_t total);
    void *user;
    bool exact; /* as in geul_session_options */
};

/* A figure with one standard error, which is NaN if fewer than two tokens were scored. Tokens are treated as
 * independent, as in llama.cpp's figures; neighbours in a text are not quite, so the errors are a little too small. */
struct geul_estimate {
    double value, error;
};

/* How a text was cut. */
struct geul_windows {
    enum geul_windows_method method;
    int n_context, stride; /* in tokens; stride is 0 for llama */
    size_t n_tokens;       /* of the text */
    size_t n_windows;
    size_t n_scored; /* tokens that are scored */
};

/* Figures of the scored tokens. The softmax runs over all rows of the model's vocabulary, in double precision.
 * Characters are code points of the text as the tokenizer normalizes it; one whose bytes lie in several tokens is
 * shared by them, so numbers of characters need not be whole. */
struct geul_perplexity_report {
    size_t n_tokens;
    double n_chars, n_bytes;
    struct geul_estimate perplexity, nats_per_token, bits_per_token, bits_per_char, bits_per_byte;
};

enum { GEUL_DIVERGENCE_QUANTILES = 5 };

/* Kullback-Leibler divergence of this model from the base model, and related figures, over the ids of the tokenizer. */
struct geul_divergence_report {
    struct geul_estimate mean;                   /* nats per token */
    double quantiles[GEUL_DIVERGENCE_QUANTILES]; /* median, 90 %, 95 %, 99 %, 99.9 % */
    double max;
    struct geul_estimate same_top;                          /* share of tokens with the same most likely id */
    struct geul_estimate probability_mean, probability_rms; /* of the scored token, this model's minus the base's */
    struct geul_estimate base_perplexity, perplexity_ratio; /* this model's over the base's */
};

/* Which option does not fit the text, the model or compare_base. */
enum geul_evaluation_misfit {
    GEUL_EVALUATION_FITS,
    GEUL_EVALUATION_MISFIT_START,   /* start: there is no end token, or no text to put it before */
    GEUL_EVALUATION_MISFIT_TEXT,    /* the text, or the tokenizer, is not that of compare_base */
    GEUL_EVALUATION_MISFIT_WINDOWS, /* method, n_context, stride or n_windows are not those of compare_base */
};

/* The structs in it do not change; new figures are added at its end. */
struct geul_evaluation_report {
    size_t size;
    enum geul_evaluation_misfit misfit; /* after GEUL_ERROR_ARGUMENT, for messages that name options differently */
    struct geul_windows windows;
    uint64_t base_bytes; /* size of save_base once it is complete; 0 without */
    struct geul_perplexity_report scored;
    double seconds; /* since the first token */
    bool compared;  /* divergence is filled: at the end, with compare_base */
    struct geul_divergence_report divergence;
};

/* Scores a text with a model and its adapters, in a session that is made for it. text NULL: that of compare_base. An
 * empty text is one geul_token_end(), as in geul_generate(). options and report may be NULL; of report only the size is
 * read, and after a failure it holds what was known by then. save_base is written only on success. GEUL_ERROR_FORMAT if
 * logits are not finite. */
GEUL_API enum geul_status geul_evaluate_text(struct geul_context *ctx, const struct geul_model *model, const char *text,
                                             size_t length, const struct geul_evaluation_options *options,
                                             struct geul_evaluation_report *report);

/* ------------------------------------------------------------------------------------- texts -- */
/* Stability: may still change (more encodings that are guessed). */

/* A text as a tokenizer should get it, from the bytes of a file as people have them: UTF-8 without byte order mark, and
 * LF where they have CR LF. encoding is that of the bytes, a name that iconv knows ("cp949", "utf-16"). NULL: UTF-8;
 * bytes that geul_text_guess_encoding() takes for something else are refused with GEUL_ERROR_FORMAT and a message that
 * names it, other bytes that are not UTF-8 are kept. name stands for the text in messages. Returns *length bytes and a
 * NUL; free with geul_text_free(). NULL on failure. */
GEUL_API char *geul_text_decode(struct geul_context *ctx, const void *data, size_t size, const char *name,
                                const char *encoding, size_t *length);
/* The encoding that bytes which are not UTF-8 most likely have, by byte order mark or by what Korean texts consist of:
 * "utf-16le", "utf-16be", "utf-32le", "utf-32be" or "cp949" (Windows in Korean; EUC-KR is a part of it). NULL: UTF-8,
 * or there is no telling. */
GEUL_API const char *geul_text_guess_encoding(const void *data, size_t size);

/* ------------------------------------------------------------------ rows, samples and shards -- */
/* Stability: may still change (more shapes of rows, more in the reports; what is here stays). */

/* Training data in the forms people keep it in, row by row:
 *
 *     {"instruction": ..., "input": ..., "output": ...}       input may be missing, null or ""
 *     {"messages": [{"role": "user", "content": ...}, ...]}   user and assistant in turn, optionally system first
 *     {"conversations": [{"from": "human", "value": ...}, ...]}
 *     {"question": ..., "answer": ...}
 *     {"prompt": ..., "completion": ...}                      texts, or messages
 *     {"text": ...}
 *
 * and some more (docs/training-data.md), with "system" and "history" beside them. A file holds such objects, one per
 * line (JSON Lines), over several lines each or in one array; or it is a table, if its name ends in .csv or .tsv, or
 * one plain text, .txt. Shapes may be mixed. The first shape whose keys an object has is taken; what is not used of it
 * is noted (geul_row_problems_note()). What is no row is a problem, which does not affect the others. Files in UTF-8
 * are mapped, never loaded.
 *
 * Rows become samples (a dataset for geul_trainer_new()) or documents in token shards, which geul_dataset_add_shard()
 * maps. Everything here belongs to one thread at a time, like its context.
 *
 *     struct geul_row_problems *problems = geul_row_problems_new(ctx);
 *     struct geul_dataset *train = geul_dataset_new(ctx), *held_out = geul_dataset_new(ctx);
 *     struct geul_samples_options how = {.size = sizeof how, .prompt_template = koalpaca, .n_context = 512,
 *                                        .held_out = 0.02, .problems = problems};
 *     if (geul_samples_read(ctx, tok, paths, n_paths, &how, train, held_out, NULL) != GEUL_OK)
 *         fprintf(stderr, "%s\n", geul_error(ctx));
 *     for (int i = 0; geul_row_problems_text(problems, i); i++)
 *         fprintf(stderr, "%s\n", geul_row_problems_text(problems, i));
 *     geul_row_problems_free(problems);
 */

/* Problems with rows: all are counted, the texts of the first 20 kept. A list may serve several calls, which add to it.
 */
struct geul_row_problems;

/* An empty list, NULL when memory is short. */
GEUL_API struct geul_row_problems *geul_row_problems_new(struct geul_context *ctx);
GEUL_API void geul_row_problems_free(struct geul_row_problems *p);
/* All problems so far. */
GEUL_API int64_t geul_row_problems_count(const struct geul_row_problems *p);
/* Number i: "FILE:LINE: what", without control characters; valid as long as p. NULL after the last that was kept. */
GEUL_API const char *geul_row_problems_text(const struct geul_row_problems *p, int i);
/* Number i of what was not used, or not as it stands, in rows that could be used: "FILE: not used: label (3 rows)".
 * Each file is said once, when its reading ends. As above otherwise; NULL after the last. */
GEUL_API const char *geul_row_problems_note(const struct geul_row_problems *p, int i);
/* Number i of the files that were read, and which form each has: "FILE: JSON Lines; messages (3 rows)". */
GEUL_API const char *geul_row_problems_form(const struct geul_row_problems *p, int i);

enum geul_row_kind { GEUL_ROW_TURNS, GEUL_ROW_TEXT };

/* A row. Only the library makes rows: fields may be added at the end. */
struct geul_row {
    enum geul_row_kind kind;
    int64_t line;                  /* in the file, from 1 */
    const struct geul_turn *turns; /* TURNS: each with a question and an answer that is not empty */
    int n_turns;                   /* at least 1; 0 for TEXT */
    const char *input;             /* extra context of the question of turn input_turn; NULL: none */
    const char *system;            /* the system message; NULL: none */
    const char *text;              /* TEXT: length bytes of UTF-8 without NUL, not NUL-terminated */
    size_t length;
    const bool *learned; /* TURNS: by turn, whether its answer is to be learned, or only read; one is */
    int input_turn;      /* 0 without a history */
};

/* A file of rows that is being read. */
struct geul_rows;

/* Opens a file in UTF-8. problems receives what is no row, and must live until geul_rows_close(); NULL: it is just
 * skipped. Returns NULL when the file cannot be read, or is something else, which the message names: text in UTF-16, a
 * table whose columns are no shape of rows, Parquet, an archive. Free with geul_rows_close(). */
GEUL_API struct geul_rows *geul_rows_open(struct geul_context *ctx, const char *path,
                                          struct geul_row_problems *problems);
/* The same for a file in another encoding, named as for geul_text_decode(): it is loaded whole. NULL: UTF-8. */
GEUL_API struct geul_rows *geul_rows_open_encoded(struct geul_context *ctx, const char *path, const char *encoding,
                                                  struct geul_row_problems *problems);
/* Sets *row to the next row, NULL at the end; it and what it points to are valid until the next call on rows. Fails
 * when memory is short, at the end of a file that had neither rows nor problems, and where nothing says where the next
 * row begins: in an array that is not valid JSON between its elements, in a table behind a quote that has no end. */
GEUL_API enum geul_status geul_rows_next(struct geul_rows *rows, const struct geul_row **row);
/* NULL is accepted. */
GEUL_API void geul_rows_close(struct geul_rows *rows);

/* What to do with a conversation that is longer than the context. (A text is cut into windows instead.) */
enum geul_samples_long {
    GEUL_SAMPLES_TRUNCATE, /* keeps its beginning; if no target is left, the row is a problem */
    GEUL_SAMPLES_SKIP,     /* leaves it out */
    GEUL_SAMPLES_REFUSE,   /* geul_samples_read() fails */
};

struct geul_samples_options {
    size_t size;
    const struct geul_template *prompt_template; /* NULL: questions and answers are concatenated */
    bool whole;                                  /* prompts are targets too */
    /* Context of the model in tokens; a sample may have one more, which is only predicted. 0: no limit. */
    int n_context;
    enum geul_samples_long too_long;
    /* Probability that a row is held out for evaluation, 0 to 0.5; drawn from seed and its number over all files. */
    double held_out;
    uint64_t seed;
    struct geul_row_problems *problems; /* receives the rows that cannot be used; may be NULL */
    /* Bytes of all files, after every row. */
    bool (*progress)(void *user, uint64_t done, uint64_t total);
    void *user;
    const char *encoding; /* of the files, as for geul_text_decode(); NULL: UTF-8 */
    enum geul_nfc nfc;    /* what is done with texts that are not in NFC */
};

struct geul_samples_report {
    size_t size;
    int64_t rows;          /* that could be used */
    int64_t held_out;      /* of these */
    int64_t too_long;      /* conversations longer than the context */
    const char *long_path; /* the file of the first of them, one of paths; NULL: none */
    int64_t long_line;     /* and its line */
    int64_t joined_input;  /* rows whose input or system text was put into the question, for lack of {input} */
    int64_t longest;       /* tokens of the longest row before truncation */
    int64_t not_nfc;       /* rows with a text that is not in NFC */
    bool nfc_applied;      /* such texts were brought into it */
};

/* Appends the rows of all files as samples, in order, to train, or to held_out, which may be NULL if that share is 0.
 * tok must have an end token. A row that cannot be used becomes a problem. Fails when a file cannot be read or has
 * neither rows nor problems, and when nothing was added to train; the datasets then hold what was read before. options
 * and report may be NULL; report is filled after a failure too. */
GEUL_API enum geul_status geul_samples_read(struct geul_context *ctx, const struct geul_tokenizer *tok,
                                            const char *const *paths, int n_paths,
                                            const struct geul_samples_options *options, struct geul_dataset *train,
                                            struct geul_dataset *held_out, struct geul_samples_report *report);

struct geul_shards_options {
    size_t size;
    const struct geul_template *prompt_template; /* as for samples */
    uint64_t shard_tokens;                       /* most tokens per file, at least 2; 0: 2^27, or 256 MiB */
    struct geul_row_problems *problems;
    bool (*progress)(void *user, uint64_t done, uint64_t total); /* as for samples */
    void *user;
    const char *encoding; /* as for samples */
    enum geul_nfc nfc;    /* likewise */
};

struct geul_shards_report {
    size_t size;
    int64_t documents, tokens;
    int files; /* PREFIX-00000.geulshard and so on */
    /* Answers that rows mark as not to be learned. They are in the shards like all others: shards have no masks. */
    int64_t marked;
    int64_t not_nfc; /* as for samples */
    bool nfc_applied;
};

/* Writes every row of the files as a document with its end token into token shards: files of ids that together are one
 * stream. All of them appear at the end, or none. tok must have an end token. Fails when a file cannot be read, when no
 * row can be used, and when the next file after the last exists, left over from a longer run: a reader of PREFIX-*
 * would include it. options and report may be NULL. */
GEUL_API enum geul_status geul_shards_write(struct geul_context *ctx, const struct geul_tokenizer *tok,
                                            const char *const *paths, int n_paths, const char *prefix,
                                            const struct geul_shards_options *options,
                                            struct geul_shards_report *report);

/* ----------------------------------------------------------------------------------- journal -- */
/* Stability: may still change (charts and formats to come). */

/* The logs of a training run for people to read: log.csv, log.jsonl, events for TensorBoard, report.html.
 *
 *     struct geul_journal_options o = {.size = sizeof o, .title = "finetune", .total_steps = 500, .csv = true};
 *     struct geul_journal_record record = {.size = sizeof record, .step = 1, .loss = 2.5};
 *     struct geul_journal *log = geul_journal_open(ctx, "run", &o, 0);
 *     if (!log || geul_journal_step(log, &record) != GEUL_OK ||
 *         geul_journal_evaluation(log, 1, 2.31, true) != GEUL_OK || geul_journal_flush(log) != GEUL_OK)
 *         fprintf(stderr, "%s\n", geul_error(ctx));
 *     geul_journal_close(log);
 *
 * Rows, lines and events are in their files when a call returns; report.html is rewritten by geul_journal_flush(). A
 * failing call still writes the other files, and its message says which one failed; the journal can still be used.
 * Nothing depends on the locale. One thread at a time. */
struct geul_journal;

/* One optimizer step. A step number that was given before means that the run was rewound: the new one counts. */
struct geul_journal_record {
    size_t size;
    int64_t step;             /* from 1 */
    double loss;              /* mean nats per target */
    double learning_rate;     /* of this step */
    double grad_norm;         /* before clipping */
    double tokens_per_second; /* of this step */
    double seconds;           /* since the run began, including what came before resumes */
    int64_t tokens, targets;  /* of this step */
    double epoch;             /* passes over the data so far */
    bool skipped;             /* the update was not applied */
};

/* A line of the report's table of settings. */
struct geul_journal_setting {
    const char *name, *value;
};

struct geul_journal_options {
    size_t size;
    const char *title;                           /* "finetune geul-mini.gguf"; copied */
    const struct geul_journal_setting *settings; /* copied */
    int n_settings;
    int64_t total_steps; /* 0: unknown */
    bool csv;            /* log.csv: a header, a row per step; an evaluation is a row with only step and eval_loss */
    bool jsonl;          /* log.jsonl: an object per line, "type" is step, evaluation, sample or event */
    bool tensorboard;    /* events.out.tfevents.SECONDS.geul; every resume adds a file */
    /* report.html. After a resume its past is read from log.jsonl, or from log.csv, which has no events and samples;
     * with neither it begins at the resume. */
    bool report;
};

/* Opens the outputs in the existing folder dir. resume_step 0 starts new logs and discards those of earlier runs (for
 * TensorBoard: hides them). Otherwise rows and events of later steps, left by an interrupted run, are discarded, so
 * that a resumed run leaves the same logs as an uninterrupted one, except for times. NULL on failure, also
 * for a resume_step below 0 or above 2^48. Free with geul_journal_close(). */
GEUL_API struct geul_journal *geul_journal_open(struct geul_context *ctx, const char *dir,
                                                const struct geul_journal_options *o, int64_t resume_step);
/* Appends a step. */
GEUL_API enum geul_status geul_journal_step(struct geul_journal *log, const struct geul_journal_record *record);
/* Appends the held-out loss after a step (0: before the first), in nats per target; best: the lowest so far. */
GEUL_API enum geul_status geul_journal_evaluation(struct geul_journal *log, int64_t step, double loss, bool best);
/* Appends a text that the model generated after a step. Broken UTF-8 is written as U+FFFD. */
GEUL_API enum geul_status geul_journal_sample(struct geul_journal *log, int64_t step, const char *prompt,
                                              const char *text);
/* Appends an event: kind is short ("loss spike", "rewind"), text says more; it may be geul_error() of the journal's
 * context. */
GEUL_API enum geul_status geul_journal_event(struct geul_journal *log, int64_t step, const char *kind,
                                             const char *text);
/* The seconds of the newest step, including what came before a resume. Known only with a report; otherwise 0. */
GEUL_API double geul_journal_seconds(const struct geul_journal *log);
/* Syncs everything so far to the disk and rewrites report.html. */
GEUL_API enum geul_status geul_journal_flush(struct geul_journal *log);
/* Closes the files without a last flush. NULL is accepted. */
GEUL_API void geul_journal_close(struct geul_journal *log);

/* ----------------------------------------------------------------------------- trouble watch -- */
/* Stability: may still change (what counts as odd, and the wording of reasons). */

/* Detects what goes wrong while a model trains, and names it. The makers of Polyglot-Ko report sudden drops of the loss
 * and broken generations among their troubles. A drop is not an error, but suspicious: repeated text, labels that leak.
 *
 *     struct geul_watch *w = geul_watch_new(ctx);
 *     char why[GEUL_WATCH_WHY];
 *     if (geul_watch_step(w, loss, grad_norm, why, sizeof why) == GEUL_WATCH_LOSS_SPIKE) ...
 *
 * It is meant to be called from geul_train_options.judge. One thread at a time. */
struct geul_watch;

enum geul_watch_verdict {
    GEUL_WATCH_FINE,
    GEUL_WATCH_NOT_FINITE,
    GEUL_WATCH_LOSS_SPIKE,
    GEUL_WATCH_LOSS_DROP,
    GEUL_WATCH_GRADIENT_SPIKE,
    GEUL_WATCH_LOSS_CLIMB, /* step by step, none of them a spike, far above where the run has been */
};

enum {
    GEUL_WATCH_WHY = 160, /* bytes that hold any reason */
    GEUL_WATCH_STATE_BYTES = 112,
};

/* A watch that has seen no step. NULL when memory is short. Free with geul_watch_free(). */
GEUL_API struct geul_watch *geul_watch_new(struct geul_context *ctx);
GEUL_API void geul_watch_free(struct geul_watch *w);
/* Judges a step by the steps before it; loss in nats. why (size bytes, may be NULL) receives one line that says more,
 * "" when it is fine. In the first 20 steps only NOT_FINITE and LOSS_CLIMB are reported; a climb is reported once, and
 * again when the loss has climbed as far again. Odd steps do not enter the usual level, unless
 * they last: after 10 in a row the level restarts from where the run is now. */
GEUL_API enum geul_watch_verdict geul_watch_step(struct geul_watch *w, double loss, double grad_norm, char *why,
                                                 size_t size);
/* Whether the loss is about as low as it has been: not in the middle of a climb that is not far enough yet. */
GEUL_API bool geul_watch_is_calm(const struct geul_watch *w);
/* "loss spike"; never NULL. */
GEUL_API const char *geul_watch_name(enum geul_watch_verdict v);
/* Get and set everything that later verdicts depend on, to be kept in checkpoints. The bytes are in this machine's byte
 * order; those of a watch that has seen no step are zero. A level that no watch can have, from a damaged file, becomes
 * a fresh one. */
GEUL_API void geul_watch_get_state(const struct geul_watch *w, unsigned char state[GEUL_WATCH_STATE_BYTES]);
GEUL_API void geul_watch_set_state(struct geul_watch *w, const unsigned char state[GEUL_WATCH_STATE_BYTES]);

/* What is wrong with a text that a model generated: "empty", "broken characters", "mostly one character", "repeats
 * itself"; NULL: nothing that was found. Of long texts the last 4 KiB are checked. A character cut off at the very end
 * is fine. Static strings; any thread. */
GEUL_API const char *geul_watch_text(const char *text, size_t length);

#ifdef __cplusplus
}
#endif
#endif

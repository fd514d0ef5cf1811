/* geul_tools.h: work on models and files around geul.h: what libgeul-tools adds to libgeul.
 *
 * Conventions  As in geul.h, of which this is a continuation: lifetime, errors, threads.
 * Structs      What the library hands out is opaque, or a struct that begins with its size. The caller sets it,
 *                  struct geul_journal_options o = {.size = sizeof o};
 *              and zero is a default for every field that does not say otherwise. So fields can be added at the end:
 *              what an older program does not know is zero for it.
 * Progress     A callback gets what is done and what there is in all; false stops the work, which then fails with
 *              GEUL_ERROR_CANCELLED. It is called on the thread that called the function.
 * Files        Appear under their name when they are whole; until then an older file of that name stays.
 */
#ifndef GEUL_TOOLS_H
#define GEUL_TOOLS_H

#include "geul.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ----------------------------------------------------------------------- regular expressions -- */
/* Stability: stable. */

/* PCRE2 as the engine for tokenizers with unusual patterns: geul_model_options.regex. It may serve all tokenizers and
 * threads. Patterns see Unicode properties; any bytes may be matched against; a match that would take unreasonably long
 * counts as none. \s and \w mean what they mean to Oniguruma, which Hugging Face uses. */
GEUL_API const struct geul_regex_engine *geul_regex_pcre2(void);

/* ------------------------------------------------------------------ Hugging Face directories -- */
/* Stability: stable. */

/* The form of the activation: as config.json says, or one of the two whatever it says. */
enum geul_convert_gelu { GEUL_CONVERT_GELU_CONFIG, GEUL_CONVERT_GELU_ERF, GEUL_CONVERT_GELU_TANH };

struct geul_convert_options {
    size_t size;
    enum geul_type
        type; /* of the matrices: F32, F16, BF16, Q8_0, Q5_1, Q5_0, Q4_1, Q4_0; others: geul_quantize_new() */
    enum geul_convert_gelu gelu;
    const char *name; /* general.name; NULL: the directory's name */
    int n_threads;    /* 0: one per core */
    /* Bytes of the checkpoint that are done, of all. May be NULL. */
    bool (*progress)(void *user, uint64_t done, uint64_t total);
    void *user;
};

/* Converts the directory of a GPT-NeoX model into a GGUF file. options may be NULL.
 *
 * Matrices get options->type; biases and norms stay float32; a matrix whose rows are no multiple of the block stays
 * float16. With blocks of 4 or 5 bits the output matrix is q8_0: it decides every token, has no activation after it
 * that would forgive an error, and llama.cpp's users expect it in a better type than the rest. token_embd is as the
 * rest.
 *
 * What the file cannot express otherwise is kept in keys: tokenizer.huggingface.json, geul.hf.config and its like, so
 * that geul_export_hf() gives the directory back. */
GEUL_API enum geul_status geul_convert_hf(struct geul_context *ctx, const char *dir, const char *out_path,
                                          const struct geul_convert_options *options);

/* KEEP: the type of the matrices in the file; float16 where those are quantized. */
enum geul_export_dtype { GEUL_EXPORT_KEEP, GEUL_EXPORT_F32, GEUL_EXPORT_F16, GEUL_EXPORT_BF16 };

struct geul_export_options {
    size_t size;
    enum geul_export_dtype dtype; /* of every tensor, norms and biases too */
    uint64_t max_shard_bytes;     /* 0: 5 GB */
    int n_threads;                /* 0: one per core */
    /* Bytes of the output that are done, of all. May be NULL. */
    bool (*progress)(void *user, uint64_t done, uint64_t total);
    void *user;
};

/* Writes into dir (made when it is missing) model.safetensors, or shards with their index when it would be larger than
 * max_shard_bytes; config.json (the original one where the file kept it, with dtype and activation made right);
 * tokenizer.json and its companions where they were kept. Each file appears when it is whole; weights come last.
 * options may be NULL. */
GEUL_API enum geul_status geul_export_hf(struct geul_context *ctx, const char *gguf_path, const char *dir,
                                         const struct geul_export_options *options);

/* -------------------------------------------------------------------------------- new models -- */
/* Stability: stable. */

/* How the weights of a new model are drawn. SMALL: as EleutherAI's GPT-NeoX, deviation sqrt(2 / (5 d_model)) (Nguyen
 * and Salazar 2019), and 2 / (n_layers sqrt(d_model)) for what is added to the residual stream (Wang and Komatsuzaki
 * 2021). NORMAL: as transformers, deviation 0.02 everywhere. */
enum geul_init { GEUL_INIT_SMALL, GEUL_INIT_NORMAL };

/* The first four have to be set; d_model is a multiple of n_heads. */
struct geul_new_model_options {
    size_t size;
    const char *tokenizer; /* a GGUF file whose tokenizer is taken, a tokenizer.json or a directory that holds one */
    int n_layers, d_model, n_heads;
    int d_ff;      /* 0: 4 * d_model */
    int n_rot;     /* rotary dimensions per head, even; 0: half of them; -1: none */
    int n_context; /* positions it is to be trained for; 0: 2048 */
    int n_vocab;   /* rows of the embedding; 0: as many as the tokenizer needs, a multiple of 64 */
    enum geul_gelu gelu;
    bool sequential_residual; /* feed-forward after attention instead of parallel to it */
    enum geul_init init;
    uint64_t seed;
    const char *name; /* general.name; NULL: "geul" */
};

/* Writes a GPT-NeoX model that has learned nothing yet, a float32 GGUF file for geul_trainer_new() to begin with.
 * Biases are 0 and norms 1; the same options give the same bytes. */
GEUL_API enum geul_status geul_new_model_write(struct geul_context *ctx, const char *path,
                                               const struct geul_new_model_options *options);

/* The tokenizer of a tokenizer.json file, or of the directory that holds one, with PCRE2 for unusual patterns. NULL on
 * failure; free with geul_tokenizer_free(). */
GEUL_API struct geul_tokenizer *geul_tokenizer_from_json(struct geul_context *ctx, const char *path);

/* ---------------------------------------------------------------------------------- adapters -- */
/* Stability: stable. */

/* Low-rank adapters (LoRA) come as GGUF files, which geul_model_add_adapter() reads, and as directories of Hugging
 * Face's PEFT: adapter_config.json with adapter_model.safetensors or adapter_model.bin. */

/* Whether path is a directory with an adapter_config.json. */
GEUL_API bool geul_peft_is(const char *path);

struct geul_peft_options {
    size_t size;
    /* The model that the adapter is for, a GGUF file or a Hugging Face directory, whose number of heads decides the
     * order of rows. NULL: what the adapter itself says; a PEFT directory names a model that is looked for on this
     * machine. */
    const char *base;
    const char *name; /* general.name of a GGUF file; NULL: the directory's name */
};

/* A PEFT directory into a GGUF file, in float32; and a GGUF adapter into a PEFT directory, made when it is missing,
 * whose configuration comes last. options may be NULL. */
GEUL_API enum geul_status geul_convert_peft(struct geul_context *ctx, const char *dir, const char *out_path,
                                            const struct geul_peft_options *options);
GEUL_API enum geul_status geul_export_peft(struct geul_context *ctx, const char *gguf_path, const char *dir,
                                           const struct geul_peft_options *options);
/* geul_model_add_adapter() for a GGUF file or a PEFT directory. */
GEUL_API enum geul_status geul_model_add_any_adapter(struct geul_context *ctx, struct geul_model *model,
                                                     const char *path, float scale);

/* ----------------------------------------------------------------------- importance matrices -- */
/* Stability: stable. */

/* How much each input of each matrix counts: the mean of its squares over a text. The error that a rounded weight makes
 * in the output is (w - w')[j] * x[j], so its square counts x[j]^2 on average. */
struct geul_imatrix;

/* Reads a file in llama.cpp's GGUF form (general.type "imatrix") or its older .dat form. NULL when it is missing or
 * broken. Free with geul_imatrix_free(). */
GEUL_API struct geul_imatrix *geul_imatrix_load(struct geul_context *ctx, const char *path);
GEUL_API void geul_imatrix_free(struct geul_imatrix *m);

/* Collecting one: for every weight matrix of a model the sum of squares of each of its inputs over the tokens of texts.
 *
 *     struct geul_importance *m = geul_importance_new(ctx);
 *     if (!m || geul_importance_collect_text(m, model, text, length, NULL) != GEUL_OK ||
 *         geul_importance_save(m, "korean.imatrix") != GEUL_OK)
 *         fprintf(stderr, "%s\n", geul_error(ctx));
 *     geul_importance_free(m);
 */
struct geul_importance;

/* Empty sums, NULL when memory is short. Failures of the calls below are in ctx. Free with geul_importance_free(). */
GEUL_API struct geul_importance *geul_importance_new(struct geul_context *ctx);
GEUL_API void geul_importance_free(struct geul_importance *m);

struct geul_importance_options {
    size_t size;
    int chunk_size;  /* tokens that are seen together; 0: 512. What remains at the end of the text is a shorter chunk */
    size_t n_chunks; /* at most so many; 0: the whole text */
    /* Most tokens computed at once, whose inputs of all layers are kept while it looks; 0: as many as take 256 MiB, 46
     * for 12.8B and 195 for 1.3B. */
    int n_batch;
    const char *dataset; /* names the text in the file; NULL: not named */
    /* Tokens that are done, of all; first with none. The counters below and geul_importance_save() may be called from
     * it. May be NULL. */
    bool (*progress)(void *user, uint64_t done, uint64_t total);
    void *user;
};

/* Adds what the model sees in a text, with its adapters, in a session of its own. options may be NULL. An empty text is
 * one <|endoftext|>. After a failure m holds a part of the text. */
GEUL_API enum geul_status geul_importance_collect_text(struct geul_importance *m, const struct geul_model *model,
                                                       const char *text, size_t length,
                                                       const struct geul_importance_options *options);
/* Adds the sums of a file, in any form that geul_imatrix_load() reads. */
GEUL_API enum geul_status geul_importance_add_file(struct geul_importance *m, const char *path);
/* Writes the sums in llama.cpp's GGUF form; the file appears when it is whole. */
GEUL_API enum geul_status geul_importance_save(struct geul_importance *m, const char *path);

/* Chunks so far, those of files included. */
GEUL_API uint64_t geul_importance_chunk_count(const struct geul_importance *m);
/* Tokens of a chunk: of the text collected last, or else of the first file that says; 0 when none does. */
GEUL_API uint64_t geul_importance_chunk_size(const struct geul_importance *m);
/* Matrices that have been seen. */
GEUL_API int64_t geul_importance_matrix_count(const struct geul_importance *m);
/* The text collected last: its tokens (of the chunks that were asked for), and nats per token so far; both 0 before. */
GEUL_API uint64_t geul_importance_tokens(const struct geul_importance *m);
GEUL_API double geul_importance_nats(const struct geul_importance *m);

/* -------------------------------------------------------------------------------- quantizing -- */
/* Stability: stable but for geul_quantize_hooks, which may still change. */

/* A GGUF file becomes a smaller one whose matrices are quantized:
 *
 *     struct geul_quantize_options how = {.size = sizeof how, .mix = geul_mix_find("q4_k_m")};
 *     struct geul_quantize *q = geul_quantize_new(ctx, "f16.gguf", &how);
 *     if (!q || geul_quantize_write(q, "q4_k_m.gguf") != GEUL_OK)
 *         fprintf(stderr, "%s\n", geul_error(ctx));
 *     geul_quantize_free(q);
 */

/* A named mix of types: which type each tensor of a model gets. Every plain type is a mix too. */
struct geul_mix;
/* The mix of that name ("q4_k_m"; case does not matter; "q4_k" is "q4_k_m"), NULL when there is none. */
GEUL_API const struct geul_mix *geul_mix_find(const char *name);
/* All of them, from the largest files to the smallest; NULL behind the last. */
GEUL_API const struct geul_mix *geul_mix_at(size_t i);
/* "q4_k_m" */
GEUL_API const char *geul_mix_name(const struct geul_mix *mix);

/* An element of an array: matrices whose names match pattern (PCRE2, anywhere in the name) get type. */
struct geul_quantize_rule {
    const char *pattern;
    enum geul_type type;
};

/* Changes matrices on the way: changing() returns what change() needs for a tensor, NULL where it stays as it is;
 * change() changes a decoded row before it is encoded, from several threads. Both NULL: nothing is changed. */
struct geul_quantize_hooks {
    const void *(*changing)(void *user, const char *tensor);
    void (*change)(const void *how, int64_t row, float *x, int64_t cols);
    void *user;
    const char *template_text; /* takes the place of geul.template; NULL: that stays */
};

/* One of mix, keep_types, target_bpw and max_bytes has to be set (the last two may go together). What pointers name
 * must live as long as the plan. */
struct geul_quantize_options {
    size_t size;
    const struct geul_mix *mix;
    bool keep_types; /* instead of a mix: every matrix keeps its own */
    /* The bounds: bits per weight over all tensors, and bytes of the file (of all its parts together). Types are then
     * chosen by measured error instead of by a mix. */
    double target_bpw;
    uint64_t max_bytes;
    const struct geul_quantize_rule *rules; /* go before mix and bounds; the first that matches counts */
    int n_rules;
    const struct geul_imatrix *imatrix;
    const char *imatrix_name; /* for the key that says where the importance came from */
    /* The parts of the output: files of at most so many bytes (more where a single tensor has more), or of so many
     * tensors, or as the input is split. All zero: one file. */
    uint64_t split_bytes;
    int64_t split_tensors;
    bool keep_split;
    struct geul_quantize_hooks hooks; /* see geul_merge_apply() */
    int n_threads;                    /* 0: one per core */
    /* Bytes of the output that are done, of all. May be NULL. */
    bool (*progress)(void *user, uint64_t done, uint64_t total);
    /* While types are chosen under a bound: tensors that were measured. May be NULL. */
    bool (*measuring)(void *user, uint64_t done, uint64_t total);
    void *user;
};

/* What becomes of a tensor. */
struct geul_quantize_tensor {
    size_t size;
    const char *name; /* lives as long as the plan */
    int n_dims;
    int64_t shape[4]; /* row-major */
    enum geul_type from, to;
    uint64_t from_bytes, to_bytes;
    bool fell_back; /* its rows do not fit the type that was meant */
    bool written;   /* the two below are known */
    double error;   /* sum of importance * (x - x')^2 over that of importance * x^2 */
    int64_t lost;   /* values that are NaN, infinite or too large for the type */
};

/* What becomes of the whole. */
struct geul_quantize_summary {
    size_t size;
    int64_t n_tensors, n_parts;
    int64_t n_fallbacks;           /* tensors that fell back */
    int64_t elements;              /* of all tensors */
    uint64_t from_bytes, to_bytes; /* of the whole files */
    double from_bpw, to_bpw;       /* bits per weight over all tensors */
};

/* A plan: what becomes of every tensor. Belongs to one thread at a time. */
struct geul_quantize;

/* Opens the file (the first part of a split one) and decides. Writes nothing. NULL on failure; free with
 * geul_quantize_free(). */
GEUL_API struct geul_quantize *geul_quantize_new(struct geul_context *ctx, const char *path,
                                                 const struct geul_quantize_options *options);
GEUL_API void geul_quantize_free(struct geul_quantize *q);
/* Fill *out, whose size is set, for the whole and for tensor 0 <= i < n_tensors, in the order of the input. */
GEUL_API void geul_quantize_get_summary(const struct geul_quantize *q, struct geul_quantize_summary *out);
GEUL_API void geul_quantize_get_tensor(const struct geul_quantize *q, int64_t i, struct geul_quantize_tensor *out);
/* Carries the plan out. All keys of the input are kept; tensors that keep their type and are not changed are copied
 * byte by byte. The bytes do not depend on the number of threads. The output, or every part of it, appears when all is
 * written. Needs some MB and a few rows per thread. path must not be the input. */
GEUL_API enum geul_status geul_quantize_write(struct geul_quantize *q, const char *path);
/* The name of part i of the output: path itself when there is one part, otherwise "PATH-00001-of-0000N.gguf" without
 * the .gguf that path ends in. Free with geul_text_free(). NULL when memory is short. */
GEUL_API char *geul_quantize_part_name(const struct geul_quantize *q, const char *path, int64_t i);

/* ----------------------------------------------------------------------------------- merging -- */
/* Stability: stable. */

/* Adds adapters to the weights they belong to: W' = W + sum of scale * B A. The writing is geul_quantize_write()'s:
 *
 *     struct geul_merge *m = geul_merge_new(ctx, "f16.gguf", &(struct geul_merge_input){"adapter.gguf", 1}, 1);
 *     struct geul_quantize_options how = {.size = sizeof how, .keep_types = true};
 *     geul_merge_apply(m, &how);
 *     ... geul_quantize_new(), geul_quantize_write() and _free(), then geul_merge_free(m)
 */
struct geul_merge;

/* An element of an array. */
struct geul_merge_input {
    const char *path; /* of a GGUF adapter or a PEFT directory */
    float scale;      /* times what the adapter itself has */
};

/* Reads the n adapters and checks them against the model at base_path (of a split one the first part). NULL on failure;
 * free with geul_merge_free(). */
GEUL_API struct geul_merge *geul_merge_new(struct geul_context *ctx, const char *base_path,
                                           const struct geul_merge_input *inputs, int n);
GEUL_API void geul_merge_free(struct geul_merge *m);
/* How many matrices change, and whether some of those are quantized in the base. */
GEUL_API int geul_merge_matrix_count(const struct geul_merge *m);
GEUL_API bool geul_merge_is_quantized(const struct geul_merge *m);
/* Makes o write the changed model: sets its hooks, among them the template of the last adapter that brings one. m must
 * live as long as the plan made with o. */
GEUL_API void geul_merge_apply(const struct geul_merge *m, struct geul_quantize_options *o);

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
 *   llama    llama.cpp's tool: pieces of n_context tokens side by side; of each the second half is scored, tokens
 *            n_context/2 + 1 on; what does not fill a piece is left out
 */
enum geul_windows_method {
    GEUL_WINDOWS_DEFAULT, /* that of compare_base; stride without one */
    GEUL_WINDOWS_STRIDE,
    GEUL_WINDOWS_LLAMA,
};

struct geul_evaluation_options {
    size_t size;
    enum geul_windows_method method;
    int n_context;             /* tokens of a window, at least 4; 0: those of compare_base, or else the model's */
    int stride;                /* from window to window; 0: that of compare_base, or else half of n_context */
    size_t n_windows;          /* at most so many; 0: those of compare_base, or else all */
    int n_batch;               /* most tokens computed at once; 0: 512. Short windows share a batch */
    enum geul_type cache_type; /* of keys and values, as in geul_session_options */
    bool start;                /* <|endoftext|> goes before the text, so that its first token is scored too */
    const char *save_base;     /* a file to be written: the text's ids and all logits of every scored token; or NULL */
    const char *compare_base;  /* such a file, of a model with the same ids, to compare with; or NULL */
    /* Tokens that are computed, of all; first with none, when everything is ready. The report then holds the figures so
     * far. May be NULL. */
    bool (*progress)(void *user, uint64_t done, uint64_t total);
    void *user;
};

/* A figure with one standard error, which is NaN when fewer than two tokens were scored. Tokens count as independent of
 * each other, as in llama.cpp's figures; neighbours in a text are not quite, so the errors are a little small. */
struct geul_estimate {
    double value, error;
};

/* How a text was cut. */
struct geul_windows {
    enum geul_windows_method method;
    int n_context, stride; /* stride is 0 for llama */
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

/* Kullback-Leibler divergence of this model from the base model and its companions, over the ids of the tokenizer. */
struct geul_divergence_report {
    struct geul_estimate mean;                   /* nats per token */
    double quantiles[GEUL_DIVERGENCE_QUANTILES]; /* median, 90 %, 95 %, 99 %, 99.9 % */
    double max;
    struct geul_estimate same_top;                          /* share of tokens whose likeliest id is the same */
    struct geul_estimate probability_mean, probability_rms; /* of the scored token, this model's minus the base's */
    struct geul_estimate base_perplexity, perplexity_ratio; /* this model's over the base's */
};

/* Which option did not fit the text, the model or compare_base. */
enum geul_evaluation_misfit {
    GEUL_EVALUATION_FITS,
    GEUL_EVALUATION_MISFIT_START,   /* start: there is no <|endoftext|>, or no text to put it before */
    GEUL_EVALUATION_MISFIT_TEXT,    /* the text, or the tokenizer, is not that of compare_base */
    GEUL_EVALUATION_MISFIT_WINDOWS, /* method, n_context, stride or n_windows are not those of compare_base */
};

/* The structs in it stay as they are; new figures come at its end. */
struct geul_evaluation_report {
    size_t size;
    enum geul_evaluation_misfit misfit; /* after GEUL_ERROR_ARGUMENT, for messages that name an option in other words */
    struct geul_windows windows;
    uint64_t base_bytes; /* of the file save_base when it is whole; 0 without */
    struct geul_perplexity_report scored;
    double seconds; /* since the first token */
    bool compared;  /* divergence holds figures: at the end, with compare_base */
    struct geul_divergence_report divergence;
};

/* Scores a text, in a session of its own. text NULL: that of compare_base. An empty text is one <|endoftext|>, as in
 * geul_generate(). options and report may be NULL; of report, all that is set before the call is its size, and after a
 * failure it holds what was known by then. save_base appears when everything went well. GEUL_ERROR_FORMAT when logits
 * are not finite. */
GEUL_API enum geul_status geul_evaluate_text(struct geul_context *ctx, const struct geul_model *model, const char *text,
                                             size_t length, const struct geul_evaluation_options *options,
                                             struct geul_evaluation_report *report);

/* ------------------------------------------------------------------ rows, samples and shards -- */
/* Stability: may still change (more shapes of rows, more in the reports; what is here stays). */

/* Training data as people keep it, row by row:
 *
 *     {"instruction": ..., "input": ..., "output": ...}       input may be missing, null or ""
 *     {"messages": [{"role": "user", "content": ...}, ...]}   user and assistant in turn, before them perhaps system
 *     {"question": ..., "answer": ...}
 *     {"prompt": ..., "completion": ...}
 *     {"text": ...}
 *
 * A file is JSON Lines, one of these a line, or one plain text when its name ends in .txt. Shapes may be mixed. The
 * first shape whose keys a line has is taken, other keys are ignored, blank lines skipped. A line that is none of them
 * is a problem, which has no effect on the other lines. Files are mapped, never loaded.
 *
 * Rows become samples (a dataset for geul_trainer_new()) or documents in token shards, which geul_dataset_add_shard()
 * maps. A context serves one thread at a time, and so do the calls and objects that are given it.
 *
 *     struct geul_row_problems *problems = geul_row_problems_new(ctx);
 *     struct geul_dataset *train = geul_dataset_new(ctx), *held_out = geul_dataset_new(ctx);
 *     struct geul_samples_options how = {.size = sizeof how, .prompt_template = koalpaca, .n_context = 512,
 *                                        .held_out = 0.02, .problems = problems};
 *     if (geul_samples_read(ctx, tok, paths, n_paths, &how, train, held_out, NULL) != GEUL_OK)
 *         fprintf(stderr, "%s\n", geul_error(ctx));
 *     for (int i = 0; geul_row_problems_text(problems, i); i++)
 *         fprintf(stderr, "%s\n", geul_row_problems_text(problems, i));
 *     ... geul_row_problems_free(problems);
 */

/* What was wrong with rows: all are counted, the texts of the first ones kept. A list may serve several calls, which
 * add to it. */
struct geul_row_problems;

/* An empty list, NULL when memory is short. */
GEUL_API struct geul_row_problems *geul_row_problems_new(struct geul_context *ctx);
/* NULL is fine. */
GEUL_API void geul_row_problems_free(struct geul_row_problems *p);
GEUL_API int64_t geul_row_problems_count(const struct geul_row_problems *p);
/* "FILE:LINE: what", without control characters; lives as long as p. NULL from the end of the texts on: 20 are kept. */
GEUL_API const char *geul_row_problems_text(const struct geul_row_problems *p, int i);

enum geul_row_kind { GEUL_ROW_TURNS, GEUL_ROW_TEXT };

/* A row, which only the library makes: fields may be added. */
struct geul_row {
    enum geul_row_kind kind;
    int64_t line;                  /* in the file, from 1 */
    const struct geul_turn *turns; /* of TURNS: each with a question and an answer that is not empty */
    int n_turns;                   /* at least 1; 0 for TEXT */
    const char *input;             /* extra context of the first question, NULL: none */
    const char *system;            /* the text of the system, NULL: none; at most one of the two is there */
    const char *text;              /* of TEXT: length bytes of UTF-8 without NUL, not NUL-terminated */
    size_t length;
};

/* A file that is being read. */
struct geul_rows;

/* problems gets what is no row, and must live until geul_rows_close(); NULL: such lines are only passed over. NULL when
 * the file cannot be read, or holds one JSON array instead of a line per row. */
GEUL_API struct geul_rows *geul_rows_open(struct geul_context *ctx, const char *path,
                                          struct geul_row_problems *problems);
/* *row gets the next row, NULL at the end; it and all it names live until the next call on rows. Fails when memory is
 * short, and at the end of a file that held neither rows nor problems. */
GEUL_API enum geul_status geul_rows_next(struct geul_rows *rows, const struct geul_row **row);
/* NULL is fine. */
GEUL_API void geul_rows_close(struct geul_rows *rows);

/* What becomes of a conversation that is longer than the context. (A text is cut into windows instead.) */
enum geul_samples_long {
    GEUL_SAMPLES_TRUNCATE, /* its beginning is kept; without a target in it the row is a problem */
    GEUL_SAMPLES_SKIP,
    GEUL_SAMPLES_REFUSE, /* the reading fails */
};

struct geul_samples_options {
    size_t size;
    const struct geul_template *prompt_template; /* NULL: questions and answers are joined as they are */
    bool whole;                                  /* prompts are learned too */
    int n_context; /* tokens that the model sees at once; a sample may have one more, which is only predicted. 0: no
                      bound */
    enum geul_samples_long too_long;
    double held_out; /* share of the rows that is kept from training, 0 to 0.5; each row is drawn by itself, from seed
                        and its number over all files */
    uint64_t seed;
    struct geul_row_problems *problems; /* gets the rows that cannot be used; may be NULL */
    /* After every row: bytes of all files read so far, of all. May be NULL. */
    bool (*progress)(void *user, uint64_t done, uint64_t total);
    void *user;
};

struct geul_samples_report {
    size_t size;
    int64_t rows;          /* that could be used */
    int64_t held_out;      /* of these */
    int64_t too_long;      /* conversations longer than the context */
    const char *long_path; /* of the first of them: the file as the caller named it, NULL: there is none; */
    int64_t long_line;     /* and the line */
    int64_t joined_input; /* rows whose input or system text went into the question: the template has no place for it */
    int64_t longest;      /* tokens of the longest row before anything was cut */
};

/* Appends the rows of all files as samples, in order, to train and, those that are kept from training, to held_out,
 * which may be NULL when the share is 0. tok must have an end token. A row that cannot be used becomes a problem. Fails
 * when a file cannot be read or has neither rows nor problems, and when nothing was added to train; the datasets then
 * hold what was read before. report may be NULL and is filled after a failure too. */
GEUL_API enum geul_status geul_samples_read(struct geul_context *ctx, const struct geul_tokenizer *tok,
                                            const char *const *paths, int n_paths,
                                            const struct geul_samples_options *options, struct geul_dataset *train,
                                            struct geul_dataset *held_out, struct geul_samples_report *report);

struct geul_shards_options {
    size_t size;
    const struct geul_template *prompt_template; /* as for samples */
    uint64_t shard_tokens;                       /* most tokens of a file, at least 2; 0: 2^27, which is 256 MiB */
    struct geul_row_problems *problems;
    bool (*progress)(void *user, uint64_t done, uint64_t total); /* as for samples */
    void *user;
};

struct geul_shards_report {
    size_t size;
    int64_t documents, tokens;
    int files; /* PREFIX-00000.geulshard and so on */
};

/* Writes every row of the files as a document with its end token into token shards: files of ids, together one stream.
 * All of them appear at the end, or none does. tok must have an end token. Fails when a file cannot be read, when no
 * row can be used, and when the file after the last one exists, left from a longer run: a reader of PREFIX-* would take
 * it along. options and report may be NULL. */
GEUL_API enum geul_status geul_shards_write(struct geul_context *ctx, const struct geul_tokenizer *tok,
                                            const char *const *paths, int n_paths, const char *prefix,
                                            const struct geul_shards_options *options,
                                            struct geul_shards_report *report);

/* ----------------------------------------------------------------------------------- journal -- */
/* Stability: may still change (charts and formats to come). */

/* What a training run leaves for people to read: log.csv, log.jsonl, events for TensorBoard, report.html.
 *
 *     struct geul_journal_options o = {.size = sizeof o, .title = "finetune", .total_steps = 500, .csv = true};
 *     struct geul_journal *log = geul_journal_open(ctx, "run", &o, 0);
 *     geul_journal_step(log, &record); ... geul_journal_evaluation(log, 100, 2.31, true); ...
 *     geul_journal_flush(log);
 *     geul_journal_close(log);
 *
 * Rows, lines and events are in their files when a call returns; report.html is rewritten by flush. A failing call has
 * served the other files all the same and says which one failed; the journal can still be used. Nothing depends on the
 * locale. One thread at a time. */
struct geul_journal;

/* One optimizer step. A step number that was given before means that the run went back: the new one counts. */
struct geul_journal_record {
    size_t size;
    int64_t step;             /* from 1 */
    double loss;              /* mean nats per target */
    double learning_rate;     /* of this step */
    double grad_norm;         /* before clipping */
    double tokens_per_second; /* of this step */
    double seconds;           /* since the run began, resumes included */
    int64_t tokens, targets;  /* of this step */
    double epoch;             /* passes over the data so far */
    bool skipped;             /* the step was not applied */
};

/* A line of the report's table of settings. */
struct geul_journal_setting {
    const char *name, *value;
};

struct geul_journal_options {
    size_t size;
    const char *title;                           /* "finetune geul-mini.gguf"; UTF-8, like all texts here; copied */
    const struct geul_journal_setting *settings; /* copied */
    int n_settings;
    int64_t total_steps; /* 0: unknown */
    bool csv;            /* log.csv: a header, a row per step; an evaluation is a row with only step and eval_loss */
    bool jsonl;          /* log.jsonl: an object per line, "type" is step, evaluation, sample or event */
    bool tensorboard;    /* events.out.tfevents.SECONDS.geul; every resume adds a file */
    bool report;         /* report.html. After a resume its past comes from log.jsonl, or from log.csv, which knows no
                            events and samples; with neither it begins at the resume */
};

/* Opens the outputs in the folder dir, which exists. resume_step 0 begins anew and drops what earlier runs left (for
 * TensorBoard: hides it). Otherwise rows and events of later steps, left by a run that was interrupted, are dropped, so
 * that a resumed run leaves the log of an uninterrupted one but for times. NULL on failure. */
GEUL_API struct geul_journal *geul_journal_open(struct geul_context *ctx, const char *dir,
                                                const struct geul_journal_options *o, int64_t resume_step);
GEUL_API enum geul_status geul_journal_step(struct geul_journal *log, const struct geul_journal_record *record);
/* The held-out loss after a step (0: before the first), in nats per target; best: the lowest so far. */
GEUL_API enum geul_status geul_journal_evaluation(struct geul_journal *log, int64_t step, double loss, bool best);
/* What the model wrote after a step. Broken UTF-8 is written as U+FFFD. */
GEUL_API enum geul_status geul_journal_sample(struct geul_journal *log, int64_t step, const char *prompt,
                                              const char *text);
/* Something that happened: kind is short ("loss spike", "rewind"), text says more. */
GEUL_API enum geul_status geul_journal_event(struct geul_journal *log, int64_t step, const char *kind,
                                             const char *text);
/* The seconds of the newest step, those before a resume included. 0 without a report, whose history knows them. */
GEUL_API double geul_journal_seconds(const struct geul_journal *log);
/* Everything so far is on the disk, and report.html shows it. Replaces report.html as a whole. */
GEUL_API enum geul_status geul_journal_flush(struct geul_journal *log);
/* Closes the files without a last flush. NULL is fine. */
GEUL_API void geul_journal_close(struct geul_journal *log);

/* ----------------------------------------------------------------------------- trouble watch -- */
/* Stability: may still change (what is found odd, and how it is said). */

/* What goes wrong while a model trains, by name. The makers of Polyglot-Ko report sudden drops of the loss and broken
 * generations among their troubles. A drop is no error, but suspicious: text that comes twice, labels that can be seen.
 *
 *     struct geul_watch *w = geul_watch_new(ctx);
 *     char why[GEUL_WATCH_WHY];
 *     if (geul_watch_step(w, loss, grad_norm, why, sizeof why) == GEUL_WATCH_LOSS_SPIKE) ...
 *
 * The place for it is the judge of struct geul_train_options. One thread at a time. */
struct geul_watch;

enum geul_watch_verdict {
    GEUL_WATCH_FINE,
    GEUL_WATCH_NOT_FINITE,
    GEUL_WATCH_LOSS_SPIKE,
    GEUL_WATCH_LOSS_DROP,
    GEUL_WATCH_GRADIENT_SPIKE,
};

enum {
    GEUL_WATCH_WHY = 160, /* bytes that hold any reason */
    GEUL_WATCH_STATE_BYTES = 64,
};

/* A watch that has seen nothing. NULL when memory is short. */
GEUL_API struct geul_watch *geul_watch_new(struct geul_context *ctx);
/* NULL is fine. */
GEUL_API void geul_watch_free(struct geul_watch *w);
/* Judges a step by the steps before. why (may be NULL) gets one line that says more, "" when it is fine.
 * Nothing but NOT_FINITE is said in the first 20 steps. What was judged odd does not enter the levels, until it lasts:
 * after 10 odd steps in a row the level begins anew where the run is now. */
GEUL_API enum geul_watch_verdict geul_watch_step(struct geul_watch *w, double loss, double grad_norm, char *why,
                                                 size_t size);
/* "loss spike"; never NULL. */
GEUL_API const char *geul_watch_name(enum geul_watch_verdict v);
/* Everything that the verdicts to come depend on, to be kept in checkpoints, and a watch put back to it. The bytes are
 * this machine's; of a watch that has seen nothing they are zero. */
GEUL_API void geul_watch_get_state(const struct geul_watch *w, unsigned char state[GEUL_WATCH_STATE_BYTES]);
GEUL_API void geul_watch_set_state(struct geul_watch *w, const unsigned char state[GEUL_WATCH_STATE_BYTES]);

/* What is wrong with a text that a model wrote: "empty", "broken characters", "mostly one character", "repeats itself".
 * NULL: it looks fine. Of long texts the last 4 KiB are looked at. A character cut off at the very end is fine. */
GEUL_API const char *geul_watch_text(const char *text, size_t length);

#ifdef __cplusplus
}
#endif
#endif

/* trainer.h: a training run: what it holds, and the parts that work on it. */
#ifndef GEUL_TRAINER_H
#define GEUL_TRAINER_H

#include "core/runtime.h"
#include "train/batch.h"
#include "train/params.h"

/* The graph for batches of one shape (train/batch_graph.c): built when a batch of another shape comes, or when another
 * graph has had the runtime's memory. */
struct geul_batch_graph {
    struct geul_context *ctx; /* holds the graph; reset for another shape */
    struct geul_graph *graph;
    int n_tokens, n_rows;
    bool all_rows, backward;
    struct geul_tensor *ids, *seq_pos, *rows, *targets, *weights, *seed;
    struct geul_tensor **losses; /* per chunk of rows */
    int n_losses;
    struct geul_tensor **gradients; /* per parameter; NULL: nothing reaches it */
};

struct geul_trainer {
    struct geul_context *ctx;
    struct geul_train_options options;
    char *model_path;
    struct geul_model *model;
    int n_context;
    int32_t end_token;
    struct geul_params params;
    struct geul_batcher batcher;
    struct geul_batch *batches; /* options.n_accumulate */
    struct geul_runtime *runtime, *norm_runtime, *update_runtime;
    struct geul_batch_graph train, evaluate;
    struct geul_context *updates; /* holds the two graphs below */
    struct geul_graph *norms, *update;
    struct geul_tensor **norm; /* (2) per parameter; NULL: it has no gradient */
    struct geul_tensor *hyper;
    float *loss_rows, *row_weights; /* of a batch */
    int64_t step, steps;
    double rate_scale; /* 1, unless geul_trainer_scale_rate() changed it */
    bool stale;        /* the gradients hold a part of a step that failed: they are cleared before the next */
};

/* Makes bg the graph for a batch of that shape, unless it is already; with backward also the gradients. *fresh: it was
 * built and is not planned yet. false with the reason in t's context. */
bool geul_batch_graph_make(struct geul_trainer *t, struct geul_batch_graph *bg, const struct geul_batch *batch,
                           bool backward, bool *fresh);
bool geul_batch_graph_init(struct geul_batch_graph *bg, struct geul_context *ctx);
void geul_batch_graph_free(struct geul_batch_graph *bg);
/* Runs a batch: *sum gets the sum of the losses of its targets, in nats, without smoothing and z. weight: the factor of
 * each target's loss in the gradient. */
enum geul_status geul_batch_graph_run(struct geul_trainer *t, struct geul_batch_graph *bg,
                                      const struct geul_batch *batch, float weight, uint64_t seed, double *sum);

/* The graphs of gradient norms and of the update (train/update.c), for the gradients that t->params have now. */
bool geul_update_init(struct geul_trainer *t);
bool geul_update_make(struct geul_trainer *t);
/* Norm over all gradients; *bad gets the number of the first parameter whose gradient is not finite, -1: none. */
enum geul_status geul_update_norm(struct geul_trainer *t, double *norm, int *bad);
/* Applies the gradients times scale and clears them. */
enum geul_status geul_update_apply(struct geul_trainer *t, double rate, double scale);

/* Writes into where what is not finite: a weight, the first layer's output that is not, the gradient number
 * bad_gradient (-1: none), or the loss (train/diagnosis.c). */
enum geul_status geul_diagnose(struct geul_trainer *t, const struct geul_batch *batch, int bad_gradient, char *where,
                               size_t size);
/* Writes into where the first trained weight that is not finite; "" when all are. */
enum geul_status geul_diagnose_trained(struct geul_trainer *t, char *where, size_t size);
/* Copies the keys of the model's file to w, for a file with matrices of type, without those of its training, splitting
 * and quantization (train/export.c). */
void geul_trainer_copy_keys(const struct geul_trainer *t, struct geul_gguf_writer *w, enum geul_type type);
struct geul_lora;
/* The adapter under training as it is now, copied. NULL when memory is short; free with geul_lora_free(). */
struct geul_lora *geul_trainer_lora(struct geul_trainer *t);
/* Reads the adapter that o goes on from, and sets its rank, alpha, rslora and targets in o. NULL, recorded in ctx, when
 * o asks for others. Free with geul_lora_free(). (train/adapter_start.c) */
struct geul_lora *geul_adapter_start_read(struct geul_context *ctx, struct geul_lora_options *o);
/* Whether it fits the model and can be trained. */
enum geul_status geul_adapter_start_check(struct geul_trainer *t, const struct geul_lora *d);
/* Makes its values those of the parameters. */
enum geul_status geul_adapter_start_fill(struct geul_trainer *t, const struct geul_lora *d);
/* The devices that a model is trained on, as for geul_model_load_on(). n 0: the trainer's model opens the host's. */
struct geul_trainer_devices {
    struct geul_device *const *devices;
    int n, first_layers;
};
/* Everything but memory and graphs: checks options and loads the model. dry as in params.h. NULL on failure. */
struct geul_trainer *geul_trainer_open(struct geul_context *ctx, const struct geul_train_options *options,
                                       const struct geul_dataset *data, const struct geul_trainer_devices *where,
                                       bool dry);
/* geul_trainer_new() on given devices, which must outlive the trainer. */
struct geul_trainer *geul_trainer_new_on(struct geul_context *ctx, const struct geul_train_options *options,
                                         const struct geul_dataset *data, const struct geul_trainer_devices *where);

#endif

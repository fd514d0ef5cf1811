/* params.h: what is trained: weights with their gradients and optimizer states, on the model's devices. */
#ifndef GEUL_PARAMS_H
#define GEUL_PARAMS_H

#include "models/model.h"
#include "train/optimizer.h"

struct geul_param {
    struct geul_tensor *weight, *states[GEUL_STATES_MAX];
    /* Where a step has several batches, a leaf that they add to. Where it has one, a leaf over the gradient in the
     * training graph, made again whenever that is planned (train/batch_graph.c), NULL before: it then has memory only
     * from the moment it is computed. NULL also where nothing reaches the weight. */
    struct geul_tensor *gradient;
    bool decay; /* weight decay: of matrices, not of biases and norms, as in GPT-NeoX */
};

struct geul_params {
    struct geul_context *ctx;
    struct geul_model *model;
    struct geul_context *leaves; /* holds the tensors */
    struct geul_param *items;
    int n;
    int64_t elements;
    bool adds;                                        /* batches add to gradients */
    size_t weight_bytes, gradient_bytes, state_bytes; /* weights: also those in the model's own buffers */
    struct geul_buffer *buffers;
    int n_buffers;
    /* The adapter under training, when there is one, as the model sees it. */
    struct geul_neox_adapter adapter;
    const struct geul_neox_adapter *adapters[1];
};

/* All weights of a model that holds them as its own (lora.rank 0), or a fresh adapter next to the model's weights,
 * which is attached to the model: A random, B zero. dry: tensors without memory, for estimates. false with the reason
 * in ctx; free in any case. */
bool geul_params_make(struct geul_params *p, struct geul_context *ctx, struct geul_model *model,
                      const struct geul_train_options *o, bool dry);
void geul_params_free(struct geul_params *p);
/* Sets gradients that batches add to back to zero. */
enum geul_status geul_params_clear(struct geul_params *p);
/* Tensor number i of a saved state, whose order is: of each parameter the weight, then its states. name (GEUL_MAX_NAME
 * bytes) gets its name there. NULL behind the last. */
struct geul_tensor *geul_params_saved(const struct geul_params *p, int i, char *name);

#endif

/* fit.h: what a model and its sessions take of each device, and which of its parts go where, before anything of it is
 * loaded. What it counts is what is allocated later: weights as weights.c packs them, caches as session.c makes them,
 * and working memory as the scheduler and the backends measure it for the graphs of the largest batch and of one token
 * per sequence. */
#ifndef GEUL_FIT_H
#define GEUL_FIT_H

#include "models/neox.h"
#include "models/placement.h"

#include "core/device_list.h"

/* One device. */
struct geul_fit_device {
    struct geul_device *device;
    size_t free_bytes, total_bytes;
    /* Of the free bytes these are left alone where the plan chooses how much to put there: a sixteenth of the device's
     * memory, 512 MiB at most, for the driver, the screen and what else uses it; and reserve_bytes of the options. */
    size_t reserve;
    size_t weights, cache, working; /* bytes that go there */
    size_t step_bytes;              /* of the weights, those that every step reads: all but the embedding */
    int n_layers;
    bool embedding, output;
};

struct geul_fit {
    struct geul_model_shape shape;
    struct geul_fit_device at[GEUL_MAX_DEVICES]; /* as the devices were given: the CPU first */
    int n;
    size_t also_reserved;            /* reserve_bytes of the options */
    struct geul_placement placement; /* its layers belong to the fit */
    bool fits;                       /* false: a card cannot hold what was asked for */
    int n_context, n_sequences, n_batch;
    enum geul_type cache_type;
    size_t cache_bytes, position_bytes; /* of all devices; of one position of one sequence */
    size_t weight_bytes;
    double bits_per_weight;
    /* Where it does not fit, or the plan chose and not everything is on cards: what would fit of what was asked for, or
     * of everything. */
    bool has_alternatives;
    int most_layers;    /* with the rest as it is; n_layers + 1: with the output */
    int most_context;   /* positions per sequence; 0: none would do */
    bool smaller_cache; /* a Q8_0 cache would do */
    double most_bits;   /* bits per weight of a file that would do; 0: none would */
};

/* Plans for the model of g on devices, as geul_model_options says. Free with geul_fit_free(), also after a failure. */
enum geul_status geul_fit_plan(struct geul_context *ctx, const struct geul_gguf *g, const struct geul_devices *devices,
                               const struct geul_model_options *options, struct geul_fit *out);
void geul_fit_free(struct geul_context *ctx, struct geul_fit *fit);
/* Records that fit does not fit, with what is missing and what would do. */
enum geul_status geul_fit_fail(struct geul_context *ctx, const struct geul_fit *fit);
/* The device of a weight, layer -1 outside of the layers. tied: geul_fit_tied(), whether the file has no matrix of
 * logits, so that the embedding is used in its place. */
int geul_fit_device(const struct geul_placement *p, bool tied, const struct geul_gguf_tensor *t, int layer);
bool geul_fit_tied(const struct geul_gguf *g);
/* Whether options leave it to the plan how many layers go to cards. */
bool geul_fit_chooses(const struct geul_model_options *options);

#endif

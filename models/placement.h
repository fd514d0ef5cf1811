/* placement.h: which of its devices every part of a model goes to. Arithmetic alone: no device is asked.
 *
 * Devices are numbered as a model's are: 0 is the CPU, cards follow in the order in which they were named.
 *
 *   layers     the last n of them lie on cards, in blocks: the first card has the lowest, and so on, so that a token
 *              visits each card once. What is below lies on the CPU
 *   output     (the last norm, the matrix of logits) counts as the layer after the last: with n = n_layers + 1 it lies
 *              on the last card, otherwise on the CPU
 *   embedding  with the first layer where all layers lie on cards, otherwise on the CPU
 */
#ifndef GEUL_PLACEMENT_H
#define GEUL_PLACEMENT_H

#include "backends/backend.h"

/* What the parts of a model take, in bytes. */
struct geul_placement_costs {
    int n_layers;
    const size_t *layers; /* of each: weights and cache */
    size_t embedding, output;
};

/* What a device has to give. Of the CPU's nothing is asked. */
struct geul_placement_room {
    size_t bytes;          /* SIZE_MAX: as many as wanted */
    size_t working;        /* that computing takes of them, on a card that has anything */
    size_t working_output; /* the same on the card that has the output */
    double share;          /* of the layers, in any unit; all 0: by the bytes that are there */
};

struct geul_placement {
    int *layers; /* the device of each; the caller's room for n_layers */
    int embedding, output;
    int n;                          /* layers on cards, n_layers + 1 with the output */
    size_t taken[GEUL_MAX_DEVICES]; /* bytes of each device, working memory included; 0: it has nothing */
    bool fits;                      /* no card is asked for more than it has */
};

/* Places the last n layers on cards 1 to n_devices - 1; with n 0, or without cards, everything on the CPU. */
void geul_placement_make(const struct geul_placement_costs *costs, const struct geul_placement_room *rooms,
                         int n_devices, int n, struct geul_placement *out);
/* Places as many as fit. */
void geul_placement_most(const struct geul_placement_costs *costs, const struct geul_placement_room *rooms,
                         int n_devices, struct geul_placement *out);

#endif

/* placement.c: see placement.h. */
#include "models/placement.h"

#include "core/context.h"

#include <string.h>

/* Adds bytes to what device d has; SIZE_MAX stays. */
static void take(struct geul_placement *p, int d, size_t bytes)
{
    if (!geul_add_size(p->taken[d], bytes, &p->taken[d]))
        p->taken[d] = SIZE_MAX;
}

/* Adds up what every device has by p's parts, and whether that is there. */
static void count(const struct geul_placement_costs *costs, const struct geul_placement_room *rooms, int n_devices,
                  struct geul_placement *p)
{
    memset(p->taken, 0, sizeof p->taken);
    for (int i = 0; i < costs->n_layers; i++)
        take(p, p->layers[i], costs->layers[i]);
    take(p, p->embedding, costs->embedding);
    take(p, p->output, costs->output);
    p->fits = true;
    for (int d = 0; d < n_devices; d++) {
        if (p->taken[d] > 0)
            take(p, d, d == p->output ? rooms[d].working_output : rooms[d].working);
        p->fits = p->fits && (d == GEUL_DEVICE_HOST || p->taken[d] <= rooms[d].bytes);
    }
}

/* The device of the embedding once that of the layers is known. */
static int embedding_device(const struct geul_placement_costs *costs, const struct geul_placement *p)
{
    return p->n >= costs->n_layers && costs->n_layers > 0 ? p->layers[0] : GEUL_DEVICE_HOST;
}

/* What card d may be given, in the unit that shares are counted in. */
static double weight_of(const struct geul_placement_room *rooms, int n_devices, int d)
{
    bool given = false;
    for (int i = 1; i < n_devices; i++)
        given = given || rooms[i].share > 0;
    if (given)
        return rooms[d].share;
    size_t bytes = rooms[d].bytes;
    return bytes > rooms[d].working ? (double)(bytes - rooms[d].working) : 0;
}

/* Gives layers from `first` on to the cards by their shares of the bytes: each layer goes to the card within whose
 * share its middle lies. */
static void divide(const struct geul_placement_costs *costs, const struct geul_placement_room *rooms, int n_devices,
                   int first, struct geul_placement *p)
{
    double bytes = 0, all = 0, done = 0, reached;
    int d = 1;
    for (int i = first; i < costs->n_layers; i++)
        bytes += (double)costs->layers[i];
    for (int i = 1; i < n_devices; i++)
        all += weight_of(rooms, n_devices, i);
    reached = all > 0 ? weight_of(rooms, n_devices, 1) / all * bytes : bytes;
    for (int i = first; i < costs->n_layers; i++) {
        double middle = done + (double)costs->layers[i] / 2;
        while (middle > reached && d + 1 < n_devices)
            reached += weight_of(rooms, n_devices, ++d) / all * bytes;
        p->layers[i] = d;
        done += (double)costs->layers[i];
    }
}

/* Gives each card in turn as many layers as it has room for; the output goes with the last layer. If anything fits in
 * blocks, this does: no card leaves to a later one what it could have taken. */
static void fill(const struct geul_placement_costs *costs, const struct geul_placement_room *rooms, int n_devices,
                 int first, struct geul_placement *p)
{
    int d = 1;
    size_t used = p->n >= costs->n_layers ? costs->embedding : 0;
    for (int i = first; i < costs->n_layers; i++) {
        bool ends = i + 1 == costs->n_layers && p->n > costs->n_layers;
        for (bool fits = false; !fits && d + 1 < n_devices;) {
            size_t with = ends ? costs->output : 0;
            fits = geul_add_size(with, used, &with) && geul_add_size(with, costs->layers[i], &with) &&
                   geul_add_size(with, ends ? rooms[d].working_output : rooms[d].working, &with) &&
                   with <= rooms[d].bytes;
            d += !fits;
            used = fits ? used : 0;
        }
        p->layers[i] = d;
        if (!geul_add_size(used, costs->layers[i], &used))
            used = SIZE_MAX;
    }
}

/* Puts the parts outside of the layers where placement.h says, and counts. */
static void finish(const struct geul_placement_costs *costs, const struct geul_placement_room *rooms, int n_devices,
                   struct geul_placement *p)
{
    p->embedding = embedding_device(costs, p);
    p->output = p->n > costs->n_layers ? n_devices - 1 : GEUL_DEVICE_HOST;
    /* The last card that has layers, so that no token visits a card for the output alone. */
    if (p->output != GEUL_DEVICE_HOST && costs->n_layers > 0)
        p->output = p->layers[costs->n_layers - 1];
    count(costs, rooms, n_devices, p);
}

void geul_placement_make(const struct geul_placement_costs *costs, const struct geul_placement_room *rooms,
                         int n_devices, int n, struct geul_placement *out)
{
    int most = costs->n_layers + 1;
    out->n = n_devices < 2 || n < 0 ? 0 : n < most ? n : most;
    int on_cards = out->n < costs->n_layers ? out->n : costs->n_layers, first = costs->n_layers - on_cards;
    for (int i = 0; i < first; i++)
        out->layers[i] = GEUL_DEVICE_HOST;
    divide(costs, rooms, n_devices, first, out);
    finish(costs, rooms, n_devices, out);
    bool given = false;
    for (int d = 1; d < n_devices; d++)
        given = given || rooms[d].share > 0;
    if (out->fits || given || n_devices < 3)
        return;
    fill(costs, rooms, n_devices, first, out);
    finish(costs, rooms, n_devices, out);
    if (out->fits)
        return;
    divide(costs, rooms, n_devices, first, out);
    finish(costs, rooms, n_devices, out);
}

void geul_placement_most(const struct geul_placement_costs *costs, const struct geul_placement_room *rooms,
                         int n_devices, struct geul_placement *out)
{
    int n = costs->n_layers + 1;
    do
        geul_placement_make(costs, rooms, n_devices, n, out);
    while (!out->fits && n-- > 0);
}

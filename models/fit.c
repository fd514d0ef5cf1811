/* fit.c: see fit.h. The graphs are made over a copy of the model's tensors that has no memory: only on which device a
 * tensor lies counts.
 *
 * Working memory depends on what lies where, and what fits depends on working memory. So it is measured first with
 * everything on one card, for each card, which says what a card needs with and without the output; with that the parts
 * are placed; and the placement that comes out is measured itself. Should it need more than was thought, there is one
 * layer less on the cards, and so on. */
#include "models/fit.h"

#include "models/step.h"

#include "core/bytes.h"
#include "core/runtime.h"

#include <stdio.h>
#include <string.h>

enum { MOST_RESERVE = 512 << 20, RESERVE_PART = 16 };

struct planner {
    struct geul_context *ctx;
    const struct geul_gguf *g;
    const struct geul_devices *devices;
    struct geul_queue_options computing;
    struct geul_runtime *rt;
    struct geul_fit *fit;
    bool tied;        /* the embedding is the matrix of logits too */
    size_t alignment; /* the largest of all cards */
    size_t cache;     /* bytes of one layer's, keys and values */
    size_t *layers;   /* bytes of each layer's weights */
    size_t embedding, output;
    struct geul_placement_room rooms[GEUL_MAX_DEVICES];
};

static size_t aligned(size_t bytes, size_t alignment)
{
    return (bytes + alignment - 1) & ~(alignment - 1); /* bytes of a file: they do not overflow */
}

int geul_fit_device(const struct geul_placement *p, bool tied, const struct geul_gguf_tensor *t, int layer)
{
    if (layer >= 0)
        return p->layers[layer];
    bool embedding = geul_neox_role_of(t->name, t->n_dims) == GEUL_NEOX_ROLE_EMBEDDING;
    return embedding && !tied ? p->embedding : p->output;
}

bool geul_fit_tied(const struct geul_gguf *g)
{
    char name[GEUL_MAX_NAME];
    geul_neox_tensor_name(name, geul_neox_role_info(GEUL_NEOX_ROLE_OUTPUT), -1);
    return !geul_gguf_find_tensor(g, name);
}

/* ------------------------------------------------------------------------ without any memory -- */

/* The model's tensors, without memory, on the devices of a placement. */
struct dry {
    const struct planner *p;
    const struct geul_placement *placement;
    struct geul_context *ctx;
    struct geul_neox neox;
    struct geul_buffer buffers[GEUL_MAX_DEVICES];
};

static struct geul_tensor *make_leaf(void *user, const struct geul_gguf_tensor *t, int layer)
{
    struct dry *dry = user;
    int d = geul_fit_device(dry->placement, dry->p->tied, t, layer);
    return geul_leaf(dry->ctx, t->type, t->n_dims, t->shape, t->name, &dry->buffers[d], NULL);
}

/* Adds to needs what the graph of n tokens takes, all with logits: values, which graphs share, and working memory, of
 * which each has its own. */
static enum geul_status add_graph(struct dry *dry, struct geul_tensor *const *k, struct geul_tensor *const *v, int n,
                                  struct geul_runtime_needs needs[GEUL_MAX_DEVICES])
{
    struct geul_runtime_needs more[GEUL_MAX_DEVICES];
    struct geul_context *ctx = geul_context_new_like(dry->p->ctx);
    if (!ctx)
        return (void)geul_fail_memory(dry->p->ctx, sizeof *dry), GEUL_ERROR_MEMORY;
    struct geul_step step;
    enum geul_status status = geul_step_build(ctx, &dry->neox, k, v, n, n, &step) ? GEUL_OK : GEUL_ERROR_MEMORY;
    if (status == GEUL_OK)
        status = geul_runtime_measure(dry->p->rt, step.graph, more);
    for (int d = 0; d < dry->p->devices->n && status == GEUL_OK; d++) {
        needs[d].values = more[d].values > needs[d].values ? more[d].values : needs[d].values;
        if (!geul_add_size(needs[d].working, more[d].working, &needs[d].working))
            needs[d].working = SIZE_MAX;
    }
    if (status != GEUL_OK)
        status = geul_fail_from(dry->p->ctx, ctx);
    geul_context_free(ctx);
    return status;
}

/* Binds the tensors of dry, makes the caches, and adds up the graphs. */
static enum geul_status measure_dry(struct dry *dry, struct geul_runtime_needs needs[GEUL_MAX_DEVICES])
{
    const struct geul_fit *fit = dry->p->fit;
    int n_layers = fit->shape.n_layers;
    enum geul_status status = geul_neox_bind(dry->ctx, dry->p->g, &dry->neox, make_leaf, dry, false);
    struct geul_tensor **k = NULL, **v = NULL;
    if (status == GEUL_OK) {
        k = geul_arena(dry->ctx, (size_t)n_layers, sizeof(struct geul_tensor *));
        v = geul_arena(dry->ctx, (size_t)n_layers, sizeof(struct geul_tensor *));
    }
    bool ok = k && v;
    for (int i = 0; i < n_layers && ok; i++) {
        struct geul_buffer *b = &dry->buffers[dry->placement->layers[i]];
        k[i] = geul_step_cache(dry->ctx, &fit->shape, fit->cache_type, fit->n_sequences, fit->n_context, "k", b, NULL);
        v[i] = geul_step_cache(dry->ctx, &fit->shape, fit->cache_type, fit->n_sequences, fit->n_context, "v", b, NULL);
        ok = k[i] && v[i];
    }
    if (!ok)
        return geul_fail_from(dry->p->ctx, dry->ctx);
    int64_t held = (int64_t)fit->n_sequences * fit->n_context;
    int most = fit->n_batch < held ? fit->n_batch : (int)held;
    status = add_graph(dry, k, v, most, needs);
    int one = fit->n_sequences < most ? fit->n_sequences : most;
    return status == GEUL_OK && one != most ? add_graph(dry, k, v, one, needs) : status;
}

/* The bytes that computing takes on every device, with the parts of the model where placement says. */
static enum geul_status measure(const struct planner *p, const struct geul_placement *placement,
                                size_t working[GEUL_MAX_DEVICES])
{
    struct geul_runtime_needs needs[GEUL_MAX_DEVICES] = {{0}};
    struct dry dry = {.p = p, .placement = placement, .ctx = geul_context_new_like(p->ctx)};
    if (!dry.ctx)
        return (void)geul_fail_memory(p->ctx, sizeof dry), GEUL_ERROR_MEMORY;
    for (int d = 0; d < p->devices->n; d++)
        dry.buffers[d] = (struct geul_buffer){.device = p->devices->at[d]};
    enum geul_status status = measure_dry(&dry, needs);
    for (int d = 0; d < p->devices->n; d++)
        if (!geul_add_size(needs[d].values, needs[d].working, &working[d]))
            working[d] = SIZE_MAX;
    geul_context_free(dry.ctx);
    return status;
}

/* ------------------------------------------------------------------------------------- rooms -- */

/* What a card has to give for the model: a cache tensor that is larger than its largest buffer cannot lie there. */
static size_t room_of(const struct planner *p, const struct geul_fit_device *f, size_t also_free)
{
    if (p->cache / 2 > f->device->max_buffer)
        return 0;
    if (f->total_bytes == 0)
        return SIZE_MAX;
    size_t kept;
    if (!geul_add_size(f->reserve, also_free, &kept))
        kept = SIZE_MAX;
    return f->free_bytes > kept ? f->free_bytes - kept : 0;
}

/* Measures with everything on card d, with the output and without. */
static enum geul_status measure_card(struct planner *p, int d, struct geul_placement *trial)
{
    size_t working[GEUL_MAX_DEVICES] = {0};
    for (int i = 0; i < p->fit->shape.n_layers; i++)
        trial->layers[i] = d;
    trial->embedding = trial->output = d;
    enum geul_status status = measure(p, trial, working);
    p->rooms[d].working_output = working[d];
    trial->output = GEUL_DEVICE_HOST;
    if (status == GEUL_OK)
        status = measure(p, trial, working);
    p->rooms[d].working = working[d];
    return status;
}

static enum geul_status make_rooms(struct planner *p, const struct geul_model_options *o)
{
    enum geul_status status = GEUL_OK;
    for (int d = 1; d < p->fit->n && status == GEUL_OK; d++) {
        p->rooms[d].bytes = room_of(p, &p->fit->at[d], o->reserve_bytes);
        p->rooms[d].share = o->tensor_split[d - 1] > 0 ? (double)o->tensor_split[d - 1] : 0;
        status = measure_card(p, d, &p->fit->placement);
    }
    return status;
}

/* ----------------------------------------------------------------------------------- placing -- */

/* How many layers go to cards at most, the output counted. */
static int wish_of(const struct geul_fit *fit, const struct geul_model_options *o)
{
    int all = fit->shape.n_layers + 1;
    if (o->n_gpu_layers == GEUL_LAYERS_NONE)
        return 0;
    return o->n_gpu_layers > 0 && o->n_gpu_layers < all ? o->n_gpu_layers : all;
}

bool geul_fit_chooses(const struct geul_model_options *o)
{
    return o->n_gpu_layers == GEUL_LAYERS_AUTO;
}

/* The costs with weights of `part` of their size (1: as they are) and `cache` bytes of cache per layer. layers: room.
 */
static struct geul_placement_costs costs_of(const struct planner *p, double part, size_t cache, size_t *layers)
{
    struct geul_placement_costs costs = {p->fit->shape.n_layers, layers, (size_t)((double)p->embedding * part),
                                         (size_t)((double)p->output * part)};
    for (int i = 0; i < costs.n_layers; i++)
        if (!geul_add_size((size_t)((double)p->layers[i] * part), cache, &layers[i]))
            layers[i] = SIZE_MAX;
    return costs;
}

/* Fills in what every device gets, and whether that is there. */
static enum geul_status count(struct planner *p)
{
    struct geul_fit *fit = p->fit;
    size_t working[GEUL_MAX_DEVICES] = {0};
    for (int d = 0; d < fit->n; d++) {
        fit->at[d].weights = fit->at[d].step_bytes = fit->at[d].cache = 0;
        fit->at[d].n_layers = 0;
        fit->at[d].embedding = fit->placement.embedding == d;
        fit->at[d].output = fit->placement.output == d;
    }
    for (int64_t i = 0; i < geul_gguf_tensor_count(p->g); i++) {
        const struct geul_gguf_tensor *t = geul_gguf_tensor_at(p->g, i);
        int layer = geul_neox_layer_of(t->name);
        if (layer >= fit->shape.n_layers || geul_neox_role_of(t->name, t->n_dims) == GEUL_NEOX_ROLE_OTHER)
            continue;
        int d = geul_fit_device(&fit->placement, p->tied, t, layer);
        bool embedding = geul_neox_role_of(t->name, t->n_dims) == GEUL_NEOX_ROLE_EMBEDDING;
        fit->at[d].weights += d == GEUL_DEVICE_HOST ? t->bytes : aligned(t->bytes, fit->at[d].device->alignment);
        fit->at[d].step_bytes += embedding && !p->tied ? 0 : t->bytes;
    }
    for (int i = 0; i < fit->shape.n_layers; i++) {
        fit->at[fit->placement.layers[i]].cache += p->cache;
        fit->at[fit->placement.layers[i]].n_layers++;
    }
    enum geul_status status = measure(p, &fit->placement, working);
    fit->fits = true;
    for (int d = 0; d < fit->n; d++) {
        struct geul_fit_device *f = &fit->at[d];
        f->working = working[d];
        size_t all;
        bool there = geul_add_size(f->weights, f->cache, &all) && geul_add_size(all, f->working, &all) &&
                     (d == GEUL_DEVICE_HOST || all <= p->rooms[d].bytes);
        fit->fits = fit->fits && there;
    }
    return status;
}

/* Places the parts as the options want it. */
static enum geul_status place(struct planner *p, const struct geul_model_options *o, size_t *layers)
{
    struct geul_fit *fit = p->fit;
    struct geul_placement_costs costs = costs_of(p, 1, p->cache, layers);
    if (geul_fit_chooses(o))
        geul_placement_most(&costs, p->rooms, fit->n, &fit->placement);
    else
        geul_placement_make(&costs, p->rooms, fit->n, wish_of(fit, o), &fit->placement);
    enum geul_status status = count(p);
    while (status == GEUL_OK && !fit->fits && geul_fit_chooses(o) && fit->placement.n > 0) {
        geul_placement_make(&costs, p->rooms, fit->n, fit->placement.n - 1, &fit->placement);
        status = count(p);
    }
    return status;
}

/* --------------------------------------------------------------------- what would do instead -- */

/* Whether n layers fit with weights of that part of their size and a cache of n_context positions of that type. */
static bool would_fit(const struct planner *p, int n, double part, enum geul_type type, int n_context, size_t *layers,
                      struct geul_placement *trial)
{
    size_t bytes;
    if (!geul_step_cache_bytes(&p->fit->shape, type, p->fit->n_sequences, n_context, &bytes) || bytes > SIZE_MAX / 2)
        return false;
    struct geul_placement_costs costs = costs_of(p, part, 2 * bytes, layers);
    geul_placement_make(&costs, p->rooms, p->fit->n, n, trial);
    return trial->fits;
}

/* Fills in the alternatives to what was asked for, or to everything where the plan chose. */
static void find_alternatives(struct planner *p, const struct geul_model_options *o, size_t *layers,
                              struct geul_placement *trial)
{
    struct geul_fit *fit = p->fit;
    int n = wish_of(fit, o), low = 0, high = fit->n_context, d_head = fit->shape.d_head;
    struct geul_placement_costs costs = costs_of(p, 1, p->cache, layers);
    geul_placement_most(&costs, p->rooms, fit->n, trial);
    fit->most_layers = trial->n;
    while (low < high) { /* low fits, or is 0; high + 1 does not, or is not asked about */
        int middle = low + (high - low + 1) / 2;
        if (would_fit(p, n, 1, fit->cache_type, middle, layers, trial))
            low = middle;
        else
            high = middle - 1;
    }
    fit->most_context = low;
    bool smaller = d_head % geul_type_block(GEUL_TYPE_Q8_0) == 0 && fit->cache_type != GEUL_TYPE_Q8_0;
    fit->smaller_cache = smaller && would_fit(p, n, 1, GEUL_TYPE_Q8_0, fit->n_context, layers, trial);
    int least = 0, most = 100; /* percent */
    while (least < most) {
        int middle = least + (most - least + 1) / 2;
        if (would_fit(p, n, middle / 100.0, fit->cache_type, fit->n_context, layers, trial))
            least = middle;
        else
            most = middle - 1;
    }
    fit->most_bits = fit->bits_per_weight * least / 100;
}

static enum geul_status say_size(struct geul_context *ctx, const struct geul_fit *fit, const struct geul_fit_device *f)
{
    char text[500] = "", b[5][32];
    size_t n = 0;
    int n_layers = fit->shape.n_layers;
    if (fit->most_layers > 0)
        n += (size_t)snprintf(text + n, sizeof text - n, ", %d of %d layers there",
                              fit->most_layers < n_layers ? fit->most_layers : n_layers, n_layers);
    if (fit->most_context > 0 && fit->most_context < fit->n_context)
        n += (size_t)snprintf(text + n, sizeof text - n, ", a context of %d positions", fit->most_context);
    if (fit->smaller_cache)
        n += (size_t)snprintf(text + n, sizeof text - n, ", a q8_0 cache");
    if (fit->most_bits > 0)
        snprintf(text + n, sizeof text - n, ", a file of at most %.1f bits per weight (this one has %.1f)",
                 fit->most_bits, fit->bits_per_weight);
    return geul_fail(ctx, GEUL_ERROR_MEMORY,
                     "%s (%s) is too small: %d layers%s need %s there (weights %s, cache %s, working memory %s), and "
                     "%s are free. %s%s",
                     f->device->name, f->device->id, f->n_layers, f->output ? " and the output" : "",
                     geul_bytes_text(f->weights + f->cache + f->working, b[0], sizeof b[0]),
                     geul_bytes_text(f->weights, b[1], sizeof b[1]), geul_bytes_text(f->cache, b[2], sizeof b[2]),
                     geul_bytes_text(f->working, b[3], sizeof b[3]), geul_bytes_text(f->free_bytes, b[4], sizeof b[4]),
                     *text ? "Any of these would fit: " : "Leave the model on the CPU", *text ? text + 2 : "");
}

enum geul_status geul_fit_fail(struct geul_context *ctx, const struct geul_fit *fit)
{
    for (int d = 1; d < fit->n; d++) {
        const struct geul_fit_device *f = &fit->at[d];
        size_t all = f->weights + f->cache + f->working, kept = f->reserve + fit->also_reserved;
        if (f->total_bytes > 0 && all > (f->free_bytes > kept ? f->free_bytes - kept : 0))
            return say_size(ctx, fit, f);
    }
    return geul_fail(ctx, GEUL_ERROR_MEMORY,
                     "a cache of %d sequences of %d positions has tensors larger than the largest buffer of a device",
                     fit->n_sequences, fit->n_context);
}

/* ------------------------------------------------------------------------------------- whole -- */

/* Adds a weight to what its part takes. */
static struct geul_tensor *count_weight(void *user, const struct geul_gguf_tensor *t, int layer)
{
    struct dry *dry = user;
    struct planner *p = (struct planner *)(uintptr_t)dry->p;
    bool embedding = geul_neox_role_of(t->name, t->n_dims) == GEUL_NEOX_ROLE_EMBEDDING;
    size_t *part = layer >= 0 ? &p->layers[layer] : embedding && !p->tied ? &p->embedding : &p->output;
    *part += aligned(t->bytes, p->alignment);
    p->fit->weight_bytes += t->bytes;
    return geul_leaf(dry->ctx, t->type, t->n_dims, t->shape, t->name, &dry->buffers[0], NULL);
}

/* Fills the sizes of the model and of its sessions. */
static enum geul_status count_model(struct planner *p, const struct geul_session_options *session)
{
    struct geul_fit *fit = p->fit;
    struct dry dry = {.p = p, .ctx = geul_context_new_like(p->ctx)};
    if (!dry.ctx)
        return (void)geul_fail_memory(p->ctx, sizeof dry), GEUL_ERROR_MEMORY;
    enum geul_status status = geul_neox_bind(dry.ctx, p->g, &dry.neox, count_weight, &dry, false);
    if (status != GEUL_OK)
        geul_fail_from(p->ctx, dry.ctx);
    fit->shape = dry.neox.shape;
    geul_context_free(dry.ctx);
    struct geul_session_options s;
    if (status == GEUL_OK)
        status = geul_session_sizes(p->ctx, session, &fit->shape, &s);
    if (status != GEUL_OK)
        return status;
    fit->n_context = s.n_context;
    fit->n_sequences = s.n_sequences;
    fit->n_batch = s.n_batch;
    fit->cache_type = s.cache_type;
    fit->bits_per_weight = fit->shape.n_params ? 8.0 * (double)fit->weight_bytes / (double)fit->shape.n_params : 0;
    p->computing = (struct geul_queue_options){.n_threads = s.n_threads, .exact = s.exact};
    size_t one, each;
    if (!geul_step_cache_bytes(&fit->shape, s.cache_type, s.n_sequences, s.n_context, &one) ||
        !geul_step_cache_bytes(&fit->shape, s.cache_type, 1, 1, &each) ||
        !geul_mul_size(one, 2 * (size_t)fit->shape.n_layers, &fit->cache_bytes))
        return geul_fail(p->ctx, GEUL_ERROR_MEMORY, "a cache of %d sequences of %d positions is too large",
                         s.n_sequences, s.n_context);
    p->cache = 2 * one;
    fit->position_bytes = 2 * each * (size_t)fit->shape.n_layers;
    return GEUL_OK;
}

/* Fills in what there is of each device. */
static void look_at_devices(struct planner *p, const struct geul_model_options *o)
{
    struct geul_fit *fit = p->fit;
    fit->n = p->devices->n;
    fit->also_reserved = o->reserve_bytes;
    p->alignment = 1;
    for (int d = 0; d < fit->n; d++) {
        struct geul_fit_device *f = &fit->at[d];
        f->device = p->devices->at[d];
        f->device->backend->memory(f->device, &f->free_bytes, &f->total_bytes);
        size_t part = f->total_bytes / RESERVE_PART;
        if (d != GEUL_DEVICE_HOST && geul_fit_chooses(o))
            f->reserve = part < MOST_RESERVE ? part : MOST_RESERVE;
        if (d != GEUL_DEVICE_HOST && f->device->alignment > p->alignment)
            p->alignment = f->device->alignment;
    }
}

enum geul_status geul_fit_plan(struct geul_context *ctx, const struct geul_gguf *g, const struct geul_devices *devices,
                               const struct geul_model_options *options, struct geul_fit *out)
{
    static const struct geul_model_options defaults = {0};
    const struct geul_model_options *o = options ? options : &defaults;
    *out = (struct geul_fit){.n = 0};
    struct planner p = {.ctx = ctx, .g = g, .devices = devices, .fit = out, .tied = geul_fit_tied(g)};
    look_at_devices(&p, o);
    /* As many as there can be; how many there are is known when the file has been found whole. */
    p.layers = geul_alloc(ctx, GEUL_NEOX_MOST_LAYERS, sizeof *p.layers);
    size_t *layers = geul_alloc(ctx, GEUL_NEOX_MOST_LAYERS, sizeof *layers);
    struct geul_placement trial = {.layers = geul_alloc(ctx, GEUL_NEOX_MOST_LAYERS, sizeof *trial.layers)};
    out->placement.layers = geul_alloc(ctx, GEUL_NEOX_MOST_LAYERS, sizeof *out->placement.layers);
    enum geul_status status = GEUL_ERROR_MEMORY;
    if (p.layers && layers && trial.layers && out->placement.layers)
        status = count_model(&p, o->session);
    if (status == GEUL_OK) {
        p.rt = geul_runtime_new_on(ctx, devices->at, devices->n, &p.computing);
        status = p.rt ? make_rooms(&p, o) : geul_error_status(ctx);
    }
    if (status == GEUL_OK)
        status = place(&p, o, layers);
    bool all = out->n == 1 || out->placement.n > out->shape.n_layers;
    out->has_alternatives = status == GEUL_OK && (!out->fits || (geul_fit_chooses(o) && !all));
    if (out->has_alternatives)
        find_alternatives(&p, o, layers, &trial);
    geul_runtime_free(p.rt);
    geul_free(ctx, p.layers);
    geul_free(ctx, layers);
    geul_free(ctx, trial.layers);
    return status;
}

void geul_fit_free(struct geul_context *ctx, struct geul_fit *fit)
{
    geul_free(ctx, fit->placement.layers);
    fit->placement.layers = NULL;
}

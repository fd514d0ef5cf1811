/* session.c: the KV cache with several sequences, and running the model's graph over batches of tokens.
 *
 * What holds between calls: of sequence s, positions [0, length[s]) are valid, in the keys and values of every layer
 * and in tokens; what is behind them is garbage that nothing reads. An evaluation writes behind length only, and a
 * token attends to positions up to its own, which are valid or written by the same evaluation. length grows after the
 * last batch has succeeded, so a failure, or a callback that stops, needs no undoing.
 *
 *     position   0 ............... length - 1 | length ............ n_context - 1
 *                valid                        | written by the evaluation in progress, otherwise garbage
 */
#include "models/session.h"

#include "models/step.h"

#include <string.h>

/* The graph of one batch shape. */
struct shape {
    struct geul_context *ctx; /* holds the graph, and the failures of its runs */
    struct geul_step step;    /* its graph is NULL: none yet */
    int n_tokens, n_rows;
    uint64_t used; /* when, in counts of batches */
};

/* Prompts and the tokens that follow them alternate without being built and planned again. */
enum { N_SHAPES = 2 };

struct geul_session {
    struct geul_context *ctx;    /* the caller's */
    struct geul_context *leaves; /* cache tensors */
    struct shape shapes[N_SHAPES];
    uint64_t clock; /* for shape.used */
    const struct geul_model *model;
    struct geul_runtime *runtime;
    int n_context, n_sequences, n_batch;
    struct geul_queue_options computing;
    enum geul_type cache_type;
    struct geul_tensor **k, **v; /* per layer (S, H, P, D) */
    struct geul_buffer *buffers; /* k and v of layer i at 2i and 2i + 1 */
    int n_buffers;
    size_t cache_bytes;
    int *length;                    /* per sequence */
    int32_t *tokens;                /* (S, P) */
    int *next_length;               /* per sequence: length once the evaluation in progress has succeeded */
    int32_t *ids, *seq_pos, *rows;  /* host copies of the inputs, n_batch each (seq_pos 2 n_batch) */
    struct geul_batch_item *items;  /* n_batch, for geul_session_append() */
    float *logits;                  /* one row, in memory of the host that the device copies to fastest */
    geul_session_observer observer; /* NULL: none */
    void *observer_user;
    float *observed; /* host copy of what is shown, observed_bytes */
    size_t observed_bytes;
};

/* ---------------------------------------------------------------------------------- lifetime -- */

/* Cache tensor number i (k and v alternate) on the device of its layer. NULL on failure. */
static struct geul_tensor *new_cache(struct geul_session *s, int i)
{
    const struct geul_model_shape *shape = &s->model->neox.shape;
    size_t bytes;
    if (!geul_step_cache_bytes(shape, s->cache_type, s->n_sequences, s->n_context, &bytes)) {
        geul_fail(s->ctx, GEUL_ERROR_MEMORY, "a cache of %d sequences of %d positions is too large", s->n_sequences,
                  s->n_context);
        return NULL;
    }
    struct geul_device *device = geul_model_layer_device(s->model, i / 2);
    struct geul_buffer *b = &s->buffers[i];
    if (geul_device_buffer(s->ctx, device, bytes, "a cache tensor (fewer sequences or positions are smaller)", b) !=
        GEUL_OK)
        return NULL;
    s->n_buffers = i + 1; /* from here on geul_session_free() frees it */
    s->cache_bytes += bytes;
    struct geul_tensor *t = geul_step_cache(s->leaves, shape, s->cache_type, s->n_sequences, s->n_context,
                                            i % 2 ? "v_cache" : "k_cache", b, b->base);
    if (!t)
        geul_fail_from(s->ctx, s->leaves);
    return t;
}

static bool make_caches(struct geul_session *s)
{
    int n = s->model->neox.shape.n_layers;
    for (int i = 0; i < n; i++) {
        s->k[i] = new_cache(s, 2 * i);
        s->v[i] = s->k[i] ? new_cache(s, 2 * i + 1) : NULL;
        if (!s->v[i])
            return false;
    }
    return true;
}

/* Where logits are computed: where the output matrix is. */
static struct geul_device *logits_device(const struct geul_model *m)
{
    return m->neox.output->buffer->device;
}

/* Allocates everything that s owns; on failure geul_session_free() frees the part that was. */
static bool make_parts(struct geul_session *s)
{
    struct geul_context *ctx = s->ctx;
    size_t layers = (size_t)s->model->neox.shape.n_layers, batch = (size_t)s->n_batch;
    s->leaves = geul_context_new_like(ctx);
    bool ok = s->leaves != NULL;
    for (int i = 0; i < N_SHAPES; i++)
        ok = (s->shapes[i].ctx = geul_context_new_like(ctx)) && ok;
    if (!ok) {
        geul_fail_memory(ctx, sizeof *s);
        return false;
    }
    s->k = geul_alloc(ctx, layers, sizeof(struct geul_tensor *));
    s->v = geul_alloc(ctx, layers, sizeof(struct geul_tensor *));
    s->buffers = geul_alloc(ctx, 2 * layers, sizeof *s->buffers);
    s->length = geul_alloc(ctx, (size_t)s->n_sequences, sizeof *s->length);
    s->next_length = geul_alloc(ctx, (size_t)s->n_sequences, sizeof *s->next_length);
    s->tokens = geul_alloc(ctx, (size_t)s->n_sequences * (size_t)s->n_context, sizeof *s->tokens);
    s->ids = geul_alloc(ctx, batch, sizeof *s->ids);
    s->seq_pos = geul_alloc(ctx, 2 * batch, sizeof *s->seq_pos);
    s->rows = geul_alloc(ctx, batch, sizeof *s->rows);
    s->items = geul_alloc(ctx, batch, sizeof *s->items);
    s->logits =
        geul_host_memory(ctx, logits_device(s->model), (size_t)s->model->neox.shape.n_vocab * sizeof *s->logits);
    if (!s->k || !s->v || !s->buffers || !s->length || !s->next_length || !s->tokens || !s->ids || !s->seq_pos ||
        !s->rows || !s->items || !s->logits)
        return false;
    s->runtime = geul_runtime_new_on(ctx, s->model->devices, s->model->n_devices, &s->computing);
    return s->runtime && make_caches(s);
}

struct geul_session *geul_session_new(struct geul_context *ctx, const struct geul_model *model,
                                      const struct geul_session_options *options)
{
    struct geul_session_options o;
    geul_error_clear(ctx);
    if (geul_session_sizes(ctx, options, &model->neox.shape, &o) != GEUL_OK)
        return NULL;
    struct geul_session *s = geul_alloc(ctx, 1, sizeof *s);
    if (!s)
        return NULL;
    s->ctx = ctx;
    s->model = model;
    s->n_context = o.n_context;
    s->n_sequences = o.n_sequences;
    s->n_batch = o.n_batch;
    s->computing = (struct geul_queue_options){.n_threads = o.n_threads, .exact = o.exact};
    s->cache_type = o.cache_type;
    if (!make_parts(s)) {
        geul_session_free(s);
        return NULL;
    }
    return s;
}

void geul_session_free(struct geul_session *s)
{
    if (!s)
        return;
    struct geul_context *ctx = s->ctx;
    geul_runtime_free(s->runtime);
    for (int i = 0; i < s->n_buffers; i++)
        s->buffers[i].device->backend->buffer_free(ctx, &s->buffers[i]);
    geul_host_memory_free(ctx, logits_device(s->model), s->logits);
    void *parts[] = {s->k,   s->v,       s->buffers, s->length, s->next_length, s->tokens,
                     s->ids, s->seq_pos, s->rows,    s->items,  s->observed};
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        geul_free(ctx, parts[i]);
    geul_context_free(s->leaves);
    for (int i = 0; i < N_SHAPES; i++)
        geul_context_free(s->shapes[i].ctx);
    geul_free(ctx, s);
}

const struct geul_model *geul_session_model(const struct geul_session *s)
{
    return s->model;
}

struct geul_context *geul_session_context(const struct geul_session *s)
{
    return s->ctx;
}

int geul_session_length(const struct geul_session *s, int seq)
{
    return seq >= 0 && seq < s->n_sequences ? s->length[seq] : 0;
}

int geul_session_capacity(const struct geul_session *s)
{
    return s->n_context;
}

size_t geul_session_cache_bytes(const struct geul_session *s)
{
    return s->cache_bytes;
}

const int32_t *geul_session_tokens(const struct geul_session *s, int seq)
{
    return s->tokens + (size_t)seq * (size_t)s->n_context;
}

int geul_session_batch(const struct geul_session *s)
{
    return s->n_batch;
}

void geul_session_watch(struct geul_session *s, void (*progress)(void *user, int done, int total), void *user)
{
    geul_runtime_watch(s->runtime, progress, user);
}

int geul_session_sequences(const struct geul_session *s)
{
    return s->n_sequences;
}

/* -------------------------------------------------------------------------------- evaluation -- */

/* The model's weight in a product, NULL when node has none: another operation, a product of two computed values, or
 * with an adapter. */
static const struct geul_tensor *weight_of(const struct geul_session *s, const struct geul_tensor *node)
{
    if (node->op != GEUL_OP_MATMUL)
        return NULL;
    const struct geul_tensor *weight = node->src[1];
    while (weight->op == GEUL_OP_VIEW)
        weight = weight->src[0];
    return weight->op == GEUL_OP_LEAF && weight->ctx == s->model->own ? weight : NULL;
}

void geul_session_observe(struct geul_session *s, geul_session_observer observer, void *user)
{
    s->observer = observer;
    s->observer_user = user;
    for (int i = 0; i < N_SHAPES; i++)
        s->shapes[i].step.graph = NULL; /* which values outlive a run depends on it */
}

size_t geul_session_observed_floats(const struct geul_model_shape *shape)
{
    /* the inputs of attn_qkv, attn_output, ffn_up (C each) and ffn_down (F) */
    return (size_t)shape->n_layers * (3 * (size_t)shape->d_model + (size_t)shape->d_ff);
}

/* Makes the inputs of all products of graph, which is not planned yet, outlive its run. */
static void mark_observed(const struct geul_session *s, const struct geul_graph *graph)
{
    for (int i = 0; i < graph->n_nodes; i++)
        if (weight_of(s, graph->nodes[i]))
            graph->nodes[i]->src[0]->output = true;
}

/* Shows the inputs of all products of the last run; those of the output matrix only if some logits were wanted, since
 * otherwise its one row is there for the graph's sake alone. */
static enum geul_status show_observed(struct geul_session *s, const struct shape *shape, bool wanted)
{
    for (int i = 0; i < shape->step.graph->n_nodes; i++) {
        const struct geul_tensor *node = shape->step.graph->nodes[i], *weight = weight_of(s, node);
        if (!weight || (node == shape->step.out && !wanted))
            continue;
        const struct geul_tensor *x = node->src[0];
        size_t bytes = geul_tensor_bytes(x);
        if (x->type != GEUL_TYPE_F32 || !geul_is_contiguous(x))
            return geul_fail(s->ctx, GEUL_ERROR_UNSUPPORTED, "the input of %s cannot be observed", weight->name);
        if (bytes > s->observed_bytes) { /* kept for the next product: it grows to the largest once */
            float *grown = geul_realloc(s->ctx, s->observed, bytes, 1);
            if (!grown)
                return GEUL_ERROR_MEMORY;
            s->observed = grown;
            s->observed_bytes = bytes;
        }
        if (x->buffer->device->backend->download(s->ctx, x->buffer, x->data, s->observed, bytes) != GEUL_OK)
            return geul_error_status(s->ctx);
        if (!s->observer(s->observer_user, weight->name, s->observed, (int)geul_rows(x), (int)geul_cols(x)))
            return geul_fail(s->ctx, GEUL_ERROR_CANCELLED, "stopped by the observer");
    }
    return GEUL_OK;
}

/* Builds the graph of n_tokens tokens and n_rows rows of logits. Which tokens, sequences and positions it computes are
 * inputs, so generating one token at a time builds it once. */
static bool build_graph(struct geul_session *s, struct shape *shape, int n_tokens, int n_rows)
{
    geul_context_reset(shape->ctx);
    shape->n_tokens = n_tokens;
    shape->n_rows = n_rows;
    if (!geul_step_build(shape->ctx, &s->model->neox, s->k, s->v, n_tokens, n_rows, &shape->step))
        return false;
    if (s->observer) /* before planning, which would reuse the memory of these inputs */
        mark_observed(s, shape->step.graph);
    return true;
}

/* Finds or makes the planned graph of n_tokens tokens and n_rows rows of logits; a new one takes the place of the one
 * that has not been used for longest. NULL (recorded) on failure. */
static struct shape *prepare_graph(struct geul_session *s, int n_tokens, int n_rows)
{
    struct shape *shape = &s->shapes[0];
    for (int i = 0; i < N_SHAPES; i++) {
        struct shape *other = &s->shapes[i];
        if (other->step.graph && other->n_tokens == n_tokens && other->n_rows == n_rows) {
            shape = other;
            break;
        }
        shape = other->used < shape->used ? other : shape;
    }
    bool ok = true;
    if (!shape->step.graph || shape->n_tokens != n_tokens || shape->n_rows != n_rows)
        ok = build_graph(s, shape, n_tokens, n_rows);
    shape->used = ++s->clock;
    /* The other shape may have needed more memory since this one was planned. */
    if (ok && (geul_runtime_planned(s->runtime, shape->step.graph) ||
               geul_runtime_plan(s->runtime, shape->step.graph) == GEUL_OK))
        return shape;
    geul_fail_from(s->ctx, shape->ctx);
    shape->step.graph = NULL;
    return NULL;
}

/* Checks all items before anything is computed. Uses s->next_length to count. */
static enum geul_status check_items(struct geul_session *s, const struct geul_batch_item *items, int n)
{
    int n_vocab = s->model->neox.shape.n_vocab;
    memcpy(s->next_length, s->length, (size_t)s->n_sequences * sizeof *s->next_length);
    for (int i = 0; i < n; i++) {
        if (items[i].seq < 0 || items[i].seq >= s->n_sequences)
            return geul_fail(s->ctx, GEUL_ERROR_ARGUMENT, "item %d asks for sequence %d; the session has %d", i,
                             items[i].seq, s->n_sequences);
        if (items[i].token < 0 || items[i].token >= n_vocab)
            return geul_fail(s->ctx, GEUL_ERROR_ARGUMENT, "item %d is token %d; the model has ids 0 to %d", i,
                             items[i].token, n_vocab - 1);
        if (s->next_length[items[i].seq]++ >= s->n_context)
            return geul_fail(s->ctx, GEUL_ERROR_ARGUMENT, "sequence %d is full: the session holds %d positions",
                             items[i].seq, s->n_context);
    }
    return GEUL_OK;
}

/* Computes up to n_batch items at the positions that follow s->next_length, which advances past them; hands out their
 * logits. Items are numbered from first_item on. */
static enum geul_status eval_piece(struct geul_session *s, const struct geul_batch_item *items, int n, int first_item,
                                   geul_logits_callback callback, void *user)
{
    int n_rows = 0, n_vocab = s->model->neox.shape.n_vocab;
    for (int i = 0; i < n; i++) {
        int seq = items[i].seq, position = s->next_length[seq]++;
        s->ids[i] = items[i].token;
        s->seq_pos[2 * i] = seq;
        s->seq_pos[2 * i + 1] = position;
        /* behind length, like the keys and values: it counts once length has passed it */
        s->tokens[(size_t)seq * (size_t)s->n_context + (size_t)position] = items[i].token;
        if (items[i].want_logits)
            s->rows[n_rows++] = i;
    }
    bool wanted = n_rows > 0;
    if (!wanted)
        s->rows[n_rows++] = 0; /* a graph has at least one output row */
    struct shape *shape = prepare_graph(s, n, n_rows);
    if (!shape)
        return geul_error_status(s->ctx);
    if (geul_tensor_write(shape->step.in.ids, s->ids, (size_t)n * sizeof *s->ids) != GEUL_OK ||
        geul_tensor_write(shape->step.in.seq_pos, s->seq_pos, 2 * (size_t)n * sizeof *s->seq_pos) != GEUL_OK ||
        geul_tensor_write(shape->step.in.rows, s->rows, (size_t)n_rows * sizeof *s->rows) != GEUL_OK ||
        geul_runtime_run(s->runtime, shape->step.graph) != GEUL_OK) {
        geul_fail_from(s->ctx, shape->ctx);
        shape->step.graph = NULL; /* its context holds the failure; the next evaluation starts from an empty one */
        return geul_error_status(s->ctx);
    }
    enum geul_status status = s->observer ? show_observed(s, shape, wanted) : GEUL_OK;
    if (status != GEUL_OK)
        return status;
    for (int r = 0; r < n_rows && wanted; r++) {
        size_t row_bytes = (size_t)n_vocab * sizeof *s->logits;
        const char *row = (const char *)shape->step.out->data + (size_t)r * row_bytes;
        status = geul_runtime_read(s->runtime, shape->step.out->buffer, row, s->logits, row_bytes);
        if (status != GEUL_OK)
            return status;
        if (callback && !callback(user, first_item + s->rows[r], s->logits, n_vocab))
            return geul_fail(s->ctx, GEUL_ERROR_CANCELLED, "stopped by the caller");
    }
    return GEUL_OK;
}

enum geul_status geul_session_eval(struct geul_session *s, const struct geul_batch_item *items, int n,
                                   geul_logits_callback callback, void *user)
{
    geul_error_clear(s->ctx);
    enum geul_status status = check_items(s, items, n);
    /* From here on next_length says where the next item goes; length stays until every batch has succeeded. */
    memcpy(s->next_length, s->length, (size_t)s->n_sequences * sizeof *s->next_length);
    for (int done = 0; done < n && status == GEUL_OK; done += s->n_batch) {
        int piece = n - done < s->n_batch ? n - done : s->n_batch;
        status = eval_piece(s, items + done, piece, done, callback, user);
    }
    if (status == GEUL_OK)
        memcpy(s->length, s->next_length, (size_t)s->n_sequences * sizeof *s->length);
    return status;
}

enum geul_status geul_session_append(struct geul_session *s, int seq, const int32_t *tokens, int n,
                                     const float **logits)
{
    int before = geul_session_length(s, seq);
    geul_error_clear(s->ctx);
    if (seq < 0 || seq >= s->n_sequences || n < 0 || n > s->n_context - before)
        return geul_fail(s->ctx, GEUL_ERROR_ARGUMENT, "%d more tokens do not fit: sequence %d holds %d of %d", n, seq,
                         before, s->n_context);
    for (int done = 0; done < n; done += s->n_batch) {
        int m = n - done < s->n_batch ? n - done : s->n_batch;
        for (int i = 0; i < m; i++)
            s->items[i] = (struct geul_batch_item){tokens[done + i], seq, logits && done + i == n - 1};
        /* Batches are evaluations of their own here, and those that succeeded have advanced length: all or nothing. */
        enum geul_status status = geul_session_eval(s, s->items, m, NULL, NULL);
        if (status != GEUL_OK) {
            geul_session_truncate(s, seq, before);
            return status;
        }
    }
    if (logits)
        *logits = n > 0 ? s->logits : NULL;
    return GEUL_OK;
}

void geul_session_truncate(struct geul_session *s, int seq, int length)
{
    if (seq >= 0 && seq < s->n_sequences && length >= 0 && length < s->length[seq])
        s->length[seq] = length;
}

/* Moves the valid positions of sequence `from` of one cache tensor (S, H, P, D) to sequence `to`, without the host
 * where the device can. */
static enum geul_status copy_cache(struct geul_session *s, struct geul_tensor *t, int from, int to)
{
    size_t blocks = (size_t)s->model->neox.shape.d_head / (size_t)geul_type_block(s->cache_type);
    size_t bytes = (size_t)s->length[from] * blocks * geul_type_bytes(s->cache_type); /* of one head: (length, D) */
    int64_t pieces = t->shape[1];
    if (!t->buffer->host) { /* one copy that takes what is not valid between the heads along, instead of one per head */
        bytes += (size_t)(pieces - 1) * t->stride[1];
        pieces = 1;
    }
    enum geul_status status = GEUL_OK;
    for (int64_t h = 0; h < pieces && status == GEUL_OK; h++) {
        char *head = (char *)t->data + (size_t)h * t->stride[1];
        status = geul_runtime_move(s->runtime, t->buffer, head + (size_t)to * t->stride[0],
                                   head + (size_t)from * t->stride[0], bytes);
    }
    return status;
}

enum geul_status geul_session_copy(struct geul_session *s, int from, int to)
{
    geul_error_clear(s->ctx);
    if (from < 0 || to < 0 || from >= s->n_sequences || to >= s->n_sequences)
        return geul_fail(s->ctx, GEUL_ERROR_ARGUMENT, "cannot copy sequence %d to %d: the session has %d", from, to,
                         s->n_sequences);
    if (from == to)
        return GEUL_OK;
    enum geul_status status = GEUL_OK;
    for (int i = 0; s->length[from] > 0 && i < s->n_buffers && status == GEUL_OK; i++)
        status = copy_cache(s, i % 2 ? s->v[i / 2] : s->k[i / 2], from, to);
    enum geul_status waited = geul_runtime_wait(s->runtime); /* also behind a failure */
    if (status != GEUL_OK || waited != GEUL_OK) {
        s->length[to] = 0; /* part of it may have been overwritten */
        return status != GEUL_OK ? status : waited;
    }
    memcpy(s->tokens + (size_t)to * (size_t)s->n_context, s->tokens + (size_t)from * (size_t)s->n_context,
           (size_t)s->length[from] * sizeof *s->tokens);
    s->length[to] = s->length[from];
    return GEUL_OK;
}

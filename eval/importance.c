/* importance.c: see geul_tools.h and importance.h. */
#include "eval/importance.h"

#include "eval/perplexity.h"
#include "eval/text_ids.h"
#include "core/check.h"
#include "models/session.h"
#include "quantize/imatrix.h"

#include <limits.h>
#include <math.h>
#include <string.h>

/* The sums of one matrix. */
struct matrix {
    char *name;
    int64_t columns;
    double *sums;
    double rows;
};

struct geul_importance {
    struct geul_context *ctx;
    struct matrix *matrices;
    int64_t n;
    size_t capacity;
    int64_t next; /* where the next matrix to be observed probably is */
    char *dataset;
    uint64_t chunks, chunk_size;
    uint64_t n_tokens, n_scored; /* of the text collected last */
    double nats;                 /* sum over the scored tokens */
};

/* ---------------------------------------------------------------------------------- matrices -- */

struct geul_importance *geul_importance_new(struct geul_context *ctx)
{
    struct geul_importance *m = geul_alloc(ctx, 1, sizeof *m);
    if (!m)
        return NULL;
    m->ctx = ctx;
    m->dataset = geul_strndup(ctx, "", 0);
    if (m->dataset)
        return m;
    geul_free(ctx, m);
    return NULL;
}

void geul_importance_free(struct geul_importance *m)
{
    if (!m)
        return;
    for (int64_t i = 0; i < m->n; i++) {
        geul_free(m->ctx, m->matrices[i].name);
        geul_free(m->ctx, m->matrices[i].sums);
    }
    geul_free(m->ctx, m->matrices);
    geul_free(m->ctx, m->dataset);
    geul_free(m->ctx, m);
}

uint64_t geul_importance_chunk_count(const struct geul_importance *m)
{
    return m->chunks;
}

uint64_t geul_importance_chunk_size(const struct geul_importance *m)
{
    return m->chunk_size;
}

int64_t geul_importance_matrix_count(const struct geul_importance *m)
{
    return m->n;
}

uint64_t geul_importance_tokens(const struct geul_importance *m)
{
    return m->n_tokens;
}

double geul_importance_nats(const struct geul_importance *m)
{
    return m->n_scored ? m->nats / (double)m->n_scored : 0;
}

/* A matrix with zero sums at the end of the list; NULL on failure. */
static struct matrix *append(struct geul_importance *m, const char *name, int64_t columns)
{
    if (!geul_reserve(m->ctx, &m->matrices, &m->capacity, (size_t)m->n + 1, sizeof *m->matrices))
        return NULL;
    struct matrix fresh = {.name = geul_strndup(m->ctx, name, strlen(name)), .columns = columns};
    fresh.sums = geul_alloc(m->ctx, (size_t)columns, sizeof *fresh.sums);
    if (!fresh.name || !fresh.sums) {
        geul_free(m->ctx, fresh.name);
        geul_free(m->ctx, fresh.sums);
        return NULL;
    }
    m->matrices[m->n] = fresh;
    return &m->matrices[m->n++];
}

/* The sums of a matrix, made when it is first observed. NULL when memory is short or it has another width. */
static struct matrix *find(struct geul_importance *m, const char *name, int64_t columns)
{
    for (int64_t k = 0; k < m->n; k++) { /* every batch has the matrices in the same order */
        int64_t i = (m->next + k) % m->n;
        if (strcmp(m->matrices[i].name, name) != 0)
            continue;
        m->next = i + 1;
        if (m->matrices[i].columns == columns)
            return &m->matrices[i];
        geul_fail(m->ctx, GEUL_ERROR_FORMAT, "%s has %lld inputs here and %lld there: they belong to different models",
                  name, (long long)m->matrices[i].columns, (long long)columns);
        return NULL;
    }
    return append(m, name, columns);
}

/* -------------------------------------------------------------------------------- collecting -- */

/* Observer of a session: adds the squares of a matrix's inputs, column by column. In double precision, as sums over
 * many tokens outgrow what float adds exactly. */
static bool see(void *user, const char *weight, const float *rows, int n_rows, int n_cols)
{
    struct geul_importance *m = user;
    struct matrix *matrix = find(m, weight, n_cols);
    if (!matrix)
        return false;
    for (int r = 0; r < n_rows; r++) {
        const float *x = rows + (size_t)r * (size_t)n_cols;
        for (int i = 0; i < n_cols; i++)
            matrix->sums[i] += (double)x[i] * (double)x[i];
    }
    matrix->rows += n_rows;
    return true;
}

/* The chunk being computed. */
struct chunk {
    struct geul_importance *m;
    const struct geul_importance_run *run;
    size_t begin, n, offset; /* in tokens; offset: of the current batch in the chunk */
};

/* Logits of an item: adds the nats of the token that follows it in the chunk, if one does. */
static bool score(void *user, int item, const float *logits, int n_vocab)
{
    struct chunk *c = user;
    size_t target = c->offset + (size_t)item + 1;
    if (target < c->n) {
        c->m->nats += geul_nats(logits, n_vocab, c->run->ids[c->begin + target]);
        c->m->n_scored++;
    }
    return true;
}

/* Reports progress; fails when the caller stops. */
static enum geul_status show(struct geul_importance *m, const struct geul_importance_run *run, uint64_t done)
{
    if (!run->on_batch || run->on_batch(run->user, done, run->n))
        return GEUL_OK;
    geul_fail(m->ctx, GEUL_ERROR_CANCELLED, "stopped by the caller");
    return geul_error_status(m->ctx); /* the callback's own reason comes first */
}

/* Computes the chunk, batch by batch, from an empty cache. With logits for every token, so that the output matrix is
 * observed over all of them, as the others are. */
static enum geul_status run_chunk(struct geul_session *s, struct geul_batch_item *items, struct chunk *c)
{
    const struct geul_importance_run *run = c->run;
    struct geul_context *ctx = geul_session_context(s);
    size_t batch = (size_t)geul_session_batch(s);
    geul_session_truncate(s, 0, 0);
    for (c->offset = 0; c->offset < c->n; c->offset += batch) {
        size_t n = c->n - c->offset < batch ? c->n - c->offset : batch, done = c->begin + c->offset + n;
        for (size_t i = 0; i < n; i++)
            items[i] = (struct geul_batch_item){run->ids[c->begin + c->offset + i], 0, true};
        if (geul_session_eval(s, items, (int)n, score, c) != GEUL_OK)
            return geul_error_status(ctx); /* the observer's own reason comes first */
        c->m->chunks += c->offset + n == c->n;
        if (show(c->m, run, done) != GEUL_OK)
            return geul_error_status(ctx);
    }
    return GEUL_OK;
}

/* Fails when a sum is not finite: a model that computes NaN has no importance. */
static enum geul_status check_sums(const struct geul_importance *m)
{
    for (int64_t i = 0; i < m->n; i++)
        for (int64_t k = 0; k < m->matrices[i].columns; k++)
            if (!isfinite(m->matrices[i].sums[k]))
                return geul_fail(m->ctx, GEUL_ERROR_FORMAT, "the inputs of %s are not finite: the model is damaged",
                                 m->matrices[i].name);
    return GEUL_OK;
}

enum geul_status geul_importance_collect(struct geul_importance *m, struct geul_session *s,
                                         const struct geul_importance_run *run)
{
    struct geul_context *ctx = geul_session_context(s);
    geul_error_clear(ctx);
    if (run->chunk < 1 || run->chunk > geul_session_capacity(s))
        return geul_fail(ctx, GEUL_ERROR_ARGUMENT, "a chunk of %d tokens does not fit a session of %d", run->chunk,
                         geul_session_capacity(s));
    struct geul_batch_item *items = geul_alloc(ctx, (size_t)geul_session_batch(s), sizeof *items);
    if (!items)
        return GEUL_ERROR_MEMORY;
    struct chunk c = {.m = m, .run = run};
    m->chunk_size = (uint64_t)run->chunk;
    m->n_tokens = run->n;
    m->n_scored = 0;
    m->nats = 0;
    enum geul_status status = show(m, run, 0);
    geul_session_observe(s, see, m); /* the session is the caller's: observed during this call only */
    for (; c.begin < run->n && status == GEUL_OK; c.begin += c.n) {
        c.n = run->n - c.begin < (size_t)run->chunk ? run->n - c.begin : (size_t)run->chunk;
        status = run_chunk(s, items, &c);
    }
    geul_session_observe(s, NULL, NULL);
    geul_free(ctx, items);
    return status == GEUL_OK ? check_sums(m) : status;
}

/* The batch that keeps a session's memory for observed values near 256 MiB. */
static int batch_for(const struct geul_model_shape *shape)
{
    size_t token = geul_session_observed_floats(shape) * sizeof(float), fit = ((size_t)256 << 20) / token;
    return fit > 512 ? 512 : fit < 16 ? 16 : (int)fit;
}

/* Collects from the text of run in a session made for it. */
static enum geul_status collect_in_session(struct geul_importance *m, const struct geul_model *model,
                                           const struct geul_importance_options *o,
                                           const struct geul_importance_run *run)
{
    struct geul_session_options fit = {
        .n_context = run->chunk,
        .n_batch = o->n_batch ? o->n_batch : batch_for(geul_model_get_shape(model)),
        .cache_type = GEUL_TYPE_F32,
        .exact = o->exact,
    };
    struct geul_session *s = geul_session_new(m->ctx, model, &fit);
    if (!s)
        return geul_error_status(m->ctx);
    enum geul_status status = geul_importance_collect(m, s, run);
    geul_session_free(s);
    return status;
}

enum geul_status geul_importance_collect_text(struct geul_importance *m, const struct geul_model *model,
                                              const char *text, size_t length,
                                              const struct geul_importance_options *options)
{
    const struct geul_tokenizer *tok = geul_model_get_tokenizer(model);
    struct geul_importance_options o;
    geul_error_clear(m->ctx);
    enum geul_status status = geul_take_struct(m->ctx, &o, sizeof o, options, "geul_importance_options");
    if (status != GEUL_OK)
        return status;
    if (!tok)
        return geul_fail(m->ctx, GEUL_ERROR_UNSUPPORTED, "the model has no tokenizer: it takes no text");
    if (geul_check_range(m->ctx, "chunk_size", o.chunk_size, 0, INT_MAX) != GEUL_OK ||
        geul_check_range(m->ctx, "n_batch", o.n_batch, 0, INT_MAX) != GEUL_OK ||
        (length && geul_check_given(m->ctx, "text", text) != GEUL_OK))
        return GEUL_ERROR_ARGUMENT;
    int32_t *ids = NULL;
    struct geul_importance_run run = {
        .chunk = o.chunk_size ? o.chunk_size : 512, .on_batch = o.progress, .user = o.user};
    status = geul_text_ids(m->ctx, tok, text, length, false, &ids, &run.n);
    if (status == GEUL_OK) {
        run.ids = ids;
        if (o.n_chunks && o.n_chunks <= run.n / (size_t)run.chunk) /* divided, as the product could overflow */
            run.n = o.n_chunks * (size_t)run.chunk;
        status = collect_in_session(m, model, &o, &run);
    }
    geul_tokens_free(m->ctx, ids);
    return status == GEUL_OK && o.dataset ? geul_importance_add_dataset(m, o.dataset) : status;
}

/* ------------------------------------------------------------------------------------- files -- */

enum geul_status geul_importance_add_dataset(struct geul_importance *m, const char *name)
{
    size_t held = strlen(m->dataset), more = strlen(name);
    char *joined = geul_alloc(m->ctx, held + more + 3, 1);
    if (!joined)
        return GEUL_ERROR_MEMORY;
    memcpy(joined, m->dataset, held);
    if (held && more) {
        memcpy(joined + held, ", ", 2);
        held += 2;
    }
    memcpy(joined + held, name, more);
    geul_free(m->ctx, m->dataset);
    m->dataset = joined;
    return GEUL_OK;
}

enum geul_status geul_importance_add_file(struct geul_importance *m, const char *path)
{
    struct geul_imatrix *file = geul_imatrix_load(m->ctx, path);
    if (!file)
        return geul_error_status(m->ctx);
    enum geul_status status = GEUL_OK;
    for (int64_t i = 0; i < file->n_entries && status == GEUL_OK; i++) {
        const struct geul_imatrix_entry *e = &file->entries[i];
        struct matrix *matrix = find(m, e->name, e->columns);
        if (!matrix) {
            status = geul_error_status(m->ctx);
            break;
        }
        for (int64_t k = 0; k < e->columns; k++)
            matrix->sums[k] += (double)e->sums[k];
        matrix->rows += e->rows;
    }
    if (status == GEUL_OK)
        status = geul_importance_add_dataset(m, file->dataset);
    m->chunks += file->chunks;
    m->chunk_size = m->chunk_size ? m->chunk_size : file->chunk_size;
    geul_imatrix_free(file);
    return status;
}

enum geul_status geul_importance_save(struct geul_importance *m, const char *path)
{
    size_t columns = 0;
    geul_error_clear(m->ctx);
    for (int64_t i = 0; i < m->n; i++)
        columns += (size_t)m->matrices[i].columns;
    struct geul_imatrix_entry *entries = geul_alloc(m->ctx, (size_t)m->n, sizeof *entries);
    float *sums = geul_alloc(m->ctx, columns, sizeof *sums);
    enum geul_status status = entries && sums ? GEUL_OK : GEUL_ERROR_MEMORY;
    if (status == GEUL_OK) {
        float *next = sums;
        for (int64_t i = 0; i < m->n; i++) {
            const struct matrix *from = &m->matrices[i];
            entries[i] = (struct geul_imatrix_entry){from->name, from->columns, next, from->rows};
            for (int64_t k = 0; k < from->columns; k++)
                *next++ = (float)from->sums[k];
        }
        struct geul_imatrix file = {.entries = entries,
                                    .n_entries = m->n,
                                    .dataset = m->dataset,
                                    .chunks = m->chunks,
                                    .chunk_size = m->chunk_size,
                                    .ctx = m->ctx};
        status = geul_imatrix_save(m->ctx, &file, path);
    }
    geul_free(m->ctx, entries);
    geul_free(m->ctx, sums);
    return status;
}

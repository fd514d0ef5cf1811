/* transcode.c: see transcode.h. A block of output rows at a time: threads encode the rows of a block, each into its
 * place in the buffer; then the calling thread adds up their results in row order and passes the block on. Rows do not
 * depend on each other and sums are taken in one order, so neither bytes nor figures depend on the number of threads.
 */
#include "quantize/transcode.h"

#include "core/os.h"
#include "core/team.h"
#include "core/tensor.h"
#include "quantize/search.h"

#include <math.h>
#include <string.h>

#define BLOCK_BYTES ((size_t)4 << 20) /* of a block's rows as floats */

struct scratch {
    uint8_t *out, *rows; /* a block of output rows; per thread a source row and, at raw_bytes, its floats */
    struct geul_transcode_result *results; /* one per row of the block */
    size_t per_thread, raw_bytes;
    size_t from_bytes, to_bytes; /* of a row */
    int64_t block;               /* rows */
    int n_threads;
};

/* The number of the source row that output row r is. */
static int64_t source_row(const struct geul_transcode *t, int64_t r)
{
    return t->row_of ? t->row_of(t->row_order, r) : r;
}

/* Sum of importance * x^2 over a row. */
static double row_norm(const float *x, int64_t n, const float *importance)
{
    double sum = 0;
    for (int64_t i = 0; i < n; i++)
        sum += (double)x[i] * (double)x[i] * (importance ? (double)importance[i] : 1);
    return sum;
}

/* Encodes output row r into out, on a thread of the team. */
static struct geul_transcode_result convert_row(const struct geul_transcode *t, const struct scratch *s, int64_t r,
                                                uint8_t *out, int thread)
{
    struct geul_transcode_result result = {0};
    uint8_t *raw = s->rows + (size_t)thread * s->per_thread;
    float *x = (float *)(void *)(raw + s->raw_bytes);
    if (t->fetch) {
        t->fetch(t->source, source_row(t, r), x, t->cols);
    } else if (!t->data) {
        memset(x, 0, (size_t)t->cols * sizeof *x);
    } else {
        memcpy(raw, t->data + (size_t)source_row(t, r) * s->from_bytes, s->from_bytes); /* it may be at any address */
        geul_decode(t->from, raw, x, t->cols);
    }
    if (t->change)
        t->change(t->change_how, r, x, t->cols);
    if (t->data && t->from == t->to && !t->change) /* NaN payloads and blocks stay as they are */
        memcpy(out, raw, s->to_bytes);
    else
        result.error = geul_search_rows(t->to, x, out, 1, t->cols, t->importance);
    result.norm = row_norm(x, t->cols, t->importance);
    result.lost = geul_count_lost(t->to, x, out, t->cols);
    return result;
}

/* Output rows of t from `from` on, to be encoded into the scratch. */
struct block_of_rows {
    const struct geul_transcode *t;
    const struct scratch *s;
    int64_t from;
    const atomic_bool *cancel;
    atomic_bool cancelled; /* rows were left out, also if the cancel is withdrawn since */
};

static void convert_item(void *user, int64_t i, int thread)
{
    struct block_of_rows *b = user;
    if (atomic_load_explicit(b->cancel, memory_order_relaxed)) {
        b->cancelled = true;
        return;
    }
    uint8_t *out = b->s->out + (size_t)i * b->s->to_bytes;
    b->s->results[i] = convert_row(b->t, b->s, b->from + i, out, thread);
}

/* Allocates the buffers for t. */
static bool make_scratch(struct geul_context *ctx, const struct geul_transcode *t, struct scratch *s)
{
    s->n_threads = t->n_threads > 0 ? t->n_threads : geul_os_cores();
    if (!geul_shape_bytes(t->from, 1, &t->cols, &s->from_bytes) ||
        !geul_shape_bytes(t->to, 1, &t->cols, &s->to_bytes)) {
        geul_fail(ctx, GEUL_ERROR_ARGUMENT, "rows of %lld cannot go from %s to %s", (long long)t->cols,
                  geul_type_name(t->from), geul_type_name(t->to));
        return false;
    }
    s->block = (int64_t)(BLOCK_BYTES / ((size_t)t->cols * sizeof(float)));
    s->block = s->block < 1 ? 1 : s->block > t->rows ? t->rows : s->block;
    if (s->n_threads > s->block)
        s->n_threads = (int)s->block;
    s->raw_bytes = (s->from_bytes + 63) / 64 * 64; /* floats stay aligned, and threads hardly share cache lines */
    s->per_thread = s->raw_bytes + ((size_t)t->cols * sizeof(float) + 63) / 64 * 64;
    s->out = geul_alloc(ctx, (size_t)s->block, s->to_bytes);
    s->rows = s->out ? geul_alloc(ctx, (size_t)s->n_threads, s->per_thread) : NULL;
    s->results = s->rows ? geul_alloc(ctx, (size_t)s->block, sizeof *s->results) : NULL;
    return s->results != NULL;
}

/* Adds the results of n rows, in row order. */
static void add_results(const struct scratch *s, int64_t n, struct geul_transcode_result *sum)
{
    for (int64_t i = 0; i < n; i++) {
        sum->lost += s->results[i].lost;
        sum->error += s->results[i].error;
        sum->norm += s->results[i].norm;
    }
}

enum geul_status geul_transcode_rows(struct geul_context *ctx, const struct geul_transcode *t,
                                     struct geul_transcode_result *result)
{
    struct scratch s = {0};
    *result = (struct geul_transcode_result){0};
    enum geul_status status = make_scratch(ctx, t, &s) ? GEUL_OK : geul_error_status(ctx);
    for (int64_t from = 0; status == GEUL_OK && from < t->rows; from += s.block) {
        int64_t n = t->rows - from < s.block ? t->rows - from : s.block;
        struct block_of_rows block = {.t = t, .s = &s, .from = from, .cancel = geul_context_cancel_flag(ctx)};
        geul_team_loop(s.n_threads, n, convert_item, &block);
        if (block.cancelled) {
            geul_context_uncancel(ctx);
            status = geul_fail(ctx, GEUL_ERROR_CANCELLED, "cancelled");
            break;
        }
        add_results(&s, n, result);
        if (t->data && !t->row_of) /* in another order the rows of a block lie anywhere: callers discard the tensor */
            geul_os_map_discard(t->data + (size_t)from * s.from_bytes, (size_t)n * s.from_bytes);
        status = t->sink(t->user, s.out, (size_t)n * s.to_bytes);
    }
    geul_free(ctx, s.results);
    geul_free(ctx, s.rows);
    geul_free(ctx, s.out);
    return status;
}

enum geul_status geul_transcode_tell_lost(struct geul_context *ctx, const struct geul_transcode_result *result,
                                          const char *name, const char *type, bool strict)
{
    if (result->lost == 0)
        return GEUL_OK;
    if (strict)
        return geul_fail(ctx, GEUL_ERROR_FORMAT,
                         "%s: %lld values are NaN, infinite or too large for %s; nothing was written, as --strict asks",
                         name, (long long)result->lost, type);
    geul_log(ctx, GEUL_LOG_WARN,
             "%s: %lld values are NaN, infinite or too large for %s; what the model computes with them is not a number",
             name, (long long)result->lost, type);
    return GEUL_OK;
}

/* shards.c: see geul_tools.h and shards.h.
 *
 * All or nothing: a full file gets its count and is synced under a temporary name, but keeps that name until commit.
 * Commit renames them when the last is complete and nothing of a longer run would follow it; before that, an error or
 * abandon leaves no file. While they get their names their list (data/shard_set.h) says that they are not complete.
 */
#include "corpus/shards.h"

#include "core/os.h"
#include "corpus/samples.h"
#include "data/shard.h"
#include "data/shard_set.h"

#include <stdio.h>
#include <string.h>

enum { PIECE_TOKENS = 4096, MOST_FILES = 100000 };

struct geul_shards_writer {
    struct geul_context *ctx;
    struct geul_shard_kind kind;
    char *prefix;
    uint64_t shard_tokens;
    uint64_t count; /* tokens of the last file so far */
    struct geul_outfile **files;
    struct geul_shard_set_file *sizes; /* of the files before the last */
    size_t n_files, capacity, sizes_capacity;
    enum geul_status status;
};

/* The prefix with both texts after it; NULL when memory is short. Free with geul_free(). */
static char *file_name(const struct geul_shards_writer *w, const char *middle, const char *end)
{
    size_t size = strlen(w->prefix) + strlen(middle) + strlen(end) + 1;
    char *name = geul_alloc(w->ctx, size, 1);
    if (name)
        snprintf(name, size, "%s%s%s", w->prefix, middle, end);
    return name;
}

/* "PREFIX-00000.geulshard"; as file_name(). */
static char *shard_name(const struct geul_shards_writer *w, size_t number)
{
    char text[32];
    snprintf(text, sizeof text, "-%05zu", number);
    return file_name(w, text, GEUL_SHARD_EXTENSION);
}

struct geul_shards_writer *geul_shards_writer_new(struct geul_context *ctx, const struct geul_tokenizer *tok,
                                                  const char *prefix, uint64_t shard_tokens)
{
    if (shard_tokens < 2) {
        geul_fail(ctx, GEUL_ERROR_ARGUMENT, "shards of %llu tokens; at least 2 are needed",
                  (unsigned long long)shard_tokens);
        return NULL;
    }
    struct geul_shards_writer *w = geul_alloc(ctx, 1, sizeof *w);
    if (!w)
        return NULL;
    *w = (struct geul_shards_writer){.ctx = ctx, .kind = geul_shard_kind_of(tok), .shard_tokens = shard_tokens};
    w->prefix = geul_strndup(ctx, prefix, strlen(prefix));
    char *stem = w->prefix ? file_name(w, "-", "") : NULL;
    if (stem) {
        geul_outfile_tidy_set(ctx, stem);
        geul_free(ctx, stem);
        return w;
    }
    geul_free(ctx, w->prefix);
    geul_free(ctx, w);
    return NULL;
}

/* Puts the number of tokens into the header of the last file and closes it. */
static enum geul_status end_file(struct geul_shards_writer *w)
{
    unsigned char header[GEUL_SHARD_HEADER_BYTES];
    if (w->n_files == 0)
        return GEUL_OK;
    struct geul_outfile *f = w->files[w->n_files - 1];
    geul_shard_write_header(&w->kind, w->count, header);
    enum geul_status status = geul_outfile_rewrite(f, 0, header, sizeof header);
    if (status == GEUL_OK && !geul_reserve(w->ctx, &w->sizes, &w->sizes_capacity, w->n_files, sizeof *w->sizes))
        status = GEUL_ERROR_MEMORY;
    if (status == GEUL_OK)
        w->sizes[w->n_files - 1] = (struct geul_shard_set_file){w->count, geul_outfile_tell(f)};
    return status == GEUL_OK ? geul_outfile_finish(f) : status;
}

/* Ends the last file and opens the next, with a header whose count end_file() will replace. */
static enum geul_status open_file(struct geul_shards_writer *w)
{
    unsigned char header[GEUL_SHARD_HEADER_BYTES];
    if (end_file(w) != GEUL_OK)
        return geul_error_status(w->ctx);
    if (w->n_files == MOST_FILES)
        return geul_fail(w->ctx, GEUL_ERROR_IO, "more than %d shards; let each hold more tokens", MOST_FILES);
    char *name = shard_name(w, w->n_files);
    struct geul_outfile *f = NULL;
    if (name && geul_reserve(w->ctx, &w->files, &w->capacity, w->n_files + 1, sizeof *w->files))
        f = geul_outfile_open(w->ctx, name);
    geul_free(w->ctx, name);
    if (!f)
        return geul_error_status(w->ctx);
    w->files[w->n_files++] = f;
    w->count = 0;
    geul_shard_write_header(&w->kind, 0, header);
    return geul_outfile_write(f, header, sizeof header);
}

enum geul_status geul_shards_writer_add(struct geul_shards_writer *w, const int32_t *ids, size_t n)
{
    unsigned char bytes[4 * PIECE_TOKENS];
    int width = geul_shard_token_bytes(w->kind.n_vocab);
    while (n > 0 && w->status == GEUL_OK) { /* a file is opened by the first token it gets, so none is empty */
        if (w->n_files == 0 || w->count == w->shard_tokens) {
            w->status = open_file(w);
            continue;
        }
        uint64_t room = w->shard_tokens - w->count;
        size_t piece = n < PIECE_TOKENS ? n : PIECE_TOKENS;
        piece = piece < room ? piece : (size_t)room;
        geul_shard_write_tokens(ids, piece, width, bytes);
        w->status = geul_outfile_write(w->files[w->n_files - 1], bytes, piece * (size_t)width);
        w->count += piece;
        ids += piece;
        n -= piece;
    }
    return w->status;
}

/* Fails when the file after the last one exists. */
static enum geul_status check_next(struct geul_shards_writer *w)
{
    char *name = shard_name(w, w->n_files);
    if (!name)
        return GEUL_ERROR_MEMORY;
    enum geul_status status = GEUL_OK;
    if (geul_os_exists(name))
        status = geul_fail(w->ctx, GEUL_ERROR_IO,
                           "%s exists, but these texts fill only %zu: it is left from a longer run; remove the old "
                           "shards or choose another name",
                           name, w->n_files);
    geul_free(w->ctx, name);
    return status;
}

/* Writes the list. */
static enum geul_status write_list(struct geul_shards_writer *w)
{
    struct geul_bytes text = {0};
    char *name = file_name(w, "", GEUL_SHARD_SET_EXTENSION);
    struct geul_outfile *f = NULL;
    if (name && geul_shard_set_write(w->ctx, w->sizes, w->n_files, &text))
        f = geul_outfile_open(w->ctx, name);
    enum geul_status status = f ? geul_outfile_write(f, text.data, text.length) : geul_error_status(w->ctx);
    geul_free(w->ctx, text.data);
    geul_free(w->ctx, name);
    if (status == GEUL_OK)
        return geul_outfile_commit(f);
    geul_outfile_abandon(f);
    return status;
}

enum geul_status geul_shards_writer_commit(struct geul_shards_writer *w, int *files)
{
    struct geul_context *ctx = w->ctx;
    *files = (int)w->n_files;
    if (w->status == GEUL_OK && w->n_files == 0)
        w->status = geul_fail(ctx, GEUL_ERROR_ARGUMENT, "there are no tokens to write to %s", w->prefix);
    if (w->status == GEUL_OK)
        w->status = end_file(w);
    if (w->status == GEUL_OK)
        w->status = check_next(w);
    geul_outset_begin(ctx);
    for (size_t i = 0; i < w->n_files && w->status == GEUL_OK; i++) {
        w->status = geul_outfile_commit(w->files[i]);
        w->files[i] = NULL; /* freed by commit; abandon below frees the others */
    }
    if (w->status == GEUL_OK)
        w->status = write_list(w);
    if (w->status == GEUL_OK)
        w->status = geul_outset_commit(ctx, GEUL_SHARD_SET_HEAD);
    geul_outset_abandon(ctx);
    enum geul_status status = w->status;
    geul_shards_writer_abandon(w);
    return status;
}

void geul_shards_writer_abandon(struct geul_shards_writer *w)
{
    if (!w)
        return;
    for (size_t i = 0; i < w->n_files; i++)
        geul_outfile_abandon(w->files[i]);
    geul_free(w->ctx, w->files);
    geul_free(w->ctx, w->sizes);
    geul_free(w->ctx, w->prefix);
    geul_free(w->ctx, w);
}

/* ------------------------------------------------------------------------------------- files -- */

/* One call of geul_shards_write(). */
struct writing {
    struct geul_context *ctx;
    const struct geul_tokenizer *tok;
    struct geul_shards_options o;
    struct geul_shards_writer *w;
    struct geul_row_problems problems;
    struct geul_shards_report report;
    uint64_t checked_at; /* bytes read when the room on the disk was last looked at */
};

/* Writes a row as a document; see struct geul_rows_walk. */
static enum geul_status write_row(void *user, const char *path, const struct geul_row *row)
{
    struct writing *c = user;
    struct geul_sample s;
    (void)path;
    enum geul_status status =
        geul_samples_encode(c->ctx, c->tok, row, c->o.prompt_template, true, c->report.nfc_applied, &s);
    if (status == GEUL_OK)
        status = geul_shards_writer_add(c->w, s.ids, s.n);
    if (status == GEUL_OK) {
        c->report.documents++;
        c->report.tokens += (int64_t)s.n;
        c->report.not_nfc += s.not_nfc;
        for (int i = 0; i < row->n_turns; i++)
            c->report.marked += !row->learned[i];
    }
    geul_sample_free(c->ctx, &s);
    return status;
}

/* Passes progress on. Now and then, and soon, the tokens to come are estimated from those so far: a corpus that the
 * disk cannot hold is refused at its beginning. */
static bool watch_space(void *user, uint64_t done, uint64_t total)
{
    enum { FIRST = 1 << 20 };
    struct writing *c = user;
    if (done >= FIRST && done / 2 >= c->checked_at) {
        c->checked_at = done;
        double bytes = (double)c->report.tokens * geul_shard_token_bytes(c->w->kind.n_vocab);
        bytes *= (double)(total - done) / (double)done;
        if (geul_os_check_space(c->ctx, c->w->prefix, (uint64_t)bytes) != GEUL_OK)
            return false;
    }
    return !c->o.progress || c->o.progress(c->o.user, done, total);
}

/* Writes all rows of the files. */
static enum geul_status write_rows(struct writing *c, const char *const *paths, int n_paths, const char *prefix)
{
    if (geul_token_end(c->tok) < 0)
        return geul_fail(
            c->ctx, GEUL_ERROR_ARGUMENT,
            "the tokenizer names no end token and has no <|endoftext|>, which every document has to end with");
    c->w = geul_shards_writer_new(c->ctx, c->tok, prefix, c->o.shard_tokens ? c->o.shard_tokens : (uint64_t)1 << 27);
    if (!c->w)
        return geul_error_status(c->ctx);
    struct geul_rows_walk walk = {&c->problems, c->o.encoding, write_row, c, watch_space, c};
    c->report.nfc_applied = geul_nfc_applies(c->tok, c->o.nfc);
    enum geul_status status = geul_rows_walk(c->ctx, paths, n_paths, &walk);
    if (status == GEUL_OK && c->report.documents == 0) {
        const char *first = geul_row_problems_text(&c->problems, 0);
        status = geul_fail(c->ctx, GEUL_ERROR_FORMAT, "no row can be used; the first: %s", first ? first : "");
    }
    if (status == GEUL_OK)
        return geul_shards_writer_commit(c->w, &c->report.files);
    geul_shards_writer_abandon(c->w);
    return geul_error_status(c->ctx); /* of what stopped the walk */
}

enum geul_status geul_shards_write(struct geul_context *ctx, const struct geul_tokenizer *tok, const char *const *paths,
                                   int n_paths, const char *prefix, const struct geul_shards_options *options,
                                   struct geul_shards_report *report)
{
    struct writing c = {.ctx = ctx, .tok = tok};
    geul_error_clear(ctx);
    enum geul_status status = geul_take_struct(ctx, &c.o, sizeof c.o, options, "geul_shards_options");
    if (status == GEUL_OK)
        status = geul_check_struct(ctx, report, "geul_shards_report");
    c.report = (struct geul_shards_report){.size = sizeof c.report};
    geul_inputs_begin(ctx);
    if (status == GEUL_OK) {
        c.problems.ctx = c.o.problems ? c.o.problems->ctx : ctx;
        status = write_rows(&c, paths, n_paths, prefix);
    }
    geul_inputs_end(ctx);
    geul_row_problems_move(&c.problems, c.o.problems);
    if (report && geul_check_struct(NULL, report, "") == GEUL_OK)
        geul_give_struct(report, &c.report, sizeof c.report);
    return status;
}

/* shards.h: writes documents as token shards (data/shard.h): PREFIX-00000.geulshard and so on. */
#ifndef GEUL_SHARDS_H
#define GEUL_SHARDS_H

#include "corpus/rows.h"

/* Files of at most shard_tokens tokens, together one stream. All of them appear at the end, or none does. */
struct geul_shards_writer;
/* tok must have an end token. NULL on failure. */
struct geul_shards_writer *geul_shards_writer_new(struct geul_context *ctx, const struct geul_tokenizer *tok,
                                                  const char *prefix, uint64_t shard_tokens);
/* Appends ids of tok's vocabulary. Failures are sticky. */
enum geul_status geul_shards_writer_add(struct geul_shards_writer *w, const int32_t *ids, size_t n);
/* Finishes and renames all files; *files of them. Fails when nothing was added, or when the file after the last one
 * exists, left from a longer run: a reader of PREFIX-* would take it along. Frees w whatever happens. */
enum geul_status geul_shards_writer_commit(struct geul_shards_writer *w, int *files);
void geul_shards_writer_abandon(struct geul_shards_writer *w);

struct geul_shards_options {
    const struct geul_template *t; /* for questions and answers; NULL: joined as they are */
    uint64_t shard_tokens;         /* per file; 0: 2^27, which is 256 MiB */
    bool (*on_progress)(void *user, uint64_t done, uint64_t total); /* bytes read; false stops; may be NULL */
    void *user;
};
struct geul_shards_report {
    int64_t documents, tokens;
    int files;
    struct geul_row_problems problems; /* free with geul_row_problems_free(), also after a failure */
};
/* Tokenizes every row of the files, each as a document with its end token (rows.h, samples.h), into shards. Fails when
 * a file cannot be read or no row can be used. */
enum geul_status geul_shards_write(struct geul_context *ctx, const struct geul_tokenizer *tok, const char *const *paths,
                                   int n_paths, const char *prefix, const struct geul_shards_options *options,
                                   struct geul_shards_report *report);

#endif

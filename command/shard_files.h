/* shard_files.h: `geul tokenize --shards`. */
#ifndef GEUL_SHARD_FILES_H
#define GEUL_SHARD_FILES_H

#include "geul.h"

struct geul_shard_files {
    const char *prefix;
    const char *template_name; /* NULL: questions and answers are joined as they are */
    const char *encoding;      /* of the files; NULL: UTF-8 */
    enum geul_nfc nfc;
    int shard_tokens; /* per file; 0: the default */
    const char *const *paths;
    int n_paths;
    bool json;
};

/* Tokenizes the files into shards and prints a summary; broken rows are reported on stderr. Returns the exit code. */
int geul_shard_files_write(struct geul_context *ctx, const struct geul_tokenizer *tok,
                           const struct geul_shard_files *how);

#endif

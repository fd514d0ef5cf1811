/* file_kind.h: what a file is, told by its first bytes, for messages about a file of another kind than was asked for.
 * Every reader asks here, so that whatever is taken for whatever is named alike. */
#ifndef GEUL_FILE_KIND_H
#define GEUL_FILE_KIND_H

#include "core/context.h"

/* The kinds that some reader takes; POINTER, which none takes for a text; and TEXT, which is a guess. */
enum geul_file {
    GEUL_FILE_OTHER,
    GEUL_FILE_POINTER,
    GEUL_FILE_MODEL,
    GEUL_FILE_SAFETENSORS,
    GEUL_FILE_TORCH,
    GEUL_FILE_DAT,
    GEUL_FILE_JSON,
    GEUL_FILE_TEXT
};

struct geul_file_kind {
    enum geul_file file;
    const char *what;   /* "a git-lfs pointer, a few lines that stand for the file" */
    const char *advice; /* what to do with such a file */
};

/* What to do with importance matrices, in either of their forms. */
#define GEUL_FILE_QUANTIZE "quantizing takes it (geul quantize --imatrix)"

/* Of the size bytes with which a file begins (all of it, or more than 300 of them); NULL: not known. */
const struct geul_file_kind *geul_file_kind_of(const void *data, size_t size);
/* The same for a reader of `own`, whose own messages say more about a damaged file of that kind: NULL for those, for
 * texts and for empty files. */
const struct geul_file_kind *geul_file_kind_foreign(const void *data, size_t size, enum geul_file own);
/* Of a directory, by the files in it; NULL: not known, or no directory. */
const struct geul_file_kind *geul_file_kind_of_directory(const char *path);
/* Records "NAME is not WANTED: it is ...; ADVICE"; without the second half when kind is NULL. Returns
 * GEUL_ERROR_FORMAT. */
enum geul_status geul_fail_kind(struct geul_context *ctx, const char *name, const char *wanted,
                                const struct geul_file_kind *kind);

#endif

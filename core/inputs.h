/* inputs.h: the files that a context's work reads, so that no output replaces one of them. A file is known by device
 * and inode: links and other spellings of its name are the same file.
 *
 * A mapped file is an input until it is unmapped (core/os.h). Within a run, from begin to end, it stays one: what was
 * read at the start must not be replaced at the end. Runs nest; a program of its own is one run. */
#ifndef GEUL_INPUTS_H
#define GEUL_INPUTS_H

#include "core/context.h"

void geul_inputs_begin(struct geul_context *ctx);
void geul_inputs_end(struct geul_context *ctx);

/* A file opened and closed for reading; name is for messages. false (recorded) when memory is short. */
bool geul_inputs_open(struct geul_context *ctx, struct geul_file_id id, const char *name);
void geul_inputs_close(struct geul_context *ctx, struct geul_file_id id);
/* Takes one opening back that is over: for files that a run continues, such as its own logs. */
void geul_inputs_forget(struct geul_context *ctx, struct geul_file_id id);
/* The name that the input was opened by; NULL when the file is none. */
const char *geul_inputs_find(struct geul_context *ctx, struct geul_file_id id);

#endif

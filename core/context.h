/* context.h: memory, errors and logging; every other module takes a struct geul_context for them. */
#ifndef GEUL_CONTEXT_H
#define GEUL_CONTEXT_H

#include "geul_tensor.h"

#include <stdarg.h>
#include <stdatomic.h>

#if defined(__GNUC__)
#define GEUL_PRINTF(a, b) __attribute__((format(printf, a, b)))
#else
#define GEUL_PRINTF(a, b)
#endif

/* sizeof(struct geul_context), for those who check that two builds agree (backends/module.h). */
extern const size_t geul_context_bytes;

/* Records a failure, unless one is recorded already, and returns status. The text says what, where and what to do;
 * no newline. ctx may be NULL. */
enum geul_status geul_fail(struct geul_context *ctx, enum geul_status status, const char *format, ...)
    GEUL_PRINTF(3, 4);
/* Records "out of memory" for a request of size bytes. Always returns NULL. */
void *geul_fail_memory(struct geul_context *ctx, size_t size);
/* Records in ctx the failure that from holds, and returns its status. For work done in a private context. */
enum geul_status geul_fail_from(struct geul_context *ctx, const struct geul_context *from);
/* The characters of s as far as size - 1 bytes hold them, for messages about hostile files: what is not UTF-8, control
 * characters (C1 too) and marks that turn the direction of writing are replaced by '?'. out may be s. Returns out.
 * Messages and log lines of a context have passed through it. */
const char *geul_printable(const char *s, char *out, size_t size);
/* Bytes of the character at the beginning of s (size bytes); 0 where geul_printable() would write '?'. */
size_t geul_printable_length(const char *s, size_t size);
/* Sends one line to the log callback, if there is one. */
void geul_log(const struct geul_context *ctx, enum geul_log_level level, const char *format, ...) GEUL_PRINTF(3, 4);

/* count * size bytes, zeroed; NULL (recorded) on overflow or when memory is short. Free with geul_free(). count or
 * size 0 gives a valid unique pointer. Aligned to 64 bytes. */
void *geul_alloc(struct geul_context *ctx, size_t count, size_t size);
/* Grows or shrinks; on failure returns NULL and ptr stays valid. The value of new bytes is undefined. ptr may be NULL.
 */
void *geul_realloc(struct geul_context *ctx, void *ptr, size_t count, size_t size);
/* Makes room for `need` items of `size` bytes in the array *items, of which *capacity fit now; it grows by half at
 * least, so that appending is cheap. false (recorded) when memory is short; the array is then as it was. */
bool geul_reserve(struct geul_context *ctx, void *items, size_t *capacity, size_t need, size_t size);
/* Frees what geul_alloc()/geul_realloc() gave; NULL is allowed. */
void geul_free(struct geul_context *ctx, void *ptr);
/* A copy of n bytes plus a NUL; NULL (recorded) when memory is short. */
char *geul_strndup(struct geul_context *ctx, const char *s, size_t n);

/* What geul_context_cancel() sets, for loops that compute; true from then on until geul_context_uncancel(). Who stops
 * because of it withdraws it, since it has had its effect. */
const atomic_bool *geul_context_cancel_flag(const struct geul_context *ctx);
/* Between two parts of a computation: whether it is cancelled. The cancel is then withdrawn. */
bool geul_context_take_cancel(struct geul_context *ctx);

/* Zeroed memory that lives until geul_context_reset()/_free(); aligned to 16. NULL (recorded) on failure. */
void *geul_arena(struct geul_context *ctx, size_t count, size_t size);

/* Copies a struct of the public interface that begins with its size, as the caller compiled it, to this library's, of
 * `size` bytes at out. Fields that an older caller does not have become 0; given NULL: all are 0. Fails, naming what,
 * when given has no size or sets fields that only a newer library has. */
enum geul_status geul_take_struct(struct geul_context *ctx, void *out, size_t size, const void *given,
                                  const char *what);
/* The other way, for results: whether the caller has set a size; NULL is fine. Then a copy of this library's struct, of
 * `size` bytes, as far as the caller's size reaches; that size remains.
 *
 * A struct grows at its end, by fields that begin at or after what its sizeof was: in older programs, what lies in the
 * padding before that is not zero. */
enum geul_status geul_check_struct(struct geul_context *ctx, const void *caller, const char *what);
void geul_give_struct(void *caller, const void *ours, size_t size);

/* Which file it is, whatever its name. */
struct geul_file_id {
    uint64_t device, inode;
};
/* The files that ctx reads, which core/inputs.h looks after. One is an input while either count is not 0. */
struct geul_input {
    struct geul_file_id id;
    char *name;
    int open, over; /* times it is open, and times it was opened and closed within the run */
};
struct geul_inputs {
    struct geul_input *items;
    size_t n, capacity;
    int depth; /* of runs */
};
struct geul_inputs *geul_context_inputs(struct geul_context *ctx);
/* Frees what the set holds; it is empty then. */
void geul_context_drop_inputs(struct geul_context *ctx);

/* The outputs of ctx that are held back until their set is complete; see geul_outset_begin(). */
struct geul_outset {
    bool open;
    struct geul_outfile *first, *last; /* in the order of their commits */
};
struct geul_outset *geul_context_outset(struct geul_context *ctx);

/* Where tensor.c keeps the newest tensor of ctx; NULL after a reset. */
struct geul_tensor **geul_context_last_tensor(struct geul_context *ctx);

/* Checked arithmetic for sizes that come from files: false on overflow, *out untouched. */
static inline bool geul_mul_size(size_t a, size_t b, size_t *out)
{
    size_t r;
    if (__builtin_mul_overflow(a, b, &r))
        return false;
    *out = r;
    return true;
}
static inline bool geul_add_size(size_t a, size_t b, size_t *out)
{
    size_t r;
    if (__builtin_add_overflow(a, b, &r))
        return false;
    *out = r;
    return true;
}

#endif

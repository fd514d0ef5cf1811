/* os.h: everything geul needs from the operating system. One file implements it per system (os_posix.c). */
#ifndef GEUL_OS_H
#define GEUL_OS_H

#include "core/inputs.h"

/* A whole file mapped for reading. */
struct geul_map {
    const uint8_t *data; /* NULL when size is 0 */
    size_t size;
    struct geul_context *ctx; /* whose input the file is; NULL: not mapped */
    struct geul_file_id file;
};

/* Maps path for reading, as an input of ctx (core/inputs.h), which must live until the end of the mapping. Fails with a
 * message naming path. */
enum geul_status geul_os_map(struct geul_context *ctx, const char *path, struct geul_map *map);
void geul_os_unmap(struct geul_map *map);
/* The mapped file is no input any more: for what a run itself goes on in, such as its logs. */
void geul_os_disown(struct geul_map *map);
/* Hints that [data, data+size) of a mapping will not be needed again. */
void geul_os_map_discard(const void *data, size_t size);

/* "dir/name"; NULL when memory is short. Free with geul_free(). */
char *geul_os_join_path(struct geul_context *ctx, const char *dir, const char *name);
/* Whether path names something that exists (of any kind). */
bool geul_os_exists(const char *path);
/* The same for name in the directory dir. */
bool geul_os_has(const char *dir, const char *name);
/* When a file was last changed, in seconds since 1970; 0 when that is unknown. */
double geul_os_modified(const char *path);
/* Removes a directory that is empty; any other stays. */
void geul_os_remove_empty_directory(const char *path);
/* The size of the file that path names. false when there is none. */
bool geul_os_file_size(const char *path, uint64_t *bytes);
/* The file that path names, or that the descriptor has open. false when there is none, or none of the usual kind. */
bool geul_os_file_id(const char *path, struct geul_file_id *id);
bool geul_os_descriptor_id(int fd, struct geul_file_id *id);
/* The same for a file that was read and closed. */
void geul_os_forget_input(struct geul_context *ctx, const char *path);
/* Makes all files of a directory but GGUF files inputs of the run: a Hugging Face directory is one thing, whichever of
 * its files a conversion reads, and may hold the results of earlier ones. A directory that cannot be read has none. */
void geul_os_input_directory(struct geul_context *ctx, const char *dir);
/* Fails when the file system that path is or would be on has less than bytes left. One that does not say has enough. */
enum geul_status geul_os_check_space(struct geul_context *ctx, const char *path, uint64_t bytes);
/* Removes a file; one that is not there is fine. */
enum geul_status geul_os_remove(struct geul_context *ctx, const char *path);
/* Calls on_name for every entry of a directory, in no particular order. */
enum geul_status geul_os_list(struct geul_context *ctx, const char *dir, void (*on_name)(void *user, const char *name),
                              void *user);
/* Makes a directory; one that exists already is fine. Its parent must exist. */
enum geul_status geul_os_make_directory(struct geul_context *ctx, const char *path);

/* An output that appears under its name only when it is complete: written to a temporary file in the same directory,
 * synced and renamed by commit. abandon (also after a failed write) removes the temporary file. Buffered.
 *
 * No output replaces an input of its context (core/inputs.h): that is checked when it is opened, before its first bytes
 * are written and before it gets its name, since inputs may be opened in between. */
struct geul_outfile;
/* Fails when an output of this name would be refused: for work that opens it at its end. */
enum geul_status geul_outfile_check(struct geul_context *ctx, const char *path);
/* Also removes temporary files that dead processes left of the same output. */
struct geul_outfile *geul_outfile_open(struct geul_context *ctx, const char *path);
enum geul_status geul_outfile_write(struct geul_outfile *f, const void *data, size_t size);
/* Replaces size bytes at offset, which were written before: for headers that count what follows. */
enum geul_status geul_outfile_rewrite(struct geul_outfile *f, uint64_t offset, const void *data, size_t size);
/* The name that it will have; valid as long as f. */
const char *geul_outfile_path(const struct geul_outfile *f);
/* Bytes written so far. */
uint64_t geul_outfile_tell(const struct geul_outfile *f);
/* Flushes, syncs, closes; the buffer is freed. Nothing can be written afterwards. */
enum geul_status geul_outfile_finish(struct geul_outfile *f);
/* The name of the file until commit, for readers of a finished one; valid as long as f. */
const char *geul_outfile_temporary(const struct geul_outfile *f);
/* Finishes if need be, renames; frees f whatever happens. */
enum geul_status geul_outfile_commit(struct geul_outfile *f);
void geul_outfile_abandon(struct geul_outfile *f);
/* Files that belong together, such as the parts of a split model. From begin on, commit only finishes the outputs of
 * ctx and holds them back; geul_outset_commit() gives them their names. The one committed last is the one that readers
 * look for first: an older file of its name is replaced by one that holds `meanwhile`, or removed if that is NULL,
 * before any other appears, and it appears last. So whenever a process ends, the set is the older one, the new one, or
 * visibly neither. abandon removes what is held; after a commit it does nothing. */
void geul_outset_begin(struct geul_context *ctx);
enum geul_status geul_outset_commit(struct geul_context *ctx, const char *meanwhile);
void geul_outset_abandon(struct geul_context *ctx);
/* Removes from a directory the temporary files, of outputs whose names begin with prefix, of processes that were killed
 * before they could. A file of a living process stays. */
enum geul_status geul_outfile_tidy(struct geul_context *ctx, const char *dir, const char *prefix);
/* The same in the directory of path, for names that begin as path does up to its end. Failing to is no failure. */
void geul_outfile_tidy_set(struct geul_context *ctx, const char *path);
/* Removes the temporary files of all outputs that this process has not committed: for a handler of a signal that ends
 * it. */
void geul_outfile_remove_all(void);

/* The right to write into a directory, for one process at a time: a lock on the file DIR/lock, which the system frees
 * when the process ends, however it ends. Where the file system has no locks, it is given to everybody. NULL on
 * failure: GEUL_ERROR_ARGUMENT when another process has it (the message names it). */
struct geul_dirlock;
struct geul_dirlock *geul_dirlock_take(struct geul_context *ctx, const char *dir);
/* Gives it back and removes the file; NULL is fine. */
void geul_dirlock_free(struct geul_dirlock *lock);

/* A file that only grows. When a write returns, its data is in the file, all of it or (disk full) nothing, so that
 * others can follow the file and nothing half-written stays. truncate: existing contents are discarded. A file that
 * another append file already writes, in any process, is refused. */
struct geul_appendfile;
struct geul_appendfile *geul_appendfile_open(struct geul_context *ctx, const char *path, bool truncate);
enum geul_status geul_appendfile_write(struct geul_appendfile *f, const void *data, size_t size);
/* Makes what was written survive a power cut. */
enum geul_status geul_appendfile_sync(struct geul_appendfile *f);
void geul_appendfile_close(struct geul_appendfile *f); /* NULL is fine */

/* Hints that [data, data+size) is best backed by large pages: fewer faults and misses for big tensors. */
void geul_os_prefer_large_pages(void *data, size_t size);

/* Cores this process may run on (affinity respected), at least 1. */
int geul_os_cores(void);
/* Bytes of the stack that a new thread gets when its maker does not say. */
size_t geul_os_thread_stack(void);
/* How many of n threads with stacks of stack_bytes could be made now, all alive at once and with heap_bytes of the C
 * library's heap beside them; -1 when that memory is missing. They have been made and are wholly gone when it returns.
 */
int geul_os_try_threads(int n, size_t stack_bytes, size_t heap_bytes);
/* Seconds from an arbitrary start; never goes back. */
double geul_os_seconds(void);
/* Seconds since 1970 by the system's clock, which may be set: for dates, not for durations. */
double geul_os_wall_seconds(void);
/* Peak resident bytes of this process, 0 when unknown. */
uint64_t geul_os_peak_rss(void);
/* Resident bytes of this process now, 0 when unknown. */
uint64_t geul_os_resident(void);
/* Resets the peak to what is resident now. false where the system cannot. */
bool geul_os_peak_rss_reset(void);
/* Available and total bytes of the machine's memory; 0 where the system does not say. */
void geul_os_memory(size_t *available, size_t *total);
/* 64 bits that differ from run to run; for default seeds only. */
uint64_t geul_os_entropy(void);
/* Opens a shared library, without giving its symbols to others. NULL: why says why not, without the path. A file that
 * is cut off is refused, which the system's loader would crash on. */
void *geul_os_library_open(const char *path, char *why, size_t size);
/* The address of what the library calls name; NULL when there is nothing. */
void *geul_os_library_symbol(void *library, const char *name);
void geul_os_library_close(void *library);
/* The folder of the library or program that holds address. false when that is unknown, or longer than size. */
bool geul_os_folder_of(const void *address, char *folder, size_t size);
/* The value of an environment variable, NULL when unset. */
const char *geul_os_env(const char *name);

#endif

/* os_posix.c: os.h for POSIX systems. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* sched_getaffinity */
#endif
#include "core/os.h"

#include "core/bytes.h"

#include <dirent.h>
#include <dlfcn.h>
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <link.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define OUT_BUFFER ((size_t)1 << 20)

static enum geul_status io_failed(struct geul_context *ctx, const char *doing, const char *path)
{
    char text[128];
#ifdef __GLIBC__
    const char *why = strerror_r(errno, text, sizeof text);
#else
    const char *why = strerror_r(errno, text, sizeof text) == 0 ? text : "unknown error";
#endif
    return geul_fail(ctx, GEUL_ERROR_IO, "cannot %s %s: %s", doing, path, why);
}

static struct geul_file_id id_of(const struct stat *st)
{
    return (struct geul_file_id){(uint64_t)st->st_dev, (uint64_t)st->st_ino};
}

enum geul_status geul_os_map(struct geul_context *ctx, const char *path, struct geul_map *map)
{
    *map = (struct geul_map){0};
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* or a pipe would block until it has a writer */
    if (fd < 0)
        return io_failed(ctx, "open", path);
    struct stat st;
    enum geul_status status = GEUL_OK;
    if (fstat(fd, &st) != 0) {
        status = io_failed(ctx, "inspect", path);
    } else if (!S_ISREG(st.st_mode)) {
        status = geul_fail(ctx, GEUL_ERROR_IO, "cannot open %s: it is %s, not a file", path,
                           S_ISDIR(st.st_mode) ? "a directory" : "a device or pipe");
    } else if (st.st_size > 0) {
        void *data = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_SHARED, fd, 0);
        if (data == MAP_FAILED)
            status = io_failed(ctx, "map", path);
        else
            *map = (struct geul_map){.data = data, .size = (size_t)st.st_size};
    }
    close(fd); /* the mapping keeps the file open */
    if (status == GEUL_OK && geul_inputs_open(ctx, id_of(&st), path)) {
        map->ctx = ctx;
        map->file = id_of(&st);
    } else if (status == GEUL_OK) {
        geul_os_unmap(map);
        status = GEUL_ERROR_MEMORY;
    }
    return status;
}

void geul_os_unmap(struct geul_map *map)
{
    if (map->data)
        munmap((void *)(uintptr_t)map->data, map->size);
    if (map->ctx)
        geul_inputs_close(map->ctx, map->file);
    *map = (struct geul_map){0};
}

void geul_os_disown(struct geul_map *map)
{
    if (!map->ctx)
        return;
    geul_inputs_close(map->ctx, map->file);
    geul_inputs_forget(map->ctx, map->file);
    map->ctx = NULL;
}

void geul_os_map_discard(const void *data, size_t size)
{
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    uintptr_t from = ((uintptr_t)data + page - 1) / page * page, to = ((uintptr_t)data + size) / page * page;
    if (to > from) /* whole pages only: those shared with neighbours stay resident */
        (void)madvise((void *)from, to - from, MADV_DONTNEED);
}

void geul_os_prefer_large_pages(void *data, size_t size)
{
#ifdef MADV_HUGEPAGE
    const uintptr_t large = (uintptr_t)2 << 20;
    uintptr_t from = ((uintptr_t)data + large - 1) / large * large, to = ((uintptr_t)data + size) / large * large;
    if (to > from) /* only whole large pages, so that nothing more becomes resident than is used */
        (void)madvise((void *)from, to - from, MADV_HUGEPAGE);
#else
    (void)data;
    (void)size;
#endif
}

char *geul_os_join_path(struct geul_context *ctx, const char *dir, const char *name)
{
    size_t n = strlen(dir), m = strlen(name);
    char *path = geul_alloc(ctx, n + m + 2, 1);
    if (!path)
        return NULL;
    memcpy(path, dir, n);
    path[n] = '/';
    memcpy(path + n + 1, name, m);
    return path;
}

bool geul_os_exists(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0;
}

bool geul_os_has(const char *dir, const char *name)
{
    char path[PATH_MAX];
    return snprintf(path, sizeof path, "%s/%s", dir, name) < (int)sizeof path && geul_os_exists(path);
}

bool geul_os_file_size(const char *path, uint64_t *bytes)
{
    struct stat st;
    bool found = stat(path, &st) == 0 && S_ISREG(st.st_mode);
    if (found)
        *bytes = (uint64_t)st.st_size;
    return found;
}

bool geul_os_file_id(const char *path, struct geul_file_id *id)
{
    struct stat st;
    bool found = stat(path, &st) == 0 && S_ISREG(st.st_mode);
    if (found)
        *id = id_of(&st);
    return found;
}

bool geul_os_descriptor_id(int fd, struct geul_file_id *id)
{
    struct stat st;
    bool found = fstat(fd, &st) == 0 && S_ISREG(st.st_mode);
    if (found)
        *id = id_of(&st);
    return found;
}

void geul_os_forget_input(struct geul_context *ctx, const char *path)
{
    struct geul_file_id id;
    if (geul_os_file_id(path, &id))
        geul_inputs_forget(ctx, id);
}

/* Where the name of the file begins in a path. */
static const char *base_of(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

/* Writes the directory that path is in to out, which has room for path and 2 bytes. */
static const char *directory_of(const char *path, char *out)
{
    size_t n = (size_t)(base_of(path) - path);
    memcpy(out, path, n);
    out[n] = '\0';
    if (n > 1)
        out[n - 1] = '\0'; /* "/" keeps its slash */
    if (n == 0)
        strcpy(out, ".");
    return out;
}

enum geul_status geul_os_check_space(struct geul_context *ctx, const char *path, uint64_t bytes)
{
    struct statvfs fs;
    char needed[48], left[48], *dir = geul_alloc(ctx, strlen(path) + 2, 1);
    if (!dir)
        return GEUL_ERROR_MEMORY;
    bool known = statvfs(directory_of(path, dir), &fs) == 0 && fs.f_blocks > 0 && fs.f_frsize > 0;
    geul_free(ctx, dir);
    if (!known || bytes / fs.f_frsize < fs.f_bavail)
        return GEUL_OK;
    return geul_fail(ctx, GEUL_ERROR_IO,
                     "cannot write %s: No space left on device for its %s, %s are free; nothing was written", path,
                     geul_bytes_text(bytes, needed, sizeof needed),
                     geul_bytes_text((uint64_t)fs.f_bavail * fs.f_frsize, left, sizeof left));
}

double geul_os_modified(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 ? (double)st.st_mtime : 0;
}

void geul_os_remove_empty_directory(const char *path)
{
    (void)rmdir(path); /* fails when it is not empty */
}

enum geul_status geul_os_remove(struct geul_context *ctx, const char *path)
{
    return unlink(path) == 0 || errno == ENOENT ? GEUL_OK : io_failed(ctx, "remove", path);
}

enum geul_status geul_os_list(struct geul_context *ctx, const char *dir, void (*on_name)(void *user, const char *name),
                              void *user)
{
    DIR *d = opendir(dir);
    if (!d)
        return io_failed(ctx, "list", dir);
    for (const struct dirent *e; (e = readdir(d));)
        if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0)
            on_name(user, e->d_name);
    closedir(d);
    return GEUL_OK;
}

/* What geul_os_input_directory() works on. */
struct input_directory {
    struct geul_context *ctx;
    const char *dir;
};

static void input_file(void *user, const char *name)
{
    const struct input_directory *d = user;
    char path[PATH_MAX];
    struct geul_file_id id;
    size_t n = strlen(name);
    if ((n > 5 && strcmp(name + n - 5, ".gguf") == 0) ||
        snprintf(path, sizeof path, "%s/%s", d->dir, name) >= (int)sizeof path)
        return;
    if (geul_os_file_id(path, &id) && geul_inputs_open(d->ctx, id, path))
        geul_inputs_close(d->ctx, id); /* and stays one until the end of the run */
}

void geul_os_input_directory(struct geul_context *ctx, const char *dir)
{
    struct input_directory d = {ctx, dir};
    if (geul_os_exists(dir))
        (void)geul_os_list(ctx, dir, input_file, &d);
}

enum geul_status geul_os_make_directory(struct geul_context *ctx, const char *path)
{
    struct stat st;
    if (mkdir(path, 0777) == 0)
        return GEUL_OK;
    if (errno != EEXIST || stat(path, &st) != 0)
        return io_failed(ctx, "make the directory", path);
    if (!S_ISDIR(st.st_mode))
        return geul_fail(ctx, GEUL_ERROR_IO, "cannot make the directory %s: a file of that name exists", path);
    return GEUL_OK;
}

/* How an output comes about, and what a crash leaves behind at each point:
 *
 *   open     create and lock path.tmp<pid>-<start of the process>-<n>
 *                                              path as it was, and a file that geul_outfile_tidy() finds
 *   write    buffer, then write()              the same
 *   finish   flush, fsync(file), close         the same
 *   commit   rename() to path                  the old file or the complete new one, nothing between
 *            fsync(directory)                  the new file
 *
 * The data must be on disk before the name points to it: otherwise a power cut could keep the rename and lose the
 * bytes. rename() is atomic only within one file system, so the temporary file is in path's directory. */
struct geul_outfile {
    struct geul_context *ctx;
    int fd;                  /* -1 before it is created and after finish */
    uint64_t written;        /* by the caller: held bytes included */
    size_t n_held;           /* bytes in held that the file does not have yet */
    enum geul_status status; /* the first failure, which all later calls return */
    bool flushed;            /* bytes have reached the file */
    char *path, *temporary;
    unsigned char *held; /* OUT_BUFFER bytes */
    struct geul_outfile *_Atomic next;
    struct geul_outfile *held_after; /* of the same set */
};

/* The outputs that have a temporary file, for geul_outfile_remove_all(). A signal's handler walks the list without the
 * lock: each of its links is always that to an element or the end. */
static struct geul_outfile *_Atomic unfinished;
static atomic_flag changing_unfinished = ATOMIC_FLAG_INIT;

static void list_unfinished(struct geul_outfile *f)
{
    while (atomic_flag_test_and_set(&changing_unfinished))
        ;
    atomic_store(&f->next, atomic_load(&unfinished));
    atomic_store(&unfinished, f);
    atomic_flag_clear(&changing_unfinished);
}

static void unlist_unfinished(struct geul_outfile *f)
{
    while (atomic_flag_test_and_set(&changing_unfinished))
        ;
    struct geul_outfile *_Atomic *link = &unfinished;
    for (struct geul_outfile *g; (g = atomic_load(link)) && g != f;)
        link = &g->next;
    if (atomic_load(link))
        atomic_store(link, atomic_load(&f->next));
    atomic_flag_clear(&changing_unfinished);
}

void geul_outfile_remove_all(void)
{
    for (struct geul_outfile *f = atomic_load(&unfinished); f; f = atomic_load(&f->next))
        unlink(f->temporary);
}

static void outfile_free(struct geul_outfile *f)
{
    struct geul_context *ctx = f->ctx;
    unlist_unfinished(f);
    if (f->fd >= 0)
        close(f->fd);
    geul_free(ctx, f->path);
    geul_free(ctx, f->temporary);
    geul_free(ctx, f->held);
    geul_free(ctx, f);
}

enum geul_status geul_outfile_check(struct geul_context *ctx, const char *path)
{
    struct stat st;
    if (stat(path, &st) != 0)
        return GEUL_OK;
    if (!S_ISREG(st.st_mode))
        return geul_fail(ctx, GEUL_ERROR_IO, "cannot write %s: it exists and is not a file", path);
    const char *input = geul_inputs_find(ctx, id_of(&st));
    if (!input)
        return GEUL_OK;
    return geul_fail(ctx, GEUL_ERROR_ARGUMENT,
                     strcmp(input, path) == 0 ? "cannot write %s: it is the input itself; name another output file"
                                              : "cannot write %s: it is the input itself, under the name %s; name "
                                                "another output file",
                     path, input);
}

/* When process pid started, in the system's ticks; 0 when there is no such process or the system does not say. Together
 * they name a process for good: numbers are used again. */
static unsigned long long start_of(long pid)
{
    char name[64], text[1024];
    unsigned long long start = 0;
    snprintf(name, sizeof name, "/proc/%ld/stat", pid);
    FILE *f = fopen(name, "re");
    size_t n = f ? fread(text, 1, sizeof text - 1, f) : 0;
    text[n] = '\0';
    /* the second field is the program's name in brackets and may hold anything; the start is the 20th after it */
    const char *at = strrchr(text, ')');
    for (int field = 0; at && field < 20; field++)
        at = strchr(at + 1, ' ');
    if (at && sscanf(at, "%llu", &start) != 1)
        start = 0;
    if (f)
        fclose(f);
    return start;
}

/* Creates the temporary file next to path, with the mode of the file that it will replace. */
static bool outfile_create(struct geul_outfile *f)
{
    struct stat st;
    mode_t mode = stat(f->path, &st) == 0 ? st.st_mode & 0777 : 0666;
    size_t size = strlen(f->path) + 80;
    f->temporary = geul_alloc(f->ctx, size, 1);
    if (!f->temporary || geul_outfile_check(f->ctx, f->path) != GEUL_OK)
        return false;
    snprintf(f->temporary, size, "%s.tmp", f->path);
    geul_outfile_tidy_set(f->ctx, f->temporary);
    for (int attempt = 0; attempt < 100; attempt++) {
        snprintf(f->temporary, size, "%s.tmp%ld-%llu-%d", f->path, (long)getpid(), start_of((long)getpid()), attempt);
        /* O_EXCL: never a file or a link that somebody else put there */
        f->fd = open(f->temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode);
        if (f->fd >= 0) {
            (void)flock(f->fd, LOCK_EX | LOCK_NB); /* tells those who cannot see this process that it lives */
            list_unfinished(f);
            return true;
        }
        if (errno != EEXIST)
            break;
    }
    io_failed(f->ctx, "create", f->path);
    return false;
}

struct geul_outfile *geul_outfile_open(struct geul_context *ctx, const char *path)
{
    struct geul_outfile *f = geul_alloc(ctx, 1, sizeof *f);
    if (!f)
        return NULL;
    f->ctx = ctx;
    f->fd = -1;
    f->path = geul_strndup(ctx, path, strlen(path));
    f->held = geul_alloc(ctx, OUT_BUFFER, 1);
    if (!f->path || !f->held || !outfile_create(f)) {
        outfile_free(f);
        return NULL;
    }
    return f;
}

/* Writes all of data to the file descriptor; remembers and reports the first failure. */
static enum geul_status write_through(struct geul_outfile *f, const unsigned char *data, size_t size)
{
    while (f->status == GEUL_OK && size > 0) {
        ssize_t n = write(f->fd, data, size < ((size_t)1 << 30) ? size : (size_t)1 << 30);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            f->status = io_failed(f->ctx, "write", f->path);
        else
            data += n, size -= (size_t)n;
    }
    return f->status;
}

static enum geul_status outfile_flush(struct geul_outfile *f)
{
    if (!f->flushed && f->status == GEUL_OK)
        f->status = geul_outfile_check(f->ctx, f->path);
    f->flushed = true;
    enum geul_status status = write_through(f, f->held, f->n_held);
    f->n_held = 0;
    return status;
}

enum geul_status geul_outfile_write(struct geul_outfile *f, const void *data, size_t size)
{
    if (f->status != GEUL_OK)
        return f->status;
    if (size > OUT_BUFFER - f->n_held && outfile_flush(f) != GEUL_OK)
        return f->status;
    /* Either there is room now, or nothing is held and what comes is written past the buffer: bytes stay in order. */
    if (size >= OUT_BUFFER) {
        write_through(f, data, size);
    } else if (size) {
        memcpy(f->held + f->n_held, data, size);
        f->n_held += size;
    }
    f->written += size;
    return f->status;
}

enum geul_status geul_outfile_rewrite(struct geul_outfile *f, uint64_t offset, const void *data, size_t size)
{
    if (f->status == GEUL_OK && (offset > f->written || size > f->written - offset))
        f->status =
            geul_fail(f->ctx, GEUL_ERROR_ARGUMENT, "%s: only bytes that were written before can be rewritten", f->path);
    const unsigned char *from = data;
    outfile_flush(f); /* the bytes to replace may still be in the buffer */
    while (f->status == GEUL_OK && size > 0) {
        ssize_t n = pwrite(f->fd, from, size, (off_t)offset);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0) {
            f->status = io_failed(f->ctx, "write", f->path);
        } else {
            from += n, size -= (size_t)n;
            offset += (uint64_t)n;
        }
    }
    return f->status;
}

const char *geul_outfile_path(const struct geul_outfile *f)
{
    return f->path;
}

uint64_t geul_outfile_tell(const struct geul_outfile *f)
{
    return f->written;
}

/* Makes the rename itself survive a power cut. Some file systems refuse to sync directories; that is not an error.
 * scratch has room for path and 2 bytes. */
static void sync_directory_of(const char *path, char *scratch)
{
    int fd = open(directory_of(path, scratch), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd >= 0) {
        (void)fsync(fd);
        close(fd);
    }
}

enum geul_status geul_outfile_finish(struct geul_outfile *f)
{
    if (f->fd < 0)
        return f->status;
    outfile_flush(f);
    if (f->status == GEUL_OK && fsync(f->fd) != 0)
        f->status = io_failed(f->ctx, "sync", f->path);
    if (close(f->fd) != 0 && f->status == GEUL_OK) /* network file systems report a failed write here */
        f->status = io_failed(f->ctx, "close", f->path);
    f->fd = -1;
    geul_free(f->ctx, f->held);
    f->held = NULL;
    return f->status;
}

const char *geul_outfile_temporary(const struct geul_outfile *f)
{
    return f->temporary;
}

/* Renames a finished file; frees f whatever happens. */
static enum geul_status outfile_rename(struct geul_outfile *f)
{
    enum geul_status status = geul_outfile_check(f->ctx, f->path);
    if (status == GEUL_OK && rename(f->temporary, f->path) != 0)
        status = io_failed(f->ctx, "rename the finished file to", f->path);
    if (status != GEUL_OK)
        unlink(f->temporary);
    unlist_unfinished(f); /* before its buffer serves for something else */
    if (status == GEUL_OK)
        sync_directory_of(f->path, f->temporary);
    outfile_free(f);
    return status;
}

enum geul_status geul_outfile_commit(struct geul_outfile *f)
{
    struct geul_outset *set = geul_context_outset(f->ctx);
    enum geul_status status = geul_outfile_finish(f);
    if (status == GEUL_OK && set->open) {
        if (set->last)
            set->last->held_after = f;
        else
            set->first = f;
        set->last = f;
        return GEUL_OK;
    }
    if (status == GEUL_OK)
        return outfile_rename(f);
    geul_outfile_abandon(f);
    return status;
}

void geul_outfile_abandon(struct geul_outfile *f)
{
    if (!f)
        return;
    unlink(f->temporary);
    outfile_free(f);
}

/* ------------------------------------------------------------------------------------- sets -- */

void geul_outset_begin(struct geul_context *ctx)
{
    geul_context_outset(ctx)->open = true;
}

/* Makes the older set incomplete for readers; see geul_outset_begin(). */
static enum geul_status begin_replacing(struct geul_context *ctx, const char *key, const char *meanwhile)
{
    struct geul_outfile *f = meanwhile ? geul_outfile_open(ctx, key) : NULL;
    if (f && geul_outfile_write(f, meanwhile, strlen(meanwhile)) == GEUL_OK)
        return geul_outfile_commit(f);
    geul_outfile_abandon(f);
    if (meanwhile)
        return geul_error_status(ctx);
    char *scratch = geul_alloc(ctx, strlen(key) + 2, 1);
    enum geul_status status = scratch ? geul_os_remove(ctx, key) : GEUL_ERROR_MEMORY;
    if (status == GEUL_OK) /* or the removal could reach the disk after the renames */
        sync_directory_of(key, scratch);
    geul_free(ctx, scratch);
    return status;
}

enum geul_status geul_outset_commit(struct geul_context *ctx, const char *meanwhile)
{
    struct geul_outset *set = geul_context_outset(ctx);
    enum geul_status status = GEUL_OK;
    set->open = false;
    for (const struct geul_outfile *f = set->first; f && status == GEUL_OK; f = f->held_after)
        status = geul_outfile_check(ctx, f->path); /* all of them before the first is renamed */
    if (status == GEUL_OK && set->first != set->last)
        status = begin_replacing(ctx, set->last->path, meanwhile);
    while (set->first && status == GEUL_OK) {
        struct geul_outfile *f = set->first;
        set->first = f->held_after;
        status = outfile_rename(f);
    }
    geul_outset_abandon(ctx);
    return status;
}

void geul_outset_abandon(struct geul_context *ctx)
{
    struct geul_outset *set = geul_context_outset(ctx);
    set->open = false;
    while (set->first) {
        struct geul_outfile *f = set->first;
        set->first = f->held_after;
        geul_outfile_abandon(f);
    }
    set->last = NULL;
}

/* ---------------------------------------------------------------------------------- tidying -- */

/* What geul_outfile_tidy() works on. */
struct tidying {
    struct geul_context *ctx;
    const char *dir, *prefix;
    enum geul_status status;
};

/* The process in a name that outfile_create() made, and when it started (0 in names of an older geul); -1 when it did
 * not make that name. The last ".tmp" counts, since path may contain one too. */
static long process_of(const char *name, unsigned long long *start)
{
    const char *mark = strstr(name, ".tmp");
    for (const char *next; mark && (next = strstr(mark + 1, ".tmp"));)
        mark = next;
    long pid = -1;
    int attempt, length = 0;
    if (mark && sscanf(mark, ".tmp%9ld-%20llu-%2d%n", &pid, start, &attempt, &length) == 3 && mark[length] == '\0')
        return pid > 0 ? pid : -1;
    *start = 0;
    if (!mark || sscanf(mark, ".tmp%9ld-%2d%n", &pid, &attempt, &length) != 2 || mark[length] != '\0')
        return -1;
    return pid > 0 ? pid : -1;
}

/* Whether the process that wrote a file may still live. When in doubt it does: that is the safe mistake. */
static bool is_alive(long pid, unsigned long long start)
{
    /* Signal 0 only asks. A process of another user (EPERM) is alive. */
    if (kill((pid_t)pid, 0) != 0 && errno == ESRCH)
        return false;
    unsigned long long now = start ? start_of(pid) : 0;
    return now == 0 || now == start;
}

/* Whether somebody may have the file locked: a process that is not seen here, because it is in another container. A
 * file that cannot be opened to ask is another user's, and stays. */
static bool is_locked(const char *path)
{
    int fd = open(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0)
        return true;
    bool locked = flock(fd, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK;
    close(fd);
    return locked;
}

static void tidy_name(void *user, const char *name)
{
    struct tidying *t = user;
    char path[PATH_MAX];
    unsigned long long start = 0;
    if (t->status != GEUL_OK || strncmp(name, t->prefix, strlen(t->prefix)) != 0)
        return;
    long pid = process_of(name, &start);
    if (pid > 0 && !is_alive(pid, start) && snprintf(path, sizeof path, "%s/%s", t->dir, name) < (int)sizeof path &&
        !is_locked(path))
        t->status = geul_os_remove(t->ctx, path);
}

enum geul_status geul_outfile_tidy(struct geul_context *ctx, const char *dir, const char *prefix)
{
    struct tidying t = {ctx, dir, prefix, GEUL_OK};
    enum geul_status status = geul_os_list(ctx, dir, tidy_name, &t);
    return status == GEUL_OK ? t.status : status;
}

void geul_outfile_tidy_set(struct geul_context *ctx, const char *path)
{
    char dir[PATH_MAX];
    if (strlen(path) + 2 < sizeof dir && geul_os_exists(directory_of(path, dir))) {
        bool failed = geul_error_status(ctx) != GEUL_OK;
        if (geul_outfile_tidy(ctx, dir, base_of(path)) != GEUL_OK && !failed)
            geul_error_clear(ctx); /* opening the output will tell what is wrong with the directory */
    }
}

/* ------------------------------------------------------------------------------------- locks -- */

/* flock() belongs to the open file: it ends with the process. Some file systems have none (ENOLCK, EOPNOTSUPP, EBADF on
 * some network ones); only a lock that another holds is a reason to stop. */
static bool is_locked_by_another(int fd)
{
    return flock(fd, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK;
}

struct geul_dirlock {
    struct geul_context *ctx;
    char *path;
    int fd; /* -1: the directory takes no such file */
};

/* Whether fd is still what path names: its last owner may have removed the file between opening and locking it. */
static bool is_current(int fd, const char *path)
{
    struct stat a, b;
    return fstat(fd, &a) == 0 && stat(path, &b) == 0 && a.st_dev == b.st_dev && a.st_ino == b.st_ino;
}

/* Records that fd's lock is taken; its owner wrote its number into the file. */
static void fail_locked(struct geul_context *ctx, const char *dir, int fd)
{
    char text[32] = "";
    long pid = 0;
    if (pread(fd, text, sizeof text - 1, 0) > 0)
        pid = strtol(text, NULL, 10);
    if (pid > 0)
        geul_fail(ctx, GEUL_ERROR_ARGUMENT, "%s is in use: process %ld writes there", dir, pid);
    else
        geul_fail(ctx, GEUL_ERROR_ARGUMENT, "%s is in use: another process writes there", dir);
}

/* Opens and locks path in dir. Returns the file, -1: the directory takes none, which its other files will report;
 * -2: another process has the lock, recorded. */
static int take_lock(struct geul_context *ctx, const char *dir, const char *path)
{
    char text[32];
    for (int attempt = 0; attempt < 100; attempt++) {
        int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0666);
        if (fd < 0)
            return -1;
        if (is_locked_by_another(fd)) {
            fail_locked(ctx, dir, fd);
            close(fd);
            return -2;
        }
        if (is_current(fd, path)) {
            int n = snprintf(text, sizeof text, "%ld\n", (long)getpid());
            bool written = ftruncate(fd, 0) == 0 && pwrite(fd, text, (size_t)n, 0) == n;
            (void)written; /* on a full disk the lock holds without a number */
            return fd;
        }
        close(fd);
    }
    return -1;
}

struct geul_dirlock *geul_dirlock_take(struct geul_context *ctx, const char *dir)
{
    struct geul_dirlock *lock = geul_alloc(ctx, 1, sizeof *lock);
    char *path = lock ? geul_os_join_path(ctx, dir, "lock") : NULL;
    int fd = path ? take_lock(ctx, dir, path) : -2;
    if (fd == -2) {
        geul_free(ctx, path);
        geul_free(ctx, lock);
        return NULL;
    }
    *lock = (struct geul_dirlock){ctx, path, fd};
    return lock;
}

void geul_dirlock_free(struct geul_dirlock *lock)
{
    if (!lock)
        return;
    if (lock->fd >= 0) {
        unlink(lock->path); /* while the lock is held: nobody else's file goes */
        close(lock->fd);
    }
    geul_free(lock->ctx, lock->path);
    geul_free(lock->ctx, lock);
}

/* ------------------------------------------------------------------------------ append files -- */

struct geul_appendfile {
    struct geul_context *ctx;
    char *path;
    int fd;
};

struct geul_appendfile *geul_appendfile_open(struct geul_context *ctx, const char *path, bool truncate)
{
    if (geul_os_file_id(path, &(struct geul_file_id){0}) && geul_outfile_check(ctx, path) != GEUL_OK)
        return NULL; /* a device or a pipe is fine here */
    struct geul_appendfile *f = geul_alloc(ctx, 1, sizeof *f);
    char *name = f ? geul_strndup(ctx, path, strlen(path)) : NULL;
    int fd = name ? open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666) : -1;
    bool taken = fd >= 0 && is_locked_by_another(fd);
    /* Emptied only now that it is nobody else's. A device cannot be, and need not. */
    if (fd >= 0 && !taken && (!truncate || ftruncate(fd, 0) == 0 || errno == EINVAL)) {
        *f = (struct geul_appendfile){ctx, name, fd};
        return f;
    }
    if (taken)
        geul_fail(ctx, GEUL_ERROR_IO, "cannot write %s: another process, or another log, is writing it", path);
    else if (name)
        io_failed(ctx, "open", path);
    if (fd >= 0)
        close(fd);
    geul_free(ctx, name);
    geul_free(ctx, f);
    return NULL;
}

enum geul_status geul_appendfile_write(struct geul_appendfile *f, const void *data, size_t size)
{
    const unsigned char *rest = data;
    off_t before = lseek(f->fd, 0, SEEK_END); /* the size to cut back to; O_APPEND ignores the offset */
    while (size > 0) {
        ssize_t n = write(f->fd, rest, size < ((size_t)1 << 30) ? size : (size_t)1 << 30);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0) {
            enum geul_status status = io_failed(f->ctx, "write", f->path);
            int undone = before >= 0 ? ftruncate(f->fd, before) : 0;
            (void)undone; /* fails on a device, where nothing can be undone */
            return status;
        }
        rest += n;
        size -= (size_t)n;
    }
    return GEUL_OK;
}

enum geul_status geul_appendfile_sync(struct geul_appendfile *f)
{
    if (fsync(f->fd) == 0 || errno == EINVAL || errno == EROFS) /* devices and pipes refuse; that is not an error */
        return GEUL_OK;
    return io_failed(f->ctx, "sync", f->path);
}

void geul_appendfile_close(struct geul_appendfile *f)
{
    if (!f)
        return;
    struct geul_context *ctx = f->ctx;
    close(f->fd);
    geul_free(ctx, f->path);
    geul_free(ctx, f);
}

int geul_os_cores(void)
{
#ifdef __linux__
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) == 0 && CPU_COUNT(&set) > 0)
        return CPU_COUNT(&set);
#endif
    long n = sysconf(_SC_NPROCESSORS_ONLN);
    return n > 0 ? (int)n : 1;
}

size_t geul_os_thread_stack(void)
{
    pthread_attr_t attributes;
    size_t bytes = 0;
    if (pthread_attr_init(&attributes) != 0)
        return 0;
    pthread_attr_getstacksize(&attributes, &bytes);
    pthread_attr_destroy(&attributes);
    return bytes;
}

/* A thread on trial, which lives until the gate is opened. */
struct trial {
    pthread_t thread;
    pthread_mutex_t *gate;
    long id; /* the kernel's */
};

static void *wait_at_gate(void *user)
{
    struct trial *t = user;
#ifdef SYS_gettid
    t->id = syscall(SYS_gettid);
#endif
    pthread_mutex_lock(t->gate);
    pthread_mutex_unlock(t->gate);
    return NULL;
}

/* Waits until the kernel no longer counts a thread that has been joined. pthread_join() returns a little earlier, and
 * at the limit of processes the next thread could not be made in between. */
static void wait_until_gone(const struct trial *t)
{
    const double longest = 0.1; /* by then it is a new thread that has its number */
#ifdef SYS_tgkill
    double start = geul_os_seconds();
    while (syscall(SYS_tgkill, getpid(), t->id, 0) == 0 && geul_os_seconds() - start < longest)
        sched_yield();
#else
    (void)t, (void)longest;
#endif
}

/* Makes up to n threads that wait at the gate, as long as they can be made. No signal is delivered to them. Returns how
 * many there are. */
static int make_trials(struct trial *trials, int n, size_t stack_bytes, pthread_mutex_t *gate)
{
    pthread_attr_t attributes;
    sigset_t all, before;
    int made = 0;
    if (pthread_attr_init(&attributes) != 0)
        return 0;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    bool possible = pthread_attr_setstacksize(&attributes, stack_bytes) == 0;
    for (; possible && made < n; made++) {
        trials[made].gate = gate;
        if (pthread_create(&trials[made].thread, &attributes, wait_at_gate, &trials[made]) != 0)
            break;
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attributes);
    return made;
}

int geul_os_try_threads(int n, size_t stack_bytes, size_t heap_bytes)
{
    pthread_mutex_t gate = PTHREAD_MUTEX_INITIALIZER;
    /* From the C library and not from a context: what makes threads takes its memory there. */
    struct trial *trials = malloc((size_t)(n > 0 ? n : 1) * sizeof *trials);
    void *heap = trials ? malloc(heap_bytes) : NULL;
    int made = -1;
    pthread_mutex_lock(&gate);
    if (heap)
        made = make_trials(trials, n, stack_bytes, &gate);
    pthread_mutex_unlock(&gate);
    for (int i = 0; i < made; i++)
        pthread_join(trials[i].thread, NULL);
    for (int i = 0; i < made; i++)
        wait_until_gone(&trials[i]);
    pthread_mutex_destroy(&gate);
    free(heap);
    free(trials);
    return made;
}

double geul_os_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

double geul_os_wall_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

uint64_t geul_os_peak_rss(void)
{
    struct rusage usage;
    if (getrusage(RUSAGE_SELF, &usage) != 0)
        return 0;
#ifdef __APPLE__
    return (uint64_t)usage.ru_maxrss;
#else
    return (uint64_t)usage.ru_maxrss * 1024;
#endif
}

uint64_t geul_os_resident(void)
{
    unsigned long long pages = 0;
    long page = sysconf(_SC_PAGESIZE);
    FILE *f = fopen("/proc/self/statm", "re"); /* size, resident, ... in pages */
    if (!f)
        return 0;
    if (fscanf(f, "%*u %llu", &pages) != 1 || page < 0)
        pages = 0;
    fclose(f);
    return (uint64_t)pages * (uint64_t)page;
}

bool geul_os_peak_rss_reset(void)
{
    int fd = open("/proc/self/clear_refs", O_WRONLY | O_CLOEXEC);
    bool ok = fd >= 0 && write(fd, "5", 1) == 1; /* 5: the high-water mark, man 5 proc */
    if (fd >= 0)
        close(fd);
    return ok;
}

void geul_os_memory(size_t *available, size_t *total)
{
    char line[128];
    long pages = sysconf(_SC_PHYS_PAGES), page = sysconf(_SC_PAGESIZE);
    *available = 0;
    *total = pages > 0 && page > 0 ? (size_t)pages * (size_t)page : 0;
    FILE *f = fopen("/proc/meminfo", "re"); /* sysconf() does not count what the page cache would give back */
    while (f && fgets(line, sizeof line, f)) {
        unsigned long long kb;
        if (sscanf(line, "MemAvailable: %llu kB", &kb) == 1)
            *available = (size_t)kb * 1024;
    }
    if (f)
        fclose(f);
}

uint64_t geul_os_entropy(void)
{
    uint64_t bits = 0;
    int fd = open("/dev/urandom", O_RDONLY | O_CLOEXEC);
    bool ok = fd >= 0 && read(fd, &bits, sizeof bits) == (ssize_t)sizeof bits;
    if (fd >= 0)
        close(fd);
    if (ok)
        return bits;
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return ((uint64_t)t.tv_sec << 30 ^ (uint64_t)t.tv_nsec) * 0x9e3779b97f4a7c15u + (uint64_t)getpid();
}

/* Whether an ELF file has all bytes that its headers speak of; true for what is no ELF file, which the loader
 * refuses.*/
static bool elf_is_whole(int fd, uint64_t size)
{
    ElfW(Ehdr) head;
    const unsigned char of_this_machine = sizeof(void *) == 8 ? ELFCLASS64 : ELFCLASS32;
    if (pread(fd, &head, sizeof head, 0) != (ssize_t)sizeof head || memcmp(head.e_ident, ELFMAG, SELFMAG) != 0 ||
        head.e_ident[EI_CLASS] != of_this_machine)
        return true;
    uint64_t sections = head.e_shoff + (uint64_t)head.e_shnum * head.e_shentsize;
    if (sections > size || head.e_shoff > size)
        return false;
    for (unsigned i = 0; i < head.e_phnum; i++) {
        ElfW(Phdr) part;
        off_t at = (off_t)(head.e_phoff + (uint64_t)i * head.e_phentsize);
        if (pread(fd, &part, sizeof part, at) != (ssize_t)sizeof part)
            return false;
        if (part.p_type == PT_LOAD && (part.p_offset > size || part.p_filesz > size - part.p_offset))
            return false;
    }
    return true;
}

void *geul_os_library_open(const char *path, char *why, size_t size)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    struct stat st;
    bool whole = fd < 0 || fstat(fd, &st) != 0 || elf_is_whole(fd, (uint64_t)st.st_size);
    if (fd >= 0)
        close(fd);
    if (!whole) {
        snprintf(why, size, "the file is cut off: install it again");
        return NULL;
    }
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!library) {
        const char *text = dlerror();
        size_t n = strlen(path);
        bool named = text && strncmp(text, path, n) == 0 && strncmp(text + n, ": ", 2) == 0;
        snprintf(why, size, "%s", !text ? "unknown error" : named ? text + n + 2 : text);
    }
    return library;
}

void *geul_os_library_symbol(void *library, const char *name)
{
    return dlsym(library, name);
}

void geul_os_library_close(void *library)
{
    dlclose(library);
}

bool geul_os_folder_of(const void *address, char *folder, size_t size)
{
    Dl_info in, program;
    char path[PATH_MAX];
    /* For the program dladdr() has the name by which it was called, which need not lead to it. */
    bool known = dladdr(address, &in) != 0;
    bool is_program = !known || (dladdr((const void *)(uintptr_t)getauxval(AT_PHDR), &program) != 0 &&
                                 program.dli_fbase == in.dli_fbase);
    if (!realpath(is_program ? "/proc/self/exe" : in.dli_fname, path))
        return false;
    size_t n = (size_t)(strrchr(path, '/') - path);
    n = n ? n : 1; /* the root */
    if (n >= size)
        return false;
    memcpy(folder, path, n);
    folder[n] = '\0';
    return true;
}

const char *geul_os_env(const char *name)
{
    return getenv(name);
}

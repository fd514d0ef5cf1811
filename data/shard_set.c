/* shard_set.c: see shard_set.h. */
#include "data/shard_set.h"

#include "core/os.h"

#include <stdio.h>
#include <string.h>

enum { DIGITS = 5, MOST_FILES = 100000 };

bool geul_shard_set_write(struct geul_context *ctx, const struct geul_shard_set_file *files, size_t n,
                          struct geul_bytes *to)
{
    char line[96];
    int length = snprintf(line, sizeof line, GEUL_SHARD_SET_HEAD "files %zu\n", n);
    bool ok = geul_bytes_add(ctx, to, line, (size_t)length);
    for (size_t i = 0; ok && i < n; i++) {
        length = snprintf(line, sizeof line, "%llu tokens, %llu bytes\n", (unsigned long long)files[i].tokens,
                          (unsigned long long)files[i].bytes);
        ok = geul_bytes_add(ctx, to, line, (size_t)length);
    }
    return ok && geul_bytes_add(ctx, to, "complete\n", sizeof "complete\n" - 1);
}

/* ----------------------------------------------------------------------------------- reading -- */

struct list {
    const char *at, *end;
};

/* Moves past `text`, which must come next. */
static bool skip(struct list *l, const char *text)
{
    size_t n = strlen(text);
    if ((size_t)(l->end - l->at) < n || memcmp(l->at, text, n) != 0)
        return false;
    l->at += n;
    return true;
}

/* A number of at most 19 digits. */
static bool number(struct list *l, uint64_t *out)
{
    int digits = 0;
    *out = 0;
    for (; l->at < l->end && *l->at >= '0' && *l->at <= '9' && digits < 19; l->at++, digits++)
        *out = *out * 10 + (uint64_t)(*l->at - '0');
    return digits > 0;
}

enum geul_status geul_shard_set_find(struct geul_context *ctx, const char *name, const void *data, size_t size,
                                     uint64_t wanted, uint64_t bytes, uint64_t *n, uint64_t *next)
{
    struct list l = {data, (const char *)data + size};
    uint64_t tokens, size_of_file = 0, first = 0, found = UINT64_MAX;
    bool ok = skip(&l, GEUL_SHARD_SET_HEAD);
    if (ok && l.at == l.end)
        return geul_fail(ctx, GEUL_ERROR_FORMAT,
                         "%s: the set of shards is not complete: writing it was broken off; write it again", name);
    ok = ok && skip(&l, "files ") && number(&l, n) && *n <= MOST_FILES && skip(&l, "\n");
    *next = 0;
    for (uint64_t i = 0; ok && i < *n; i++) {
        ok = number(&l, &tokens) && skip(&l, " tokens, ") && number(&l, &size_of_file) && skip(&l, " bytes\n");
        first = i == 0 ? size_of_file : first;
        found = i == wanted ? size_of_file : found;
        *next = i == wanted + 1 ? size_of_file : *next;
    }
    if (!ok || !skip(&l, "complete\n") || l.at != l.end)
        return geul_fail(ctx, GEUL_ERROR_FORMAT, "%s is damaged: it does not end as a list of shards does", name);
    if (wanted + 1 == *n)
        *next = first;
    if (wanted >= *n)
        return geul_fail(ctx, GEUL_ERROR_FORMAT,
                         "%s lists %llu shards, so number %llu is of another set; remove what does not belong together",
                         name, (unsigned long long)*n, (unsigned long long)wanted);
    if (found != bytes)
        return geul_fail(ctx, GEUL_ERROR_FORMAT,
                         "%s: shard number %llu was written with %llu bytes and has %llu; copy or write it again", name,
                         (unsigned long long)wanted, (unsigned long long)found, (unsigned long long)bytes);
    return GEUL_OK;
}

/* The number in "...-00012.geulshard", and through *stem the length of what stands before it; -1 in other names. */
static int64_t number_of(const char *path, size_t *stem)
{
    const size_t tail = 1 + DIGITS + sizeof GEUL_SHARD_EXTENSION - 1;
    size_t length = strlen(path);
    if (length <= tail || strcmp(path + length - (sizeof GEUL_SHARD_EXTENSION - 1), GEUL_SHARD_EXTENSION) != 0)
        return -1;
    *stem = length - tail;
    struct list l = {path + *stem, path + length - (sizeof GEUL_SHARD_EXTENSION - 1)};
    uint64_t v;
    return skip(&l, "-") && number(&l, &v) && l.at == l.end ? (int64_t)v : -1;
}

/* Fails unless shard `wanted` of the set exists with that size. name has room for its path. */
static enum geul_status check_other(struct geul_context *ctx, char *name, size_t size, size_t stem, uint64_t wanted,
                                    uint64_t bytes)
{
    uint64_t found;
    char end[64];
    snprintf(end, sizeof end, "-%05llu" GEUL_SHARD_EXTENSION, (unsigned long long)wanted);
    snprintf(name + stem, size - stem, "%s", end);
    if (geul_os_file_size(name, &found) && found == bytes)
        return GEUL_OK;
    return geul_fail(ctx, GEUL_ERROR_FORMAT,
                     "the set of shards is not complete: %s is missing or has another size than its list, "
                     "%.*s" GEUL_SHARD_SET_EXTENSION ", says; "
                     "copy it too, or remove the list to use the files that are there",
                     name, (int)stem, name);
}

enum geul_status geul_shard_set_check(struct geul_context *ctx, const char *path, uint64_t bytes)
{
    size_t stem, size = strlen(path) + 64;
    int64_t wanted = number_of(path, &stem);
    struct geul_map map = {0};
    uint64_t n = 0, next = 0;
    if (wanted < 0)
        return GEUL_OK;
    char *name = geul_alloc(ctx, size, 1);
    if (!name)
        return GEUL_ERROR_MEMORY;
    snprintf(name, size, "%.*s%s", (int)stem, path, GEUL_SHARD_SET_EXTENSION);
    enum geul_status status = GEUL_OK;
    if (geul_os_exists(name)) {
        status = geul_os_map(ctx, name, &map);
        if (status == GEUL_OK)
            status = geul_shard_set_find(ctx, name, map.size ? (const void *)map.data : "", map.size, (uint64_t)wanted,
                                         bytes, &n, &next);
        if (status == GEUL_OK && n > 1)
            status = check_other(ctx, name, size, stem, ((uint64_t)wanted + 1) % n, next);
    }
    geul_os_unmap(&map);
    geul_free(ctx, name);
    return status;
}

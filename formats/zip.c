/* zip.c: see zip.h.
 *
 *   members: "PK\3\4" ... name, extra, data
 *   directory: "PK\1\2" ... name, extra (zip64 sizes), comment; one per member
 *   [zip64 end "PK\6\6", its locator "PK\6\7"], end "PK\5\6" ... comment
 *
 * It is read from the end: the end record leads to the directory, each entry of it to a member. Every offset is held
 * against what must follow it (member < directory < end record) before it is used. */
#include "formats/zip.h"

#include <stdlib.h>
#include <string.h>

enum {
    LOCAL_BYTES = 30,
    ENTRY_BYTES = 46,
    END_BYTES = 22,
    LOCATOR_BYTES = 20,
    END64_BYTES = 56,
    LONGEST_COMMENT = 65535,
};

/* Where the directory is. */
struct directory {
    uint64_t offset, bytes, count;
};

static uint64_t load(const uint8_t *p, size_t bytes)
{
    uint64_t v = 0;
    for (size_t i = 0; i < bytes; i++)
        v |= (uint64_t)p[i] << (8 * i);
    return v;
}

static bool has_mark(const uint8_t *p, int a, int b)
{
    return p[0] == 'P' && p[1] == 'K' && p[2] == a && p[3] == b;
}

static enum geul_status damaged(struct geul_context *ctx, const char *name, const char *what)
{
    return geul_fail(ctx, GEUL_ERROR_FORMAT, "%s: %s; the archive is incomplete or damaged, fetch it again", name,
                     what);
}

/* Finds the end record, which a comment may follow, and reads *d from it or from its zip64 form. */
static enum geul_status find_directory(struct geul_context *ctx, const char *name, const uint8_t *data, size_t size,
                                       struct directory *d)
{
    size_t lowest = size > END_BYTES + LONGEST_COMMENT ? size - END_BYTES - LONGEST_COMMENT : 0;
    size_t end = size < END_BYTES ? 0 : size - END_BYTES + 1;
    bool found = false;
    while (!found && end > lowest) {
        end--; /* a comment that holds "PK\5\6" is told apart by its length: the right one ends with the file */
        found = has_mark(data + end, 5, 6) && load(data + end + 20, 2) == size - end - END_BYTES;
    }
    if (!found)
        return damaged(ctx, name, "the ZIP archive has no directory");
    *d = (struct directory){load(data + end + 16, 4), load(data + end + 12, 4), load(data + end + 10, 2)};
    /* the locator lies right before the end record and has the offset of the zip64 end, whose fields have 64 bits */
    if (end >= LOCATOR_BYTES && has_mark(data + end - LOCATOR_BYTES, 6, 7)) {
        uint64_t at = load(data + end - LOCATOR_BYTES + 8, 8);
        end -= LOCATOR_BYTES;
        if (at > end || end - at < END64_BYTES || !has_mark(data + at, 6, 6))
            return damaged(ctx, name, "the zip64 record is not where the archive says");
        *d = (struct directory){load(data + at + 48, 8), load(data + at + 40, 8), load(data + at + 32, 8)};
        end = (size_t)at;
    }
    if (d->offset > end || d->bytes > end - d->offset || d->count > d->bytes / ENTRY_BYTES)
        return damaged(ctx, name, "the directory of the ZIP archive claims more than the file holds");
    return GEUL_OK;
}

/* Replaces the sizes and the offset that are 0xffffffff by their zip64 values, which come in the order of fields and
 * only for those. false when the extra field (id 1) is too short for them. */
static bool read_zip64(const uint8_t *extra, size_t size, uint64_t *const fields[3])
{
    while (size >= 4) {
        size_t id = (size_t)load(extra, 2), bytes = (size_t)load(extra + 2, 2), at = 0;
        if (bytes > size - 4)
            return false;
        for (int i = 0; id == 1 && i < 3; i++)
            if (*fields[i] == UINT32_MAX) {
                if (bytes - at < 8)
                    return false;
                *fields[i] = load(extra + 4 + at, 8);
                at += 8;
            }
        extra += 4 + bytes;
        size -= 4 + bytes;
    }
    return true;
}

/* Reads the directory entry at *pos and finds its data. */
static enum geul_status read_entry(struct geul_context *ctx, const char *name, const uint8_t *data,
                                   const struct directory *d, size_t *pos, struct geul_zip_entry *entry)
{
    size_t rest = (size_t)(d->offset + d->bytes) - *pos;
    const uint8_t *e = data + *pos;
    if (rest < ENTRY_BYTES || !has_mark(e, 1, 2))
        return damaged(ctx, name, "the directory of the ZIP archive is broken");
    size_t n = (size_t)load(e + 28, 2), extra = (size_t)load(e + 30, 2), comment = (size_t)load(e + 32, 2);
    if (rest - ENTRY_BYTES < n + extra + comment)
        return damaged(ctx, name, "the directory of the ZIP archive is broken");
    uint64_t packed = load(e + 20, 4), size = load(e + 24, 4), local = load(e + 42, 4);
    /* APPNOTE 4.5.3: the unpacked size comes first */
    if (!read_zip64(e + ENTRY_BYTES + n, extra, (uint64_t *const[3]){&size, &packed, &local}))
        return damaged(ctx, name, "the zip64 fields of a member are broken");
    *entry = (struct geul_zip_entry){.name = (const char *)e + ENTRY_BYTES, .name_length = n, .size = (size_t)size};
    *pos += ENTRY_BYTES + n + extra + comment;
    if ((load(e + 8, 2) & 1) != 0 || load(e + 10, 2) != 0 || packed != size)
        return geul_fail(
            ctx, GEUL_ERROR_UNSUPPORTED,
            "%s: a member of the ZIP archive is compressed or encrypted; torch.save() writes neither, save "
            "the checkpoint again with it",
            name);
    /* The local header repeats the name, and its own extra field decides where the data begins: torch.save() pads with
     * it to align storages. */
    if (local > d->offset || d->offset - local < LOCAL_BYTES || !has_mark(data + local, 3, 4))
        return damaged(ctx, name, "a member of the ZIP archive is not where the directory says");
    uint64_t at = local + LOCAL_BYTES + load(data + local + 26, 2) + load(data + local + 28, 2);
    if (at > d->offset || size > d->offset - at || load(data + local + 26, 2) != n ||
        memcmp(data + local + LOCAL_BYTES, entry->name, n) != 0)
        return damaged(ctx, name, "a member of the ZIP archive does not match its entry in the directory");
    entry->data = data + at;
    return GEUL_OK;
}

static int compare(const char *a, size_t a_length, const char *b, size_t b_length)
{
    int order = memcmp(a, b, a_length < b_length ? a_length : b_length);
    return order ? order : (a_length > b_length) - (a_length < b_length);
}

static int compare_entries(const void *a, const void *b)
{
    const struct geul_zip_entry *x = a, *y = b;
    return compare(x->name, x->name_length, y->name, y->name_length);
}

enum geul_status geul_zip_open(struct geul_context *ctx, const char *name, const uint8_t *data, size_t size,
                               struct geul_zip *zip)
{
    struct directory d = {0};
    *zip = (struct geul_zip){0};
    if (find_directory(ctx, name, data, size, &d) != GEUL_OK)
        return geul_error_status(ctx);
    /* find_directory() has held count against the bytes of the directory: a small file cannot ask for much */
    zip->entries = geul_alloc(ctx, (size_t)d.count, sizeof *zip->entries);
    if (!zip->entries)
        return GEUL_ERROR_MEMORY;
    size_t pos = (size_t)d.offset;
    for (; zip->count < d.count; zip->count++)
        if (read_entry(ctx, name, data, &d, &pos, &zip->entries[zip->count]) != GEUL_OK)
            return geul_error_status(ctx);
    if (zip->count > 1) /* for geul_zip_find() */
        qsort(zip->entries, zip->count, sizeof *zip->entries, compare_entries);
    for (size_t i = 1; i < zip->count; i++)
        if (compare_entries(&zip->entries[i - 1], &zip->entries[i]) == 0)
            return damaged(ctx, name, "two members of the ZIP archive have the same name");
    return GEUL_OK;
}

void geul_zip_free(struct geul_context *ctx, struct geul_zip *zip)
{
    geul_free(ctx, zip->entries);
    *zip = (struct geul_zip){0};
}

const struct geul_zip_entry *geul_zip_find(const struct geul_zip *zip, const char *name, size_t length)
{
    size_t low = 0, high = zip->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        const struct geul_zip_entry *e = &zip->entries[middle];
        int order = compare(e->name, e->name_length, name, length);
        if (order == 0)
            return e;
        if (order < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return NULL;
}

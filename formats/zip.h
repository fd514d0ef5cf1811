/* zip.h: finding the members of a ZIP archive (zip64 included) in memory. Only stored members: nothing is unpacked, so
 * a small file cannot become a large one. */
#ifndef GEUL_ZIP_H
#define GEUL_ZIP_H

#include "core/context.h"

struct geul_zip_entry {
    const char *name; /* not NUL-terminated */
    size_t name_length;
    const uint8_t *data;
    size_t size;
};

struct geul_zip {
    struct geul_zip_entry *entries; /* sorted by name */
    size_t count;
};

/* Reads the directory of the archive in [data, data + size). Every member is checked to lie in the archive, before the
 * directory. Compressed or encrypted members are refused. Free with geul_zip_free(), also after a failure. */
enum geul_status geul_zip_open(struct geul_context *ctx, const char *name, const uint8_t *data, size_t size,
                               struct geul_zip *zip);
void geul_zip_free(struct geul_context *ctx, struct geul_zip *zip);
/* The member of that name; NULL when there is none. */
const struct geul_zip_entry *geul_zip_find(const struct geul_zip *zip, const char *name, size_t length);

#endif

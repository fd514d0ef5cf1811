/* json_file.c: see json_file.h. */
#include "formats/json_file.h"

#include "core/file_kind.h"
#include "core/os.h"

#include <string.h>

/* Far above any config or tokenizer; keeps a parsed document (about ten times its text) within ordinary memory. */
#define LARGEST_JSON ((size_t)256 << 20)

json_t *geul_json_parse(struct geul_context *ctx, const char *name, const void *data, size_t size)
{
    json_error_t error;
    char text[JSON_ERROR_TEXT_LENGTH];
    if (size == 0 || size > LARGEST_JSON) {
        geul_fail(ctx, GEUL_ERROR_FORMAT, "%s: %zu bytes of JSON; 1 to %zu are possible", name, size, LARGEST_JSON);
        return NULL;
    }
    json_t *json = json_loadb(data, size, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &error);
    const struct geul_file_kind *kind = json ? NULL : geul_file_kind_foreign(data, size, GEUL_FILE_JSON);
    if (kind)
        geul_fail_kind(ctx, name, "JSON", kind);
    else if (!json)
        geul_fail(ctx, GEUL_ERROR_FORMAT, "%s: not valid JSON: %s (line %d, column %d)", name,
                  geul_printable(error.text, text, sizeof text), error.line, error.column);
    return json;
}

json_t *geul_json_load(struct geul_context *ctx, const char *path)
{
    struct geul_map map;
    if (geul_os_map(ctx, path, &map) != GEUL_OK)
        return NULL;
    json_t *json = geul_json_parse(ctx, path, map.data, map.size);
    geul_os_unmap(&map);
    if (json && !json_is_object(json)) {
        geul_fail(ctx, GEUL_ERROR_FORMAT, "%s: the JSON is not an object", path);
        json_decref(json);
        return NULL;
    }
    return json;
}

/* jansson's callback: it gives the text in pieces. */
static int write_piece(const char *data, size_t size, void *file)
{
    return geul_outfile_write(file, data, size) == GEUL_OK ? 0 : -1;
}

enum geul_status geul_json_save(struct geul_context *ctx, const char *path, const json_t *json, bool sorted)
{
    struct geul_outfile *file = geul_outfile_open(ctx, path);
    if (!file)
        return geul_error_status(ctx);
    size_t flags = JSON_INDENT(2) | (sorted ? JSON_SORT_KEYS : 0);
    if (json_dump_callback(json, write_piece, file, flags) != 0 || geul_outfile_write(file, "\n", 1) != GEUL_OK) {
        geul_outfile_abandon(file);
        /* a failed write has recorded its own reason, which comes first: what remains is jansson's lack of memory */
        return geul_fail(ctx, GEUL_ERROR_MEMORY, "%s: the JSON could not be written", path);
    }
    return geul_outfile_commit(file);
}

/* The member, NULL when it is missing or null. */
static const json_t *member(const json_t *object, const char *key)
{
    const json_t *v = json_object_get(object, key);
    return v && !json_is_null(v) ? v : NULL;
}

bool geul_json_int(struct geul_context *ctx, const char *name, const json_t *object, const char *key, int64_t low,
                   int64_t high, int64_t *out)
{
    const json_t *v = member(object, key);
    if (!v)
        return false;
    if (!json_is_integer(v) || json_integer_value(v) < low || json_integer_value(v) > high) {
        geul_fail(ctx, GEUL_ERROR_FORMAT, "%s: \"%s\" must be a whole number from %lld to %lld", name, key,
                  (long long)low, (long long)high);
        return false;
    }
    *out = json_integer_value(v);
    return true;
}

bool geul_json_real(struct geul_context *ctx, const char *name, const json_t *object, const char *key, double low,
                    double high, double *out)
{
    const json_t *v = member(object, key);
    if (!v)
        return false;
    double d = json_number_value(v);
    if (!json_is_number(v) || !(d >= low && d <= high)) {
        geul_fail(ctx, GEUL_ERROR_FORMAT, "%s: \"%s\" must be a number from %g to %g", name, key, low, high);
        return false;
    }
    *out = d;
    return true;
}

bool geul_json_bool(struct geul_context *ctx, const char *name, const json_t *object, const char *key, bool *out)
{
    const json_t *v = member(object, key);
    if (!v)
        return false;
    if (!json_is_boolean(v)) {
        geul_fail(ctx, GEUL_ERROR_FORMAT, "%s: \"%s\" must be true or false", name, key);
        return false;
    }
    *out = json_is_true(v);
    return true;
}

bool geul_json_string(struct geul_context *ctx, const char *name, const json_t *object, const char *key,
                      const char **out)
{
    const json_t *v = member(object, key);
    if (!v)
        return false;
    if (!json_is_string(v)) {
        geul_fail(ctx, GEUL_ERROR_FORMAT, "%s: \"%s\" must be a string", name, key);
        return false;
    }
    *out = json_string_value(v);
    return true;
}

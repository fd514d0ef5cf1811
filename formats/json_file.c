/* json_file.c: see json_file.h. */
#include "formats/json_file.h"

#include "core/file_kind.h"
#include "core/os.h"
#include "formats/json_text.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Far above any config or tokenizer; keeps a parsed document (about ten times its text) within ordinary memory. */
#define LARGEST_JSON ((size_t)256 << 20)

/* Both ways of parsing: as jansson does, or as Python does. */
static json_t *parse(struct geul_context *ctx, const char *name, const void *data, size_t size, bool strict)
{
    json_error_t error;
    char text[JSON_ERROR_TEXT_LENGTH];
    if (size == 0 || size > LARGEST_JSON) {
        geul_fail(ctx, GEUL_ERROR_FORMAT, "%s: %zu bytes of JSON; 1 to %zu are possible", name, size, LARGEST_JSON);
        return NULL;
    }
    json_t *json = strict ? json_loadb(data, size, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &error)
                          : geul_json_decode(ctx, data, size, 0, &error);
    const struct geul_file_kind *kind = json ? NULL : geul_file_kind_foreign(data, size, GEUL_FILE_JSON);
    if (kind) /* where memory was short that is recorded already, and stays */
        geul_fail_kind(ctx, name, "JSON", kind);
    else if (!json)
        geul_fail(ctx, GEUL_ERROR_FORMAT, "%s: not valid JSON: %s (line %d, column %d)", name,
                  geul_printable(error.text, text, sizeof text), error.line, error.column);
    return json;
}

json_t *geul_json_parse(struct geul_context *ctx, const char *name, const void *data, size_t size)
{
    return parse(ctx, name, data, size, false);
}

json_t *geul_json_parse_strict(struct geul_context *ctx, const char *name, const void *data, size_t size)
{
    return parse(ctx, name, data, size, true);
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

enum geul_status geul_json_save(struct geul_context *ctx, const char *path, const json_t *json, bool sorted)
{
    char *text = geul_json_encode(json, JSON_INDENT(2) | (sorted ? JSON_SORT_KEYS : 0));
    if (!text)
        return geul_fail(ctx, GEUL_ERROR_MEMORY, "%s: the JSON could not be written", path);
    struct geul_outfile *file = geul_outfile_open(ctx, path);
    enum geul_status status = file ? geul_outfile_write(file, text, strlen(text)) : geul_error_status(ctx);
    if (status == GEUL_OK)
        status = geul_outfile_write(file, "\n", 1);
    free(text);
    if (status == GEUL_OK)
        return geul_outfile_commit(file);
    geul_outfile_abandon(file);
    return status;
}

/* Records that a member is not what it must be. */
static bool refuse(struct geul_context *ctx, const char *name, const char *key, const json_t *v, const char *must)
{
    const char *odd = geul_json_oddity(v);
    if (odd)
        geul_fail(ctx, GEUL_ERROR_FORMAT, "%s: \"%s\" is %s; it must be %s", name, key, odd, must);
    else
        geul_fail(ctx, GEUL_ERROR_FORMAT, "%s: \"%s\" must be %s", name, key, must);
    return false;
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
        char must[80];
        snprintf(must, sizeof must, "a whole number from %lld to %lld", (long long)low, (long long)high);
        return refuse(ctx, name, key, v, must);
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
        char must[80];
        snprintf(must, sizeof must, "a number from %g to %g", low, high);
        return refuse(ctx, name, key, v, must);
    }
    *out = d;
    return true;
}

bool geul_json_bool(struct geul_context *ctx, const char *name, const json_t *object, const char *key, bool *out)
{
    const json_t *v = member(object, key);
    if (!v)
        return false;
    if (!json_is_boolean(v))
        return refuse(ctx, name, key, v, "true or false");
    *out = json_is_true(v);
    return true;
}

bool geul_json_string(struct geul_context *ctx, const char *name, const json_t *object, const char *key,
                      const char **out)
{
    const json_t *v = member(object, key);
    if (!v)
        return false;
    if (!json_is_string(v))
        return refuse(ctx, name, key, v, "a string");
    *out = json_string_value(v);
    return true;
}

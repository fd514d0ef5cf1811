/* json_file.h: JSON of bounded size, with errors that name the file, and typed look-ups. Over jansson. */
#ifndef GEUL_JSON_FILE_H
#define GEUL_JSON_FILE_H

#include "core/context.h"

#include <jansson.h>

/* The document in [data, data + size), read as Python reads it (json_text.h), or NULL with a message that begins with
 * name. Anything after the document is refused. Free with json_decref(). */
json_t *geul_json_parse(struct geul_context *ctx, const char *name, const void *data, size_t size);
/* The same by the letter of the standard, without a key twice: the headers of safetensors files, which no Python
 * writes. */
json_t *geul_json_parse_strict(struct geul_context *ctx, const char *name, const void *data, size_t size);
/* The document in the file at path; NULL when it is missing, too large or not an object. */
json_t *geul_json_load(struct geul_context *ctx, const char *path);
/* Writes the document with an indent of 2, in one atomic step. sorted: keys in alphabetical order. */
enum geul_status geul_json_save(struct geul_context *ctx, const char *path, const json_t *json, bool sorted);

/* Members of an object. true: *out was set. A missing or null member gives false without an error; a member of
 * another kind or outside [low, high] gives false and records a message that begins with name. */
bool geul_json_int(struct geul_context *ctx, const char *name, const json_t *object, const char *key, int64_t low,
                   int64_t high, int64_t *out);
bool geul_json_real(struct geul_context *ctx, const char *name, const json_t *object, const char *key, double low,
                    double high, double *out);
bool geul_json_bool(struct geul_context *ctx, const char *name, const json_t *object, const char *key, bool *out);
/* *out lives as long as the object. */
bool geul_json_string(struct geul_context *ctx, const char *name, const json_t *object, const char *key,
                      const char **out);

#endif

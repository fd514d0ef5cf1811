/* json_text.h: the text of JSON as Python's json module takes it, over jansson, which is stricter: it stops at NaN,
 * Infinity, -Infinity, whole numbers beyond 64 bits, numbers beyond double and escapes of half a surrogate pair, and
 * its objects keep no keys that hold NUL. All of these stand in files that people have, mostly under keys that geul
 * does not use. */
#ifndef GEUL_JSON_TEXT_H
#define GEUL_JSON_TEXT_H

#include "core/context.h"

#include <jansson.h>

/* The document in [data, data + size), which a byte order mark may precede, or NULL with *error filled in; free with
 * json_decref(). Of keys that an object has twice the last counts. A whole number beyond 64 bits becomes a real. What
 * jansson cannot hold becomes a value of no ordinary kind, which geul_json_oddity() names; in a key, U+FFFD takes the
 * place of the character. flags are jansson's, JSON_DECODE_ANY say. When memory is short the context has the failure.
 */
json_t *geul_json_decode(struct geul_context *ctx, const char *data, size_t size, size_t flags, json_error_t *error);
/* What v stands for when jansson cannot hold it: "NaN", "Infinity", "-Infinity", "a number beyond double" or
 * "broken Unicode (half a surrogate pair)"; NULL when it is an ordinary value or NULL. */
const char *geul_json_oddity(const json_t *v);
/* json as text, odd values as they were read, or NULL when memory is short; free with free(), as json_dumps()'s. flags
 * are jansson's. */
char *geul_json_encode(const json_t *json, size_t flags);

#endif

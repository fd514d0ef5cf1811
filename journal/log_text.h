/* log_text.h: building texts: they grow, do not depend on the locale, and keep a failure until the end. */
#ifndef GEUL_LOG_TEXT_H
#define GEUL_LOG_TEXT_H

#include "core/bytes.h"

/* Set ctx, zero the rest; free with geul_log_text_free(). After a failed allocation the text is incomplete and failed
 * is set: check it once, at the end. */
struct geul_log_text {
    struct geul_context *ctx;
    struct geul_bytes bytes;
    bool failed;
};
void geul_log_text_free(struct geul_log_text *t);
/* Empties it; memory stays. */
void geul_log_text_clear(struct geul_log_text *t);

void geul_log_text_add_bytes(struct geul_log_text *t, const void *data, size_t n);
void geul_log_text_add(struct geul_log_text *t, const char *s);
/* Like printf, for whole numbers and texts; for doubles see below. */
void geul_log_text_add_format(struct geul_log_text *t, const char *format, ...) GEUL_PRINTF(2, 3);
/* v with so many significant digits ("2.31", "1e-05", "nan"), or so many after the point ("2.310"). */
void geul_log_text_add_double(struct geul_log_text *t, double v, int digits);
void geul_log_text_add_fixed(struct geul_log_text *t, double v, int decimals);
/* 1234567 as "1,234,567". */
void geul_log_text_add_grouped(struct geul_log_text *t, int64_t n);
/* The text with broken UTF-8 as U+FFFD: otherwise as it is, as a JSON string with its quotes, or escaped for HTML. */
void geul_log_text_add_utf8(struct geul_log_text *t, const char *s);
void geul_log_text_add_json(struct geul_log_text *t, const char *s);
void geul_log_text_add_html(struct geul_log_text *t, const char *s);

/* v with so many significant digits into out; a point whatever the locale. */
void geul_log_format_double(char *out, size_t size, double v, int digits);
/* Reads what geul_log_text_add_double() writes, and any other decimal number; all n bytes have to belong to it.
 * Correct to about 15 digits. false: not a number. */
bool geul_log_parse_double(const char *s, size_t n, double *out);
bool geul_log_parse_int(const char *s, size_t n, int64_t *out);

#endif

/* text_decode.h: names of encodings; the rest is in geul_tools.h. */
#ifndef GEUL_TEXT_DECODE_H
#define GEUL_TEXT_DECODE_H

#include "core/context.h"
#include "geul_tools.h"

/* How messages call what geul_text_guess_encoding() returned: "CP949 (EUC-KR)". */
const char *geul_text_encoding_title(const char *guess);
/* Whether this is UTF-8, which needs no decoding; NULL is. */
bool geul_text_is_utf8_name(const char *encoding);

#endif

/* regex_pcre2.h: the regular expressions of unusual tokenizers, by PCRE2. */
#ifndef GEUL_REGEX_PCRE2_H
#define GEUL_REGEX_PCRE2_H

#include "geul.h"

/* An engine that may serve all tokenizers and threads. Patterns see Unicode properties; any bytes may be matched
 * against; a match that would take unreasonably long counts as none. \s and \w mean what they mean
 * to Oniguruma, which Hugging Face uses. */
const struct geul_regex_engine *geul_regex_pcre2(void);

#endif

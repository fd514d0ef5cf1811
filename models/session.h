/* session.h: what generate.c needs of a session beyond the public calls. */
#ifndef GEUL_SESSION_H
#define GEUL_SESSION_H

#include "models/model.h"

/* The tokens that sequence seq holds, geul_session_length() of them. */
const int32_t *geul_session_tokens(const struct geul_session *s, int seq);
int geul_session_batch(const struct geul_session *s);
int geul_session_sequences(const struct geul_session *s);

#endif

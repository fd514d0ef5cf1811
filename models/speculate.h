/* speculate.h: the speculator as generate.c uses it. */
#ifndef GEUL_SPECULATE_H
#define GEUL_SPECULATE_H

#include "models/pace.h"
#include "models/session.h"

/* The session it drafts for. */
const struct geul_session *geul_speculator_session(const struct geul_speculator *p);
/* Starts a generation that continues ids (n of them) in sequence seq. Lets a draft model read them when it is likely to
 * draft; calls on_piece after each piece, and stops with GEUL_ERROR_CANCELLED when that returns false. */
enum geul_status geul_speculator_start(struct geul_speculator *p, int seq, const int32_t *ids, int n,
                                       bool (*on_piece)(void *user), void *user);
/* Guesses how the text continues after what sequence seq holds and token last: *n tokens into draft, at most `most` <=
 * GEUL_DRAFT_MAX, or none. sampler is the one that will choose; it is left as it was. Failures are in the context of
 * the session it drafts for. */
enum geul_status geul_speculator_draft(struct geul_speculator *p, int seq, int32_t last, struct geul_sampler *sampler,
                                       int most, int32_t *draft, int *n);
/* Records the evaluation of last and n drafted tokens, of which `right` were accepted. */
void geul_speculator_learn(struct geul_speculator *p, int n, int right, double seconds);

#endif

/* sampler.h: what speculation needs of a sampler beyond the public calls. */
#ifndef GEUL_SAMPLER_H
#define GEUL_SAMPLER_H

#include "geul.h"

enum { GEUL_SAMPLER_UNDO_MAX = 64 };

/* Takes back the last n <= GEUL_SAMPLER_UNDO_MAX choices of geul_sampler_next(), after which nothing was accepted from
 * outside: history and random numbers are as before them. */
void geul_sampler_undo(struct geul_sampler *s, int n);
/* How clear the last choice was: from 0.5, a tie with the second, to 1, no rival. Greedy: p1 / (p1 + p2) of the two
 * likeliest tokens; sampling: t2 / (t1 + t2) of the two earliest times of the draw. */
double geul_sampler_confidence(const struct geul_sampler *s);

#endif

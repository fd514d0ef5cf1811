/* pace.h: how long drafts should be, from what they have gained and cost so far.
 *
 * A draft of k tokens, each right with probability a, yields 1 + a + ... + a^k tokens (Leviathan et al. 2023) for the
 * seconds of an evaluation of k + 1 tokens and of drafting. The length that yields the most tokens per second is
 * chosen, and that may be 0. Lengths affect speed only, never the text. */
#ifndef GEUL_PACE_H
#define GEUL_PACE_H

#include <stdbool.h>

enum { GEUL_DRAFT_MAX = 64 };

/* Where drafts come from. Each has its own acceptance rate. */
enum geul_draft_source {
    GEUL_DRAFT_LOOKUP_SHORT, /* a match of 2 tokens */
    GEUL_DRAFT_LOOKUP_LONG,  /* of 3 to 7 */
    GEUL_DRAFT_LOOKUP_SURE,  /* of 8 or more */
    GEUL_DRAFT_MODEL,
    GEUL_DRAFT_SOURCES
};

struct geul_pace {
    double seconds[GEUL_DRAFT_MAX + 2]; /* of an evaluation of n tokens; 0: not measured */
    int n_single;                       /* evaluations of one token that were measured */
    int since_single;                   /* evaluations since the last of them */
    struct geul_pace_source {
        double tried, right;      /* tokens looked at and accepted, old ones fading */
        double drafted, drafting; /* tokens drafted and seconds that took, fading too */
        int waited, wait;         /* steps since it last drafted; steps between attempts while it does not pay */
        bool trial;               /* its last draft was such an attempt */
    } sources[GEUL_DRAFT_SOURCES];
};

void geul_pace_init(struct geul_pace *p);
/* Whether drafts from source, up to most tokens long, are likely to be made: they pay, or too little is known yet. */
bool geul_pace_pays(const struct geul_pace *p, enum geul_draft_source source, int most);
/* The length of the next draft from source, 0 to most: 0 when it does not pay. From time to time a source that does not
 * pay is tried again. Call once per step and source that has a draft to offer. */
int geul_pace_choose(struct geul_pace *p, enum geul_draft_source source, int most);
/* Records a draft that was made: n tokens (perhaps none) in so many seconds. */
void geul_pace_drafted(struct geul_pace *p, enum geul_draft_source source, int n, double seconds);
/* Records an evaluation of 1 + n tokens in so many seconds, of whose n guesses `right` were accepted. source has no
 * meaning when n is 0. */
void geul_pace_evaluated(struct geul_pace *p, enum geul_draft_source source, int n, int right, double seconds);

#endif

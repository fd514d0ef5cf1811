/* pace.c: see pace.h. */
#include "models/pace.h"

#include <stddef.h>

enum {
    SINGLES_FIRST = 2,  /* evaluations of one token before the first draft, so that there is something to compare with;
                           the very first pays for page faults and planning */
    SINGLES_EVERY = 32, /* steps after which one token alone is measured again */
    WAIT_FIRST = 16,    /* steps before a source that does not pay is tried again, doubled with each failure */
    PROBE = 4,          /* tokens of such a trial */
};

/* Lengths that are considered, apart from the longest possible. Close ones differ too little, and each length costs a
 * graph to build and a time to measure. */
static const int lengths[] = {1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64};
enum { N_LENGTHS = sizeof lengths / sizeof *lengths };

static const double fade = 0.9; /* what a draft's counts weigh after the next */

/* The longest such wait. Before a draft model can be tried again it has to read all text since the last time. */
static const int longest_wait[GEUL_DRAFT_SOURCES] = {128, 128, 128, 1024};

/* Acceptance rates before anything is known, as if seen on two tokens. */
static const double first_rates[GEUL_DRAFT_SOURCES] = {0.4, 0.6, 0.8, 0.7};

/* Resets the acceptance rate of a source to what is assumed of it. */
static void forget(struct geul_pace_source *s, enum geul_draft_source source)
{
    s->tried = 2;
    s->right = 2 * first_rates[source];
}

void geul_pace_init(struct geul_pace *p)
{
    *p = (struct geul_pace){.n_single = 0};
    for (int i = 0; i < GEUL_DRAFT_SOURCES; i++) {
        p->sources[i].wait = WAIT_FIRST;
        forget(&p->sources[i], (enum geul_draft_source)i);
    }
}

/* Seconds of an evaluation of n tokens: measured, or interpolated between the nearest measured sizes. Above the largest
 * measured one it is extrapolated; where only one token was measured, optimistically (5 % for each further token), so
 * that larger ones are tried and measured. */
static double batch_seconds(const struct geul_pace *p, int n)
{
    int low = n, high = n; /* nearest measured sizes; low may be an unmeasured 1, high the end */
    while (low > 1 && p->seconds[low] <= 0)
        low--;
    while (high < GEUL_DRAFT_MAX + 1 && p->seconds[high] <= 0)
        high++;
    double at_low = p->seconds[low], at_high = p->seconds[high];
    if (low == n)
        return at_low;
    if (at_high > 0)
        return at_low + (n - low) * (at_high - at_low) / (high - low);
    double more = low > 1 ? (at_low - p->seconds[1]) / (low - 1) : 0.05 * at_low;
    return more > 0 ? at_low + (n - low) * more : at_low;
}

/* Tokens per second with drafts of k tokens: 1 + a + ... + a^k of them, see pace.h. */
static double speed(const struct geul_pace *p, const struct geul_pace_source *s, int k)
{
    double rate = s->right / s->tried, power = 1, tokens = 1;
    for (int i = 0; i < k; i++)
        tokens += power *= rate;
    double drafting = s->drafted > 0 ? s->drafting / s->drafted : s->drafting;
    double seconds = batch_seconds(p, k + 1) + k * drafting;
    return seconds > 0 ? tokens / seconds : 0;
}

/* The length of highest speed; 0 unless drafts gain 2 % at least. */
static int best_length(const struct geul_pace *p, const struct geul_pace_source *s, int most)
{
    int best = 0;
    double fastest = 1.02 * speed(p, s, 0);
    for (int i = 0; i <= N_LENGTHS; i++) {
        int k = i < N_LENGTHS ? lengths[i] : most;
        double v = k <= most ? speed(p, s, k) : 0;
        if (v > fastest) {
            fastest = v;
            best = k;
        }
    }
    return best;
}

bool geul_pace_pays(const struct geul_pace *p, enum geul_draft_source source, int most)
{
    return p->n_single < SINGLES_FIRST || best_length(p, &p->sources[source], most) > 0;
}

int geul_pace_choose(struct geul_pace *p, enum geul_draft_source source, int most)
{
    struct geul_pace_source *s = &p->sources[source];
    if (most < 1 || p->n_single < SINGLES_FIRST || p->since_single >= SINGLES_EVERY)
        return 0;
    int k = best_length(p, s, most);
    /* A source that does not pay is tried again after s->wait steps, and each such trial doubles the wait, up to
     * longest_wait: trials cost a small share. One that pays has the short wait again. */
    s->trial = k == 0 && ++s->waited >= s->wait;
    if (s->trial) {
        k = most < PROBE ? most : PROBE;
        s->wait = s->wait < longest_wait[source] ? 2 * s->wait : s->wait;
    } else if (k > 0) {
        s->wait = WAIT_FIRST;
    }
    if (k > 0)
        s->waited = 0;
    return k;
}

void geul_pace_drafted(struct geul_pace *p, enum geul_draft_source source, int n, double seconds)
{
    struct geul_pace_source *s = &p->sources[source];
    s->drafted = fade * s->drafted + n;
    s->drafting = fade * s->drafting + seconds;
}

void geul_pace_evaluated(struct geul_pace *p, enum geul_draft_source source, int n, int right, double seconds)
{
    /* Whatever disturbs a measurement makes it longer: shorter ones pull the average faster. */
    double *v = &p->seconds[1 + n];
    *v = *v <= 0 ? seconds : *v + (seconds - *v) * (seconds < *v ? 0.5 : 0.125);
    if (seconds < p->seconds[1]) /* one token takes no longer than several */
        p->seconds[1] = seconds;
    p->since_single++;
    if (n == 0) {
        p->n_single++;
        p->since_single = 0;
        return;
    }
    struct geul_pace_source *s = &p->sources[source];
    if (s->trial && right == n) /* the text may have come to a passage where guesses are right */
        forget(s, source);
    /* Guesses behind the first wrong one were not tried: they continued another text. */
    s->tried = fade * s->tried + (right < n ? right + 1 : n);
    s->right = fade * s->right + right;
}

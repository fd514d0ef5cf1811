/* watch.c: the trouble watch of geul_tools.h.
 *
 * A number is judged against its level, the mean and the width of those before it, and only then enters the level,
 * unless it is odd: a spike must not make the next one look normal. If LASTING odd numbers follow each other, the level
 * is wrong, not the numbers: it starts again from nothing, with its warm-up.
 *
 * A level follows a slow change, so a loss that climbs step by step is never odd. That is seen by a second measure: the
 * mean of the last losses against the lowest that it has been, from the first step on. How much of a difference is
 * noise is told by how far a loss falls from one step to the next, which a climb does not widen.
 */
#include "journal/watch.h"

#include "tokenizer/text_table.h"
#include "tokenizer/unicode.h"
#include "journal/log_text.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#define WARM_UP      20   /* numbers in a level before any is judged by it */
#define MEAN_RATE    0.05 /* weight of a new number in the mean: a window of about 20 steps */
#define WIDTH_RATE   0.02 /* and in the variance: about 50 */
#define FAR          8.0  /* deviations; noise with heavy tails stays below */
#define HELD         4.0  /* deviations at which the influence of a number on the level is clipped */
#define LASTING      10   /* odd steps in a row that are a new level */
#define LOSS_PART    0.3  /* a spike or drop is at least this part of the level, */
#define LOSS_NATS    0.5  /* and at least this much */
#define GRAD_TIMES   5.0  /* a gradient spike is at least this many times the level */

#define CLIMB_WINDOW 10  /* steps */
#define CLIMB_SEEN   10  /* losses before any climb is reported */
#define CLIMB_PART   0.3 /* a climb is at least this part of the lowest mean, */
#define CLIMB_NATS   1.0 /* at least this much, */
#define CLIMB_FAR    9.0 /* and this many deviations of the mean */

static const int64_t MOST_SEEN = (int64_t)1 << 48; /* more steps than any run has */

const char *geul_watch_name(enum geul_watch_verdict v)
{
    static const char *const names[] = {"fine",      "not finite",     "loss spike",
                                        "loss drop", "gradient spike", "loss climb"};
    return (unsigned)v < sizeof names / sizeof names[0] ? names[v] : "?";
}

struct geul_watch *geul_watch_new(struct geul_context *ctx)
{
    struct geul_watch *w = geul_alloc(ctx, 1, sizeof *w);
    if (w)
        w->ctx = ctx;
    return w;
}

void geul_watch_free(struct geul_watch *w)
{
    if (w)
        geul_free(w->ctx, w);
}

void geul_watch_get_state(const struct geul_watch *w, unsigned char state[GEUL_WATCH_STATE_BYTES])
{
    memcpy(state, &w->levels, GEUL_WATCH_STATE_BYTES);
}

/* The level, or a fresh one where it is none that a watch can have: the bytes come from files, and sqrt(variance),
 * ++seen and ++odd rely on it. */
static struct geul_watch_level checked(struct geul_watch_level l)
{
    bool possible = l.seen >= 0 && l.seen <= MOST_SEEN && l.odd >= 0 && l.odd < LASTING && isfinite(l.mean) &&
                    isfinite(l.variance) && l.variance >= 0;
    return possible ? l : (struct geul_watch_level){0};
}

void geul_watch_set_state(struct geul_watch *w, const unsigned char state[GEUL_WATCH_STATE_BYTES])
{
    memcpy(&w->levels, state, GEUL_WATCH_STATE_BYTES);
    w->levels.loss = checked(w->levels.loss);
    w->levels.log_grad = checked(w->levels.log_grad);
    const struct geul_watch_slope *s = &w->levels.slope;
    if (s->seen < 0 || s->seen > MOST_SEEN || !isfinite(s->mean) || !isfinite(s->lowest) || !isfinite(s->noise) ||
        s->noise < 0 || !isfinite(s->previous) || s->of < 0 || s->of > s->seen)
        w->levels.slope = (struct geul_watch_slope){0};
}

/* ------------------------------------------------------------------------------------- slope -- */

/* How far the mean has to be above its lowest, however small the noise. */
static double climb_floor(const struct geul_watch_slope *s)
{
    return fmax(CLIMB_NATS, CLIMB_PART * fabs(s->lowest));
}

/* How far for a climb. */
static double climb_least(const struct geul_watch_slope *s)
{
    /* An exponential mean of rate r over numbers of variance v has the variance v r / (2 - r); of the first n numbers
     * v / n. The very first loss may be all that the lowest mean is of. */
    double rate = 1.0 / CLIMB_WINDOW, part = rate / (2 - rate), of = fmax(1, (double)s->of);
    double deviation = sqrt(s->noise * (part + fmax(part, 1 / of)));
    return fmax(CLIMB_FAR * deviation, climb_floor(s));
}

/* Takes a loss in, and says whether the run has climbed with it; *lowest is then where from. */
static bool climb(struct geul_watch_slope *s, double loss, double *lowest)
{
    double first = 1.0 / (double)(s->seen + 1), rate = fmax(first, 1.0 / CLIMB_WINDOW);
    /* Of two numbers with the same mean, the square of how far the second is below the first, 0 above, has the mean of
     * their variance. */
    double fall = s->seen ? fmax(0, s->previous - loss) : 0;
    s->mean += rate * (loss - s->mean);
    if (s->seen)
        s->noise += fmax(1.0 / (double)s->seen, MEAN_RATE) * (fall * fall - s->noise);
    s->previous = loss;
    if (s->seen++ == 0 || s->mean < s->lowest) {
        s->lowest = s->mean;
        s->of = s->seen;
    }
    *lowest = s->lowest;
    if (s->seen <= CLIMB_SEEN || s->mean - s->lowest < climb_least(s))
        return false;
    s->lowest = s->mean; /* the next is measured from here */
    s->of = s->seen;
    return true;
}

bool geul_watch_is_calm(const struct geul_watch *w)
{
    /* Half of the floor, and the noise of a mean: less than what is a climb, so that what is saved on the way is not
     * trusted. */
    const struct geul_watch_slope *s = &w->levels.slope;
    double rate = 1.0 / CLIMB_WINDOW;
    return s->mean - s->lowest < climb_floor(s) / 2 + 2 * sqrt(s->noise * rate / (2 - rate));
}

/* ------------------------------------------------------------------------------------ levels -- */

/* Adds a number to its level. The first ones count equally (rate 1 / n), later ones by the fixed rates. A trend widens
 * the variance, as deviations are from a mean that lags; so a loss that falls fast at the start is not a drop. */
static void enter(struct geul_watch_level *l, double v)
{
    double deviation = v - l->mean, most = HELD * sqrt(l->variance), first = 1.0 / (double)(l->seen + 1);
    double rate = fmax(first, MEAN_RATE), width_rate = fmax(first, WIDTH_RATE);
    if (l->seen >= WARM_UP)
        deviation = fmax(-most, fmin(most, deviation));
    if (l->seen == 0) {
        l->mean = v;
    } else {
        l->mean += rate * deviation;
        l->variance += width_rate * (deviation * deviation - l->variance);
    }
    l->seen++;
    l->odd = 0;
}

/* Where v lies: 1 far above the level, -1 far below, 0 neither. least: what it has to differ by too, beyond
 * FAR deviations. */
static int judge(struct geul_watch_level *l, double v, double least)
{
    double deviation = v - l->mean;
    bool odd = l->seen >= WARM_UP && fabs(deviation) > FAR * sqrt(l->variance) && fabs(deviation) > least;
    return !odd ? 0 : deviation > 0 ? 1 : -1;
}

/* Counts an odd number; a lasting one begins a new level. */
static void count_odd(struct geul_watch_level *l)
{
    if (++l->odd >= LASTING)
        *l = (struct geul_watch_level){0};
}

static void explain(char *why, size_t size, const char *what, double v, double level, const char *more)
{
    char a[32], b[32];
    if (!why || !size)
        return;
    geul_log_format_double(a, sizeof a, v, 4);
    geul_log_format_double(b, sizeof b, level, 4);
    snprintf(why, size, "%s %s; it was about %s before%s", what, a, b, more);
}

/* Judges the gradient of a step whose loss is fine, by its logarithm: norms vary by factors. Small ones are always
 * fine. */
static enum geul_watch_verdict step_gradient(struct geul_watch_level *l, double grad_norm, char *why, size_t size)
{
    if (grad_norm <= 0) /* has no logarithm; nothing was computed */
        return GEUL_WATCH_FINE;
    double v = log(grad_norm);
    if (judge(l, v, log(GRAD_TIMES)) <= 0) {
        enter(l, v);
        return GEUL_WATCH_FINE;
    }
    explain(why, size, "gradient norm", grad_norm, exp(l->mean), "");
    count_odd(l);
    return GEUL_WATCH_GRADIENT_SPIKE;
}

enum geul_watch_verdict geul_watch_step(struct geul_watch *w, double loss, double grad_norm, char *why, size_t size)
{
    if (why && size)
        why[0] = '\0';
    if (!isfinite(loss) || !isfinite(grad_norm)) {
        char a[32], b[32];
        geul_log_format_double(a, sizeof a, loss, 4);
        geul_log_format_double(b, sizeof b, grad_norm, 4);
        if (why && size)
            snprintf(why, size, "loss %s, gradient norm %s", a, b);
        return GEUL_WATCH_NOT_FINITE;
    }
    /* the gradient is judged, and enters its level, only where the loss is fine */
    double mean = w->levels.loss.mean;
    int where = judge(&w->levels.loss, loss, fmax(LOSS_NATS, LOSS_PART * fabs(mean)));
    if (where == 0) {
        enter(&w->levels.loss, loss);
        if (climb(&w->levels.slope, loss, &mean)) {
            explain(why, size, "the loss has climbed: now", loss, mean, "");
            return GEUL_WATCH_LOSS_CLIMB;
        }
        return step_gradient(&w->levels.log_grad, grad_norm, why, size);
    }
    explain(why, size, "loss", loss, mean, where > 0 ? "" : ": does the data repeat, or show its answers?");
    count_odd(&w->levels.loss);
    return where > 0 ? GEUL_WATCH_LOSS_SPIKE : GEUL_WATCH_LOSS_DROP;
}

/* ------------------------------------------------------------------------------------- texts -- */

#define LOOKED_AT ((size_t)4096) /* bytes at the end of a text; finding loops takes time in the square of it */

/* Whether the text ends within a character that begins at p: samples are cut at tokens, which may be parts of one. */
static bool cut_off(const char *p, const char *end)
{
    unsigned char lead = (unsigned char)*p;
    ptrdiff_t needs = lead >= 0xF0 ? 4 : lead >= 0xE0 ? 3 : 2;
    if (lead < 0xC2 || lead > 0xF4 || end - p >= needs)
        return false;
    for (const char *q = p + 1; q < end; q++)
        if (((unsigned char)*q & 0xC0) != 0x80)
            return false;
    return true;
}

/* Broken UTF-8, or U+FFFD, which replaces it, anywhere but at the end. */
static bool is_broken(const char *text, const char *end)
{
    for (int i = 0; i < 3 && end - text > 3 && memcmp(end - 3, "\xEF\xBF\xBD", 3) == 0; i++)
        end -= 3; /* one per byte of a character that was cut off */
    for (const char *p = text; p < end;) {
        int32_t c;
        int n = geul_utf8_decode(p, end, &c);
        if (n == 0)
            return !cut_off(p, end);
        if (c == 0xFFFD)
            return true;
        p += n;
    }
    return false;
}

/* The next character that is not a space, and *p after it; -1 at the end. */
static int32_t next_visible(const char **p, const char *end)
{
    while (*p < end) {
        int32_t c;
        int n = geul_utf8_decode(*p, end, &c);
        if (n == 0)
            return -1;
        *p += n;
        if (!geul_is_space(c))
            return c;
    }
    return -1;
}

/* Whether one character makes up more than 60 % of at least 16. The majority is found by pairing each character off
 * with a different one (Boyer and Moore 1981), then counted. */
static bool is_mostly_one(const char *text, const char *end)
{
    int32_t candidate = -1, c;
    int64_t lead = 0, count = 0, all = 0;
    for (const char *p = text; (c = next_visible(&p, end)) >= 0;) {
        if (lead == 0)
            candidate = c;
        lead += c == candidate ? 1 : -1;
    }
    for (const char *p = text; (c = next_visible(&p, end)) >= 0; all++)
        count += c == candidate;
    return all >= 16 && count * 10 > all * 6;
}

/* Whether a third of the text or more is one piece repeated, about 4 times in a row (a long piece: 3 times); a quarter
 * of the last repetition may be missing. run + period is the length of what repeats with this period up to i. */
static bool has_loop(const char *text, size_t n)
{
    for (size_t period = 1; period <= n / 3; period++) {
        size_t needed = (period < 40 ? 4 * period : 3 * period) - period / 4, run = 0;
        needed = needed < 24 ? 24 : needed;
        needed = needed < n / 3 ? n / 3 : needed;
        for (size_t i = period; i < n; i++) {
            run = text[i] == text[i - period] ? run + 1 : 0;
            if (run + period >= needed)
                return true;
        }
    }
    return false;
}

/* Where the word at p ends. */
static const char *word_end(const char *p, const char *end)
{
    while (p < end && (unsigned char)*p > ' ')
        p++;
    return p;
}

/* Whether most groups of four words occurred before: loops that change a number or a name each time. */
static bool has_old_words(const char *text, const char *end)
{
    /* a word and what separates it from the next take two bytes at least, so these hold all words */
    uint32_t hashes[LOOKED_AT / 2 + 1], groups[LOOKED_AT / 2 + 1];
    size_t n = 0, old = 0, n_groups;
    for (const char *p = text; p < end;) {
        const char *stop = word_end(p, end);
        if (stop > p)
            hashes[n++] = geul_text_hash(p, (size_t)(stop - p));
        p = stop < end ? stop + 1 : stop;
    }
    n_groups = n < 4 ? 0 : n - 3;
    for (size_t i = 0; i < n_groups; i++) {
        bool found = false;
        groups[i] = geul_text_hash((const char *)&hashes[i], 4 * sizeof hashes[0]);
        for (size_t k = 0; k < i && !found; k++)
            found = groups[k] == groups[i];
        old += found;
    }
    return n_groups >= 24 && old * 2 > n_groups;
}

const char *geul_watch_text(const char *text, size_t length)
{
    const char *end = text + length, *p = text;
    if (length > LOOKED_AT) {
        text = end - LOOKED_AT;
        while (text < end && ((unsigned char)*text & 0xC0) == 0x80)
            text++;
    }
    if (is_broken(text, end))
        return "broken characters";
    p = text;
    if (next_visible(&p, end) < 0)
        return "empty";
    if (is_mostly_one(text, end))
        return "mostly one character";
    return has_loop(text, (size_t)(end - text)) || has_old_words(text, end) ? "repeats itself" : NULL;
}

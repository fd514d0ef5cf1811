/* watch.h: what goes wrong while a model trains, by name.
 *
 *     struct geul_watch w = {0};
 *     char why[GEUL_WATCH_WHY];
 *     if (geul_watch_step(&w, loss, grad_norm, why, sizeof why) == GEUL_WATCH_LOSS_SPIKE) ...
 *
 * The makers of Polyglot-Ko report sudden drops of the loss and broken generations among their troubles. A drop is no
 * error, but suspicious: text that comes twice, labels that can be seen.
 */
#ifndef GEUL_WATCH_H
#define GEUL_WATCH_H

#include "core/context.h"

enum geul_watch_verdict {
    GEUL_WATCH_FINE,
    GEUL_WATCH_NOT_FINITE,
    GEUL_WATCH_LOSS_SPIKE,
    GEUL_WATCH_LOSS_DROP,
    GEUL_WATCH_GRADIENT_SPIKE,
};

/* The recent level of a number: exponentially weighted mean and variance. */
struct geul_watch_level {
    double mean, variance;
    int64_t seen; /* numbers that entered */
    int64_t odd;  /* in a row that were judged too far up (or, for drops, down) */
};
/* Zero to begin. Plain data without pointers or padding: its bytes saved and restored give the same verdicts. */
struct geul_watch {
    struct geul_watch_level loss, log_grad;
};

#define GEUL_WATCH_WHY 160 /* bytes that hold any reason */

/* Judges a step by the steps before. why (may be NULL) gets one line that says more, "" when it is fine.
 * Nothing but NOT_FINITE is said in the first 20 steps. What was judged odd does not enter the levels, until it lasts:
 * after 10 odd steps in a row the level begins anew where the run is now. */
enum geul_watch_verdict geul_watch_step(struct geul_watch *w, double loss, double grad_norm, char *why, size_t size);
/* "loss spike"; never NULL. */
const char *geul_watch_name(enum geul_watch_verdict v);

/* What is wrong with a text that a model wrote: "empty", "broken characters", "mostly one character", "repeats itself".
 * NULL: it looks fine. Of long texts the last 4 KiB are looked at. A character cut off at the very end is fine. */
const char *geul_watch_text(const char *text, size_t length);

#endif

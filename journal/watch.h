/* watch.h: the state of the trouble watch (geul_tools.h). */
#ifndef GEUL_WATCH_H
#define GEUL_WATCH_H

#include "core/context.h"
#include "geul_tools.h"

/* The recent level of a number: exponentially weighted mean and variance. */
struct geul_watch_level {
    double mean, variance;
    int64_t seen; /* numbers that entered */
    int64_t odd;  /* in a row that were judged too far up (or, for drops, down) */
};
/* What a climb is seen by. */
struct geul_watch_slope {
    double mean;     /* of the loss, over about CLIMB_WINDOW steps */
    double lowest;   /* that the mean has been */
    double noise;    /* variance of a loss around the trend, from how far it falls in a step */
    double previous; /* loss */
    int64_t seen;    /* losses that entered */
    int64_t of;      /* how many of them the lowest mean is of */
};
/* Without pointers or padding: these bytes are the state that checkpoints carry. */
struct geul_watch_levels {
    struct geul_watch_level loss, log_grad;
    struct geul_watch_slope slope;
};
_Static_assert(sizeof(struct geul_watch_levels) == GEUL_WATCH_STATE_BYTES,
               "checkpoints of older runs hold this many bytes");

struct geul_watch {
    struct geul_context *ctx;
    struct geul_watch_levels levels;
};

#endif

/* log_chart.h: the curves of a training run as SVG, for report.html. */
#ifndef GEUL_LOG_CHART_H
#define GEUL_LOG_CHART_H

#include "journal/log_entry.h"

/* One chart: a number of every step over the steps. */
struct geul_log_chart {
    const char *title, *unit; /* "Loss", "nats per target" */
    const char *style;        /* CSS class, which gives the colour */
    const char *name;         /* of the number, for its legend: "training loss" */
    size_t offset;            /* of the float in struct geul_log_point */
    bool logarithmic, from_zero;
    bool smooth;      /* a faint line and a bold one that is smoothed */
    bool evaluations; /* points of the held-out loss too, the best marked */
    int width, height;
};

/* Smoothed values of a series: the mean of the steps around each, with weights that fall off exponentially on both
 * sides over about window steps, so that the curve does not lag. Values that are not finite and those of skipped steps
 * do not enter. out has room for 2 n floats; the first n are the result. */
void geul_log_smooth(const struct geul_log_history *h, size_t offset, double window, float *out);
/* The window for a run of n steps. */
double geul_log_smooth_window(size_t n);
/* The index of the lowest evaluation, SIZE_MAX when there is none that is a number. */
size_t geul_log_best(const struct geul_log_history *h);
/* The float of a point at offset. */
float geul_log_value(const struct geul_log_point *p, size_t offset);

/* Adds a <figure> with title, legend and drawing. History may be empty. */
void geul_log_chart_add(struct geul_log_text *t, const struct geul_log_chart *c, const struct geul_log_history *h);

/* At most 12 round numbers within [low, high] and the digits after the point that they need; returns how many.
 * logarithmic: powers of ten, or 1, 2, 5 times those when the range is short. */
int geul_log_ticks(double low, double high, bool logarithmic, int wanted, double ticks[12], int *decimals);

#endif

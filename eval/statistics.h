/* statistics.h: means, ratios and quantiles with their standard errors; geul_tools.h has what an estimate is. */
#ifndef GEUL_STATISTICS_H
#define GEUL_STATISTICS_H

#include "geul_tools.h"

/* Pairs (x, y) added one by one (Welford's sums, which lose nothing to cancellation). Zero it to start. */
struct geul_moments {
    double n, mean_x, mean_y;
    double xx, yy, xy; /* sums of products of distances from the means */
};
void geul_moments_add(struct geul_moments *m, double x, double y);
/* The mean of x. */
struct geul_estimate geul_moments_mean(const struct geul_moments *m);
/* Sum of x over sum of y (delta method). */
struct geul_estimate geul_moments_ratio(const struct geul_moments *m);
/* exp(e) and e * factor, errors to first order (delta method). */
struct geul_estimate geul_estimate_exp(struct geul_estimate e);
struct geul_estimate geul_estimate_scale(struct geul_estimate e, double factor);

/* The quantile 0 <= q <= 1 of n > 0 ascending values, between two of them by linear interpolation, as NumPy does. */
double geul_quantile(const double *ascending, size_t n, double q);

#endif

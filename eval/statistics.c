/* statistics.c: see statistics.h. */
#include "eval/statistics.h"

#include <math.h>

void geul_moments_add(struct geul_moments *m, double x, double y)
{
    m->n += 1;
    double dx = x - m->mean_x, dy = y - m->mean_y;
    m->mean_x += dx / m->n;
    m->mean_y += dy / m->n;
    m->xx += dx * (x - m->mean_x);
    m->yy += dy * (y - m->mean_y);
    m->xy += dx * (y - m->mean_y);
}

/* Standard error of a mean of n values with that sum of squared distances. */
static double mean_error(double squares, double n)
{
    return n < 2 ? NAN : sqrt(fmax(squares, 0) / (n * (n - 1)));
}

struct geul_estimate geul_moments_mean(const struct geul_moments *m)
{
    return (struct geul_estimate){m->n > 0 ? m->mean_x : NAN, mean_error(m->xx, m->n)};
}

struct geul_estimate geul_moments_ratio(const struct geul_moments *m)
{
    double r = m->mean_x / m->mean_y;
    /* the sum of squares of x - r y, whose mean is 0 by the choice of r */
    double squares = m->xx - 2 * r * m->xy + r * r * m->yy;
    return (struct geul_estimate){r, mean_error(squares, m->n) / m->mean_y};
}

struct geul_estimate geul_estimate_exp(struct geul_estimate e)
{
    return (struct geul_estimate){exp(e.value), exp(e.value) * e.error};
}

struct geul_estimate geul_estimate_scale(struct geul_estimate e, double factor)
{
    return (struct geul_estimate){e.value * factor, e.error * fabs(factor)};
}

double geul_quantile(const double *ascending, size_t n, double q)
{
    double at = q * (double)(n - 1);
    size_t below = (size_t)at, above = below + 1 < n ? below + 1 : below;
    double share = at - (double)below;
    return ascending[below] + share * (ascending[above] - ascending[below]);
}

/* log_chart.c: see log_chart.h. Coordinates are in units of the drawing; the page scales it. */
#include "journal/log_chart.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define LEFT    64
#define RIGHT   14
#define TOP     14
#define BOTTOM  44
#define BUCKETS 500 /* of a line through many points: the lowest and the highest of each are drawn */
#define BANDS   240 /* areas with a title that gives their values */
#define MARKS   200 /* events drawn, the newest */

/* A chart being drawn. */
struct drawing {
    struct geul_log_text *t;
    const struct geul_log_chart *c;
    const struct geul_log_history *h;
    const float *smooth;             /* per point, or NULL */
    double x_low, x_high, low, high; /* of what is shown; low and high are logarithms on a logarithmic axis */
};

float geul_log_value(const struct geul_log_point *p, size_t offset)
{
    float v;
    memcpy(&v, (const char *)p + offset, sizeof v);
    return v;
}

double geul_log_smooth_window(size_t n)
{
    return fmax(4, fmin(200, (double)n / 60));
}

void geul_log_smooth(const struct geul_log_history *h, size_t offset, double window, float *out)
{
    size_t n = h->n_points;
    double sum = 0, weight = 0, fade = 1 - 1 / window;
    /* Two passes of an exponential mean: out and weights get the sum and the weight of each step and those before it;
     * then those after it are added from the other end. A step that does not enter only fades the others. */
    float *weights = out + n;
    for (size_t i = 0; i < n; i++) {
        float v = geul_log_value(&h->points[i], offset);
        bool enters = isfinite(v) && !h->points[i].skipped;
        sum = sum * fade + (enters ? (double)v : 0);
        weight = weight * fade + enters;
        out[i] = (float)sum;
        weights[i] = (float)weight;
    }
    sum = weight = 0;
    for (size_t i = n; i-- > 0;) {
        float v = geul_log_value(&h->points[i], offset);
        bool enters = isfinite(v) && !h->points[i].skipped;
        double all = (double)weights[i] + weight;
        out[i] = all > 0 ? (float)(((double)out[i] + sum) / all) : NAN;
        sum = (sum + (enters ? (double)v : 0)) * fade;
        weight = (weight + enters) * fade;
    }
}

size_t geul_log_best(const struct geul_log_history *h)
{
    size_t best = SIZE_MAX;
    for (size_t i = 0; i < h->n_evaluations; i++)
        if (isfinite(h->evaluations[i].loss) &&
            (best == SIZE_MAX || h->evaluations[i].loss < h->evaluations[best].loss))
            best = i;
    return best;
}

/* ------------------------------------------------------------------------------------- ticks -- */

/* Ticks of a logarithmic axis; low and high are logarithms. Below 1.7 decades 1, 2 and 5 times powers of ten, above it
 * powers alone, at most about six. */
static int log_ticks(double low, double high, double ticks[12])
{
    static const double parts[] = {1, 2, 5};
    double first = floor(low), decades = high - low, every = fmax(1, ceil(decades / 6));
    int n = 0;
    if (decades < 1.7) {
        for (double e = first; e <= high && n < 12; e++)
            for (int i = 0; i < 3 && n < 12; i++) {
                double at = e + log10(parts[i]);
                if (at >= low && at <= high)
                    ticks[n++] = parts[i] * pow(10, e);
            }
        return n;
    }
    for (double e = first; e <= high && n < 12; e += every)
        if (e >= low)
            ticks[n++] = pow(10, e);
    return n;
}

int geul_log_ticks(double low, double high, bool logarithmic, int wanted, double ticks[12], int *decimals)
{
    *decimals = 0;
    if (logarithmic)
        return log_ticks(low, high, ticks);
    double rough = (high - low) / wanted, power = pow(10, floor(log10(rough)));
    if (!(power > 0) || !isfinite(power))
        return 0;
    /* the next of 1, 2, 5, 10 times a power of ten; 1e-9 keeps a tick that rounding puts just outside */
    double part = rough / power, step = power * (part <= 1 ? 1 : part <= 2 ? 2 : part <= 5 ? 5 : 10);
    int n = 0;
    for (double k = ceil(low / step - 1e-9); n < 12 && k * step <= high + step * 1e-9; k++)
        ticks[n++] = k * step;
    *decimals = (int)fmax(0, fmin(9, -floor(log10(step) + 1e-9)));
    return n;
}

/* A number of an axis: 0.0002 as 2e-4, 25000 as 25k, the rest with the digits the step needs. */
static void add_tick(struct geul_log_text *t, double v, double most, int decimals)
{
    if (v == 0) {
        geul_log_text_add(t, "0");
    } else if (most < 1e-2 || most >= 1e7) {
        int exponent = (int)floor(log10(fabs(v)) + 1e-9);
        geul_log_text_add_double(t, v / pow(10, exponent), 3);
        geul_log_text_add_format(t, "e%d", exponent);
    } else if (most >= 1e4) {
        geul_log_text_add_double(t, v / 1000, 6);
        geul_log_text_add(t, "k");
    } else if (decimals == 0) {
        geul_log_text_add_grouped(t, (int64_t)nearbyint(v));
    } else {
        geul_log_text_add_fixed(t, v, decimals);
    }
}

/* ------------------------------------------------------------------------------------- range -- */

static int compare_floats(const void *a, const void *b)
{
    float x, y;
    memcpy(&x, a, sizeof x);
    memcpy(&y, b, sizeof y);
    return (x > y) - (x < y);
}

/* The values that can be shown, sorted; long runs are thinned out. Returns how many, at most the capacity. */
static size_t collect(const struct drawing *d, float *values, size_t capacity)
{
    size_t n = 0, every = d->h->n_points / capacity + 1;
    for (size_t i = 0; i < d->h->n_points && n < capacity; i += every) {
        float v = geul_log_value(&d->h->points[i], d->c->offset);
        if (isfinite(v) && (!d->c->logarithmic || v > 0))
            values[n++] = v;
    }
    qsort(values, n, sizeof *values, compare_floats);
    return n;
}

/* The range of the vertical axis. The highest 1 % and the lowest 0.25 % of the values may lie outside, so that a spike
 * does not flatten the rest; the best held-out loss lies inside. */
static bool find_range(struct drawing *d)
{
    size_t capacity = 16384;
    float *values = geul_alloc(d->t->ctx, capacity, sizeof *values);
    if (!values)
        return false;
    size_t n = collect(d, values, capacity), off = n / 100;
    double low = n ? (double)values[off / 4] : 0, high = n ? (double)values[n - 1 - off] : 1;
    geul_free(d->t->ctx, values);
    size_t best = d->c->evaluations ? geul_log_best(d->h) : SIZE_MAX;
    if (best != SIZE_MAX) {
        double loss = fmax(-1e38, fmin(1e38, d->h->evaluations[best].loss));
        low = n ? fmin(low, loss) : loss;
        high = n ? fmax(high, loss) : loss;
    }
    if (d->c->logarithmic) {
        low = log10(fmax(low, 1e-38));
        high = log10(fmax(high, 1e-38));
    }
    if (d->c->from_zero && low > 0)
        low = 0;
    /* a flat line gets a range too: y_of() divides by it */
    double margin = high > low ? (high - low) * 0.06 : fmax(fabs(high) * 0.1, d->c->logarithmic ? 0.3 : 1e-6);
    d->high = high + margin;
    d->low = d->c->from_zero && low == 0 ? 0 : low - margin;
    return true;
}

/* The steps from the first to the last that has anything. */
static void find_steps(struct drawing *d)
{
    const struct geul_log_history *h = d->h;
    d->x_low = 0;
    d->x_high = 1;
    if (h->n_points) {
        d->x_low = (double)h->points[0].step;
        d->x_high = (double)h->points[h->n_points - 1].step;
    }
    if (h->n_evaluations && d->c->evaluations) {
        d->x_low = fmin(d->x_low, (double)h->evaluations[0].step);
        d->x_high = fmax(d->x_high, (double)h->evaluations[h->n_evaluations - 1].step);
    }
    if (d->x_high <= d->x_low)
        d->x_high = d->x_low + 1;
}

static double x_of(const struct drawing *d, double step)
{
    return LEFT + (step - d->x_low) / (d->x_high - d->x_low) * (d->c->width - LEFT - RIGHT);
}

/* Values far outside are moved close to the edge, where the clip still hides them. */
static double y_of(const struct drawing *d, double v)
{
    double at = d->c->logarithmic ? log10(fmax(v, 1e-300)) : v;
    double part = fmax(-2, fmin(3, (at - d->low) / (d->high - d->low)));
    return d->c->height - BOTTOM - part * (d->c->height - TOP - BOTTOM);
}

/* ----------------------------------------------------------------------------------- drawing -- */

/* name="v" */
static void add_attribute(struct geul_log_text *t, const char *name, double v)
{
    geul_log_text_add_format(t, " %s=\"", name);
    geul_log_text_add_fixed(t, v, 1);
    geul_log_text_add(t, "\"");
}

static void add_line(struct geul_log_text *t, const char *style, double x1, double y1, double x2, double y2)
{
    geul_log_text_add_format(t, "<line class=\"%s\"", style);
    add_attribute(t, "x1", x1);
    add_attribute(t, "y1", y1);
    add_attribute(t, "x2", x2);
    add_attribute(t, "y2", y2);
    geul_log_text_add(t, "/>");
}

static void begin_label(struct geul_log_text *t, const char *style, double x, double y)
{
    geul_log_text_add_format(t, "<text class=\"%s\"", style);
    add_attribute(t, "x", x);
    add_attribute(t, "y", y);
    geul_log_text_add(t, ">");
}

/* Grid, numbers and names of both axes. */
static void add_axes(struct drawing *d)
{
    const struct geul_log_chart *c = d->c;
    struct geul_log_text *t = d->t;
    double ticks[12], right = c->width - RIGHT, bottom = c->height - BOTTOM;
    int decimals, n = geul_log_ticks(d->low, d->high, c->logarithmic, c->height > 300 ? 6 : 4, ticks, &decimals);
    double most = n ? fmax(fabs(ticks[0]), fabs(ticks[n - 1])) : 0;
    for (int i = 0; i < n; i++) {
        double y = y_of(d, ticks[i]), size = c->logarithmic ? ticks[i] : most;
        int places = c->logarithmic ? (int)fmax(0, ceil(-log10(ticks[i]) - 1e-9)) : decimals;
        add_line(t, "grid", LEFT, y, right, y);
        begin_label(t, "tick y", LEFT - 8, y + 4);
        add_tick(t, ticks[i], size, places);
        geul_log_text_add(t, "</text>");
    }
    n = geul_log_ticks(d->x_low, d->x_high, false, c->width > 600 ? 10 : 4, ticks, &decimals);
    for (int i = 0; i < n; i++) {
        double x = x_of(d, ticks[i]);
        if (decimals)
            continue; /* steps are whole numbers */
        add_line(t, "grid", x, TOP, x, bottom);
        begin_label(t, x > right - 24 ? "tick y" : "tick x", x > right - 24 ? right + 4 : x, bottom + 18);
        geul_log_text_add_grouped(t, fabs(ticks[i]) < 9e18 ? (int64_t)ticks[i] : 0);
        geul_log_text_add(t, "</text>");
    }
    add_line(t, "axis", LEFT, bottom, right, bottom);
    begin_label(t, "name x", (LEFT + right) / 2, c->height - 6);
    geul_log_text_add(t, "step</text>");
    geul_log_text_add_format(t, "<text class=\"name x\" transform=\"translate(14,%d) rotate(-90)\">%s</text>",
                             (TOP + c->height - BOTTOM) / 2, c->unit);
}

/* Adds a point to a path. One that cannot be shown lifts the pen: the next begins a new piece. */
static void add_point(struct drawing *d, size_t i, float v, bool *pen)
{
    if (!isfinite(v) || (d->c->logarithmic && v <= 0)) {
        *pen = false;
        return;
    }
    geul_log_text_add(d->t, *pen ? "L" : "M");
    geul_log_text_add_fixed(d->t, x_of(d, (double)d->h->points[i].step), 1);
    geul_log_text_add(d->t, " ");
    geul_log_text_add_fixed(d->t, y_of(d, (double)v), 1);
    *pen = true;
}

/* The value of point i of the line that is drawn. */
static float line_value(const struct drawing *d, const float *values, size_t i)
{
    return values ? values[i] : geul_log_value(&d->h->points[i], d->c->offset);
}

/* A line through all points; in long runs through the lowest and the highest of each bucket, in the order of their
 * steps, so that no spike is lost. values: NULL for those of the points. */
static void add_path(struct drawing *d, const char *style, const float *values)
{
    size_t n = d->h->n_points, per = n > 2 * BUCKETS ? (n + BUCKETS - 1) / BUCKETS : 1;
    bool pen = false;
    geul_log_text_add_format(d->t, "<path class=\"%s\" d=\"", style);
    for (size_t begin = 0; begin < n; begin += per) {
        size_t end = n - begin < per ? n : begin + per, low = begin, high = begin;
        for (size_t i = begin + 1; i < end; i++) { /* comparisons with NaN are false: a number replaces it */
            float v = line_value(d, values, i);
            if (!(line_value(d, values, low) <= v) && isfinite(v))
                low = i;
            if (!(line_value(d, values, high) >= v) && isfinite(v))
                high = i;
        }
        size_t first = low < high ? low : high, second = low < high ? high : low;
        add_point(d, first, line_value(d, values, first), &pen);
        if (second != first)
            add_point(d, second, line_value(d, values, second), &pen);
    }
    geul_log_text_add(d->t, "\"/>");
}

/* Dashed lines at events. */
static void add_marks(struct drawing *d)
{
    const struct geul_log_notes *events = &d->h->events;
    struct geul_log_text *t = d->t;
    for (size_t i = events->n > MARKS ? events->n - MARKS : 0; i < events->n; i++) {
        const struct geul_log_note *e = &events->items[i];
        if ((double)e->step < d->x_low || (double)e->step > d->x_high)
            continue;
        double x = x_of(d, (double)e->step);
        geul_log_text_add(t, "<g class=\"mark\">");
        add_line(t, "mark", x, TOP, x, d->c->height - BOTTOM);
        geul_log_text_add(t, "<path class=\"flag\" d=\"M");
        geul_log_text_add_fixed(t, x, 1);
        geul_log_text_add_format(t, " %dl5 -8h-10z\"/><title>step %lld: ", TOP + 4, (long long)e->step);
        geul_log_text_add_html(t, e->label);
        geul_log_text_add(t, "</title></g>");
    }
}

/* Points of the held-out loss, joined by a line; the best is larger. */
static void add_evaluations(struct drawing *d)
{
    const struct geul_log_history *h = d->h;
    struct geul_log_text *t = d->t;
    size_t best = geul_log_best(h), every = h->n_evaluations / 400 + 1;
    bool pen = false;
    geul_log_text_add(t, "<path class=\"eval\" d=\"");
    for (size_t i = 0; i < h->n_evaluations; i += every) {
        double v = h->evaluations[i].loss;
        if (!isfinite(v))
            continue;
        geul_log_text_add(t, pen ? "L" : "M");
        geul_log_text_add_fixed(t, x_of(d, (double)h->evaluations[i].step), 1);
        geul_log_text_add(t, " ");
        geul_log_text_add_fixed(t, y_of(d, v), 1);
        pen = true;
    }
    geul_log_text_add(t, "\"/>");
    for (size_t i = 0; i < h->n_evaluations; i++) {
        double v = h->evaluations[i].loss;
        if (!isfinite(v) || (i % every && i != best))
            continue;
        geul_log_text_add_format(t, "<circle class=\"%s\" r=\"%d\"", i == best ? "best" : "eval", i == best ? 6 : 3);
        add_attribute(t, "cx", x_of(d, (double)h->evaluations[i].step));
        add_attribute(t, "cy", y_of(d, v));
        geul_log_text_add(t, "/>");
    }
}

/* The newest evaluation at or before the step; NULL when there is none. *from, 0 at first, advances with
 * the steps, which must ascend. */
static const struct geul_log_evaluation *evaluation_at(const struct geul_log_history *h, int64_t step, size_t *from)
{
    while (*from < h->n_evaluations && h->evaluations[*from].step <= step)
        ++*from;
    return *from ? &h->evaluations[*from - 1] : NULL;
}

/* The title of a band, which shows when the pointer is on it. */
static void add_band_title(struct drawing *d, size_t i, const struct geul_log_evaluation *evaluation)
{
    const struct geul_log_point *p = &d->h->points[i];
    struct geul_log_text *t = d->t;
    geul_log_text_add_format(t, "<title>step %lld\n%s ", (long long)p->step, d->c->name);
    geul_log_text_add_double(t, (double)geul_log_value(p, d->c->offset), 4);
    if (d->smooth) {
        geul_log_text_add(t, "\nsmoothed ");
        geul_log_text_add_double(t, (double)d->smooth[i], 4);
    }
    if (evaluation) {
        geul_log_text_add(t, "\nheld-out ");
        geul_log_text_add_double(t, evaluation->loss, 4);
        geul_log_text_add_format(t, " at step %lld\nperplexity ", (long long)evaluation->step);
        geul_log_text_add_double(t, exp(evaluation->loss), 4);
    }
    geul_log_text_add(t, p->skipped ? "\nskipped</title>" : "</title>");
}

/* Vertical bands that light up under the pointer and show the values of the last step in them. Each reaches to the next
 * one's first step, so that there is no gap between them. */
static void add_bands(struct drawing *d)
{
    size_t n = d->h->n_points, per = (n + BANDS - 1) / BANDS, seen = 0;
    for (size_t begin = 0; begin < n; begin += per) {
        size_t i = n - begin < per ? n - 1 : begin + per - 1;
        double from = x_of(d, (double)d->h->points[begin].step), to = x_of(d, (double)d->h->points[i].step);
        double next = i + 1 < n ? x_of(d, (double)d->h->points[i + 1].step) : to;
        to = fmax(next, from + 1);
        geul_log_text_add(d->t, "<rect class=\"band\"");
        add_attribute(d->t, "x", from);
        add_attribute(d->t, "y", TOP);
        add_attribute(d->t, "width", to - from);
        add_attribute(d->t, "height", d->c->height - TOP - BOTTOM);
        geul_log_text_add(d->t, ">");
        add_band_title(d, i, d->c->evaluations ? evaluation_at(d->h, d->h->points[i].step, &seen) : NULL);
        geul_log_text_add(d->t, "</rect>");
    }
}

/* Short strokes along the bottom where steps were skipped, at most one per unit of the drawing. */
static void add_skipped(struct drawing *d)
{
    double last = -1e9, bottom = d->c->height - BOTTOM;
    for (size_t i = 0; i < d->h->n_points; i++) {
        double x = x_of(d, (double)d->h->points[i].step);
        if (!d->h->points[i].skipped || x - last < 1)
            continue;
        add_line(d->t, "skipped", x, bottom - 7, x, bottom);
        last = x;
    }
}

static void add_legend(struct drawing *d)
{
    struct geul_log_text *t = d->t;
    const struct geul_log_history *h = d->h;
    bool skipped = false;
    for (size_t i = 0; i < h->n_points && !skipped; i++)
        skipped = h->points[i].skipped;
    geul_log_text_add_format(t, "<figcaption><b>%s</b><span class=\"legend\">", d->c->title);
    if (d->smooth) {
        geul_log_text_add_format(t, "<i class=\"%s faint\"></i>%s<i class=\"%s\"></i>smoothed", d->c->style,
                                 d->c->width > 600 ? d->c->name : "each step", d->c->style);
    }
    if (d->c->evaluations && h->n_evaluations)
        geul_log_text_add(t, "<i class=\"eval dot\"></i>held-out loss<i class=\"best dot\"></i>best");
    if (h->events.n && d->c->width > 600)
        geul_log_text_add(t, "<i class=\"mark\"></i>event");
    if (skipped && d->c->width > 600)
        geul_log_text_add(t, "<i class=\"skipped\"></i>skipped step");
    geul_log_text_add(t, "</span></figcaption>");
}

static void add_drawing(struct drawing *d)
{
    const struct geul_log_chart *c = d->c;
    struct geul_log_text *t = d->t;
    geul_log_text_add_format(t, "<svg viewBox=\"0 0 %d %d\" class=\"%s\" role=\"img\" aria-label=\"%s\">", c->width,
                             c->height, c->style, c->title);
    geul_log_text_add_format(t, "<clipPath id=\"%s\"><rect x=\"%d\" y=\"%d\" width=\"%d\" height=\"%d\"/></clipPath>",
                             c->style, LEFT, TOP, c->width - LEFT - RIGHT, c->height - TOP - BOTTOM);
    add_axes(d);
    geul_log_text_add_format(t, "<g clip-path=\"url(#%s)\">", c->style);
    add_path(d, d->smooth ? "line faint" : "line", NULL);
    if (d->smooth)
        add_path(d, "line", d->smooth);
    if (c->evaluations)
        add_evaluations(d);
    add_skipped(d);
    geul_log_text_add(t, "</g>");
    add_bands(d);
    add_marks(d);
    geul_log_text_add(t, "</svg>");
}

void geul_log_chart_add(struct geul_log_text *t, const struct geul_log_chart *c, const struct geul_log_history *h)
{
    struct drawing d = {.t = t, .c = c, .h = h};
    float *smooth = c->smooth ? geul_alloc(t->ctx, h->n_points, 2 * sizeof *smooth) : NULL;
    if ((c->smooth && !smooth) || !find_range(&d)) {
        t->failed = true;
        geul_free(t->ctx, smooth);
        return;
    }
    if (smooth)
        geul_log_smooth(h, c->offset, geul_log_smooth_window(h->n_points), smooth);
    d.smooth = smooth;
    find_steps(&d);
    geul_log_text_add_format(t, "<figure class=\"%s\">", c->width > 600 ? "wide" : "narrow");
    add_legend(&d);
    add_drawing(&d);
    geul_log_text_add(t, "</figure>\n");
    geul_free(t->ctx, smooth);
}

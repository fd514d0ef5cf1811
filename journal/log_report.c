/* log_report.c: report.html, one self-contained page. */
#include "journal/log_chart.h"
#include "journal/log_entry.h"
#include "journal/watch.h"

#include <math.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#define LISTED_EVENTS  300 /* the newest */
#define LISTED_SAMPLES 100 /* the newest */
#define RECENT         20  /* steps that the speed is averaged over */

static const char style[] =
    ":root{color-scheme:light dark;--page:#f6f7f9;--card:#fff;--ink:#1c2430;--soft:#667085;--grid:#e8ebf0;"
    "--edge:#dfe3ea;--loss:#2563eb;--eval:#d97706;--best:#059669;--rate:#7c3aed;--grad:#0d9488;--speed:#be185d;"
    "--mark:#dc2626}\n"
    "@media(prefers-color-scheme:dark){:root{--page:#12161c;--card:#1a2028;--ink:#e4e8ee;--soft:#98a2b3;--grid:#28303b;"
    "--edge:#2b3440;--loss:#6ea0ff;--eval:#f5a742;--best:#34d399;--rate:#b194ff;--grad:#2dd4bf;--speed:#f472b6;"
    "--mark:#f87171}}\n"
    "*{box-sizing:border-box}body{margin:0;background:var(--page);color:var(--ink);"
    "font:15px/1.5 system-ui,-apple-system,'Segoe UI','Noto Sans','Noto Sans KR','Noto Sans CJK KR',sans-serif}\n"
    "main{max-width:1180px;margin:0 auto;padding:28px 20px 60px}h1{font-size:24px;margin:0 0 "
    "4px;overflow-wrap:anywhere}"
    "h2{font-size:17px;margin:32px 0 10px}p.state{margin:0 0 14px;color:var(--soft)}\n"
    ".bar{height:6px;border-radius:3px;background:var(--edge);overflow:hidden;margin-bottom:18px}"
    ".bar div{height:100%;background:var(--loss)}\n"
    ".tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(150px,1fr));gap:12px;margin-bottom:16px}"
    ".tile,figure,.card{background:var(--card);border:1px solid var(--edge);border-radius:10px}"
    ".tile{padding:10px 14px}.tile span{display:block;color:var(--soft);font-size:13px}"
    ".tile b{display:block;font-size:20px;font-weight:600;font-variant-numeric:tabular-nums}\n"
    ".charts{display:grid;grid-template-columns:repeat(3,1fr);gap:16px}figure{margin:0;padding:12px 12px "
    "6px;min-width:0}"
    "figure.wide{grid-column:1/-1}@media(max-width:900px){.charts{grid-template-columns:1fr}"
    "figure.wide svg text{font-size:22px}}\n"
    "figcaption{display:flex;flex-wrap:wrap;justify-content:space-between;gap:4px 16px;padding:0 4px 4px}"
    ".legend{color:var(--soft);font-size:13px}.narrow .legend{font-size:12px}.narrow .legend "
    "i:first-child{margin-left:0}.legend i{display:inline-block;width:18px;height:3px;border-radius:2px;"
    "margin:0 6px 0 12px;vertical-align:middle;background:var(--c)}.legend i.faint{opacity:.4}"
    ".legend i.dot{width:9px;height:9px;border-radius:50%}.legend i.mark{height:12px;width:0;background:none;"
    "border-left:2px dashed var(--mark)}.legend i.skipped{height:9px;width:2px;background:var(--mark)}\n"
    ".loss{--c:var(--loss)}.eval{--c:var(--eval)}.best{--c:var(--best)}.rate{--c:var(--rate)}.grad{--c:var(--grad)}"
    ".speed{--c:var(--speed)}\n"
    "svg{display:block;width:100%;height:auto}svg text{font-size:12px;fill:var(--soft);"
    "font-variant-numeric:tabular-nums}text.y{text-anchor:end}text.x{text-anchor:middle}"
    ".grid{stroke:var(--grid)}.axis{stroke:var(--soft)}path.line{fill:none;stroke:var(--c);stroke-width:2;"
    "stroke-linejoin:round}path.faint{opacity:.32;stroke-width:1}path.eval{fill:none;stroke:var(--eval);"
    "stroke-width:1.5;stroke-dasharray:1 4;stroke-linecap:round}circle.eval{fill:var(--eval)}"
    "circle.best{fill:var(--best);stroke:var(--card);stroke-width:2}line.mark{stroke:var(--mark);"
    "stroke-dasharray:4 4;opacity:.55}path.flag{fill:var(--mark)}line.skipped{stroke:var(--mark);stroke-width:1.5}"
    ".band{fill:transparent}.band:hover{fill:var(--soft);fill-opacity:.25}\n"
    ".card{padding:4px 14px;overflow-x:auto}table{border-collapse:collapse;width:100%}"
    "td,th{padding:7px 10px;text-align:left;vertical-align:top;border-top:1px solid var(--edge)}"
    "tr:first-child>*{border-top:0}th{font-weight:500;color:var(--soft);white-space:nowrap}"
    "td.n{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap;width:1%}"
    "td.text,th.text{white-space:pre-wrap;overflow-wrap:anywhere}td.kind{white-space:nowrap}"
    ".settings table{width:auto}.settings td{overflow-wrap:anywhere}"
    ".badge{display:inline-block;padding:0 8px;border-radius:9px;font-size:12px;color:var(--mark);"
    "border:1px solid var(--mark);margin-left:6px;white-space:nowrap}"
    "footer{margin-top:28px;color:var(--soft);font-size:13px}#tip{position:fixed;pointer-events:none;display:none;"
    "background:var(--ink);color:var(--page);padding:6px 10px;border-radius:6px;font-size:13px;white-space:pre;"
    "z-index:9;font-variant-numeric:tabular-nums}\n";

/* Shows titles of the drawings at once, where the browser would wait. Without scripts the browser shows them. */
static const char script[] =
    "const tip=document.createElement('div');tip.id='tip';document.body.append(tip);\n"
    "for(const e of document.querySelectorAll('svg title')){const p=e.parentNode;p.dataset.tip=e.textContent;"
    "e.remove()}\n"
    "document.addEventListener('pointermove',v=>{const p=v.target.closest&&v.target.closest('[data-tip]');"
    "tip.style.display=p?'block':'none';if(!p)return;tip.textContent=p.dataset.tip;"
    "const w=tip.offsetWidth;tip.style.left=(v.clientX+14+w>innerWidth?v.clientX-14-w:v.clientX+14)+'px';"
    "tip.style.top=(v.clientY+14)+'px'})\n";

/* ----------------------------------------------------------------------------------- summary -- */

/* 4000 as "1 h 06 min". */
static void add_duration(struct geul_log_text *t, double seconds)
{
    if (!(seconds >= 0 && seconds < 1e12))
        geul_log_text_add(t, "?");
    else if (seconds < 60)
        geul_log_text_add_format(t, "%d s", (int)seconds);
    else if (seconds < 3600)
        geul_log_text_add_format(t, "%d min %02d s", (int)seconds / 60, (int)seconds % 60);
    else if (seconds < 86400)
        geul_log_text_add_format(t, "%d h %02d min", (int)seconds / 3600, (int)seconds / 60 % 60);
    else
        geul_log_text_add_format(t, "%lld d %02d h", (long long)(seconds / 86400), (int)fmod(seconds / 3600, 24));
}

/* 12345678 as "12.3 M". */
static void add_amount(struct geul_log_text *t, double n)
{
    static const struct {
        double unit;
        const char *name;
    } units[] = {{1e12, " T"}, {1e9, " G"}, {1e6, " M"}};
    for (int i = 0; i < 3; i++)
        if (n >= units[i].unit) {
            geul_log_text_add_double(t, n / units[i].unit, 3);
            geul_log_text_add(t, units[i].name);
            return;
        }
    geul_log_text_add_grouped(t, (int64_t)n);
}

static void begin_tile(struct geul_log_text *t, const char *name)
{
    geul_log_text_add_format(t, "<div class=\"tile\"><span>%s</span><b>", name);
}

/* Between the number of a tile and the small print below it. */
static void small_print(struct geul_log_text *t)
{
    geul_log_text_add(t, "</b><span>");
}

static void end_tile(struct geul_log_text *t)
{
    geul_log_text_add(t, "</span></div>\n");
}

/* Mean of the speeds of the newest steps; 0 when unknown. */
static double recent_speed(const struct geul_log_history *h)
{
    double sum = 0, n = 0;
    for (size_t i = h->n_points > RECENT ? h->n_points - RECENT : 0; i < h->n_points; i++)
        if (isfinite(h->points[i].tokens_per_second)) {
            sum += (double)h->points[i].tokens_per_second;
            n++;
        }
    return n > 0 ? sum / n : 0;
}

static int64_t last_step(const struct geul_log_history *h)
{
    return h->n_points ? h->points[h->n_points - 1].step : 0;
}

static double part_done(const struct geul_log_history *h, const struct geul_journal_options *o)
{
    double part = o->total_steps > 0 ? (double)last_step(h) / (double)o->total_steps : 0;
    return fmax(0, fmin(1, part));
}

static void add_loss_tiles(struct geul_log_text *t, const struct geul_log_history *h)
{
    size_t best = geul_log_best(h), n = h->n_points;
    float *smooth = geul_alloc(t->ctx, n, 2 * sizeof *smooth);
    t->failed |= !smooth;
    if (smooth && n) {
        geul_log_smooth(h, offsetof(struct geul_log_point, loss), geul_log_smooth_window(n), smooth);
        begin_tile(t, "Training loss");
        geul_log_text_add_fixed(t, (double)smooth[n - 1], 3);
        small_print(t);
        geul_log_text_add(t, "smoothed");
        end_tile(t);
    }
    geul_free(t->ctx, smooth);
    if (best == SIZE_MAX)
        return;
    begin_tile(t, "Best held-out loss");
    geul_log_text_add_fixed(t, h->evaluations[best].loss, 3);
    small_print(t);
    geul_log_text_add(t, "step ");
    geul_log_text_add_grouped(t, h->evaluations[best].step);
    geul_log_text_add(t, ", ppl ");
    geul_log_text_add_double(t, exp(h->evaluations[best].loss), 3);
    end_tile(t);
}

/* The line below the title: how far the run is. */
static void add_state(struct geul_log_text *t, const struct geul_log_history *h, const struct geul_journal_options *o)
{
    double part = part_done(h, o);
    geul_log_text_add(t, "<p class=\"state\">Step ");
    geul_log_text_add_grouped(t, last_step(h));
    if (o->total_steps > 0) {
        geul_log_text_add(t, " of ");
        geul_log_text_add_grouped(t, o->total_steps);
        geul_log_text_add_format(t, " (%d %%)", (int)(part * 100));
    }
    if (part > 0 && part < 1) {
        geul_log_text_add(t, ", about ");
        add_duration(t, h->seconds / part * (1 - part));
        geul_log_text_add(t, " left");
    }
    geul_log_text_add(t, "</p>\n");
    if (o->total_steps > 0) {
        geul_log_text_add(t, "<div class=\"bar\"><div style=\"width:");
        geul_log_text_add_fixed(t, part * 100, 1);
        geul_log_text_add(t, "%\"></div></div>\n");
    }
}

static void add_tiles(struct geul_log_text *t, const struct geul_log_history *h)
{
    int64_t skipped = 0;
    for (size_t i = 0; i < h->n_points; i++)
        skipped += h->points[i].skipped;
    geul_log_text_add(t, "<div class=\"tiles\">\n");
    add_loss_tiles(t, h);
    begin_tile(t, "Tokens");
    add_amount(t, (double)h->tokens);
    small_print(t);
    geul_log_text_add_fixed(t, h->epoch, 2);
    geul_log_text_add(t, " epochs");
    end_tile(t);
    begin_tile(t, "Time");
    add_duration(t, h->seconds);
    small_print(t);
    geul_log_text_add(t, "resumes included");
    end_tile(t);
    begin_tile(t, "Tokens per second");
    geul_log_text_add_grouped(t, (int64_t)fmax(0, fmin(1e15, recent_speed(h))));
    small_print(t);
    geul_log_text_add_format(t, "mean of %d steps", RECENT);
    end_tile(t);
    begin_tile(t, "Skipped steps");
    geul_log_text_add_grouped(t, skipped);
    small_print(t);
    geul_log_text_add(t, "of ");
    geul_log_text_add_grouped(t, (int64_t)h->n_points);
    end_tile(t);
    geul_log_text_add(t, "</div>\n");
}

/* ------------------------------------------------------------------------------------ tables -- */

static void add_settings(struct geul_log_text *t, const struct geul_journal_options *o)
{
    if (o->n_settings < 1)
        return;
    geul_log_text_add(t, "<h2>Settings</h2><div class=\"card settings\"><table>\n");
    for (int i = 0; i < o->n_settings; i++) {
        geul_log_text_add(t, "<tr><th>");
        geul_log_text_add_html(t, o->settings[i].name);
        geul_log_text_add(t, "</th><td>");
        geul_log_text_add_html(t, o->settings[i].value);
        geul_log_text_add(t, "</td></tr>\n");
    }
    geul_log_text_add(t, "</table></div>\n");
}

static void begin_row(struct geul_log_text *t, int64_t step)
{
    geul_log_text_add(t, "<tr><td class=\"n\">");
    geul_log_text_add_grouped(t, step);
    geul_log_text_add(t, "</td>");
}

static void add_event(struct geul_log_text *t, const struct geul_log_note *e)
{
    begin_row(t, e->step);
    geul_log_text_add(t, "<td class=\"kind\">");
    geul_log_text_add_html(t, e->label);
    geul_log_text_add(t, "</td><td class=\"text\">");
    geul_log_text_add_html(t, e->text);
    geul_log_text_add(t, "</td></tr>\n");
}

static void add_skipped(struct geul_log_text *t, const struct geul_log_point *p)
{
    begin_row(t, p->step);
    geul_log_text_add(t, "<td class=\"kind\">skipped step</td><td class=\"text\">loss ");
    geul_log_text_add_double(t, (double)p->loss, 4);
    geul_log_text_add(t, ", gradient norm ");
    geul_log_text_add_double(t, (double)p->grad_norm, 4);
    geul_log_text_add(t, "</td></tr>\n");
}

/* Events and skipped steps, newest first: i events and k points are still to be merged. A skipped step whose event was
 * just listed is left out. */
static void add_events(struct geul_log_text *t, const struct geul_log_history *h)
{
    int listed = 0;
    size_t i = h->events.n, k = h->n_points;
    int64_t told = INT64_MIN; /* the step of the event above */
    while (listed < LISTED_EVENTS) {
        while (k && !h->points[k - 1].skipped)
            k--;
        if (!i && !k)
            break;
        if (!listed++)
            geul_log_text_add(t, "<h2>Events</h2><div class=\"card\"><table>"
                                 "<tr><th>step</th><th>what</th><th></th></tr>\n");
        if (i && (!k || h->events.items[i - 1].step >= h->points[k - 1].step)) {
            told = h->events.items[--i].step;
            add_event(t, &h->events.items[i]);
        } else if (h->points[--k].step != told) {
            add_skipped(t, &h->points[k]);
        }
    }
    if (listed)
        geul_log_text_add(t, "</table></div>\n");
}

/* Whether an earlier sample has this one's prompt. */
static bool is_told(const struct geul_log_notes *samples, size_t i, size_t from)
{
    for (size_t k = from; k < i; k++)
        if (strcmp(samples->items[k].label, samples->items[i].label) == 0)
            return true;
    return false;
}

/* What the model wrote for the prompt of sample i, newest first; what looks broken gets a badge that says how. */
static void add_continuations(struct geul_log_text *t, const struct geul_log_notes *samples, size_t i)
{
    for (size_t k = samples->n; k-- > i;) {
        const struct geul_log_note *s = &samples->items[k];
        if (strcmp(s->label, samples->items[i].label) != 0)
            continue;
        const char *wrong = geul_watch_text(s->text, strlen(s->text));
        begin_row(t, s->step);
        geul_log_text_add(t, "<td class=\"text\">");
        geul_log_text_add_html(t, s->text);
        if (wrong)
            geul_log_text_add_format(t, "<span class=\"badge\">%s</span>", wrong);
        geul_log_text_add(t, "</td></tr>\n");
    }
}

/* The newest samples: each prompt once, and under it what the model made of it as it learned. */
static void add_samples(struct geul_log_text *t, const struct geul_log_history *h)
{
    const struct geul_log_notes *samples = &h->samples;
    if (!samples->n)
        return;
    geul_log_text_add(t, "<h2>What the model writes</h2><div class=\"card\"><table>"
                         "<tr><th>step</th><th>prompt, and how it continued</th></tr>\n");
    size_t from = samples->n > LISTED_SAMPLES ? samples->n - LISTED_SAMPLES : 0;
    for (size_t i = from; i < samples->n; i++) {
        if (is_told(samples, i, from))
            continue;
        geul_log_text_add(t, "<tr><td></td><th class=\"text\">");
        geul_log_text_add_html(t, samples->items[i].label);
        geul_log_text_add(t, "</th></tr>\n");
        add_continuations(t, samples, i);
    }
    geul_log_text_add(t, "</table></div>\n");
}

/* -------------------------------------------------------------------------------------- page -- */

static void add_charts(struct geul_log_text *t, const struct geul_log_history *h)
{
    static const struct geul_log_chart charts[] = {
        {"Loss", "nats per target", "loss", "training loss", offsetof(struct geul_log_point, loss), .smooth = true,
         .evaluations = true, .width = 1120, .height = 420},
        {"Learning rate", "learning rate", "rate", "learning rate", offsetof(struct geul_log_point, learning_rate),
         .from_zero = true, .width = 370, .height = 240},
        {"Gradient norm", "before clipping, log scale", "grad", "gradient norm",
         offsetof(struct geul_log_point, grad_norm), .logarithmic = true, .smooth = true, .width = 370, .height = 240},
        {"Speed", "tokens per second", "speed", "tokens per second", offsetof(struct geul_log_point, tokens_per_second),
         .from_zero = true, .smooth = true, .width = 370, .height = 240},
    };
    geul_log_text_add(t, "<div class=\"charts\">\n");
    for (size_t i = 0; i < sizeof charts / sizeof charts[0]; i++)
        geul_log_chart_add(t, &charts[i], h);
    geul_log_text_add(t, "</div>\n");
}

void geul_log_report_page(struct geul_log_text *t, const struct geul_log_history *h,
                          const struct geul_journal_options *o)
{
    geul_log_text_add(t, "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">"
                         "<meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\n<title>");
    geul_log_text_add_html(t, o->title);
    geul_log_text_add(t, "</title>\n<style>\n");
    geul_log_text_add(t, style);
    geul_log_text_add(t, "</style></head><body><main>\n<h1>");
    geul_log_text_add_html(t, o->title);
    geul_log_text_add(t, "</h1>\n");
    add_state(t, h, o);
    add_tiles(t, h);
    add_charts(t, h);
    add_events(t, h);
    add_samples(t, h);
    add_settings(t, o);
    geul_log_text_add(t, "<footer>Written by geul. Reload the page to see newer steps.</footer>\n</main>\n"
                         "<script>\n");
    geul_log_text_add(t, script);
    geul_log_text_add(t, "</script></body></html>\n");
}

/* Writes the page as a whole, from the history, in one atomic step. */
static enum geul_status flush(struct geul_log_output *o)
{
    geul_log_text_clear(&o->text);
    geul_log_report_page(&o->text, o->history, o->options);
    if (o->text.failed)
        return GEUL_ERROR_MEMORY;
    char *path = geul_os_join_path(o->ctx, o->dir, o->format->name);
    struct geul_outfile *f = path ? geul_outfile_open(o->ctx, path) : NULL;
    geul_free(o->ctx, path);
    if (!f)
        return geul_error_status(o->ctx);
    enum geul_status status = geul_outfile_write(f, o->text.bytes.data, o->text.bytes.length);
    geul_log_text_clear(&o->text);
    if (status == GEUL_OK)
        return geul_outfile_commit(f);
    geul_outfile_abandon(f);
    return status;
}

const struct geul_log_format geul_log_report = {
    .name = "report.html", .wanted = offsetof(struct geul_journal_options, report), .flush = flush};

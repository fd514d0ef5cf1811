/* progress.c: the bar, and numbers in plain units. */
#include "command/progress.h"

#include "command/terminal.h"

#include "core/bytes.h"
#include "core/os.h"

#include <stdio.h>
#include <unistd.h>

enum { BAR = 24 };

static struct {
    const char *label, *unit;
    double start, shown; /* seconds; shown: when the bar was last drawn, 0 before */
    bool visible;
} bar;

void geul_progress_start(const char *label, const char *unit)
{
    geul_progress_hide();
    bar.label = label;
    bar.unit = unit;
    bar.start = geul_os_seconds();
    bar.shown = 0;
}

const char *geul_progress_time(double seconds, char *text, size_t size)
{
    if (seconds < 60)
        snprintf(text, size, "%.0f s", seconds);
    else if (seconds < 3600)
        snprintf(text, size, "%d min %d s", (int)(seconds / 60), (int)seconds % 60);
    else
        snprintf(text, size, "%d h %d min", (int)(seconds / 3600), (int)(seconds / 60) % 60);
    return text;
}

/* Draws the line: label, bar, share, rate, time left. */
static void draw(uint64_t done, uint64_t total, double seconds)
{
    char cells[BAR + 1], amount[32], rate[48], left[32] = "?", line[256];
    double share = total ? (double)done / (double)total : 0, speed = (double)done / seconds;
    for (int i = 0; i < BAR; i++)
        cells[i] = (double)i < share * BAR ? '#' : '.';
    cells[BAR] = '\0';
    if (bar.unit) {
        snprintf(rate, sizeof rate, "%.*f %s/s", speed < 100 ? 1 : 0, speed, bar.unit);
    } else {
        geul_bytes_text((uint64_t)speed, amount, sizeof amount);
        snprintf(rate, sizeof rate, "%s/s", amount);
    }
    if (total && done)
        geul_progress_time((double)(total - done) / speed, left, sizeof left);
    int n = snprintf(line, sizeof line, "%s [%s] %3.0f %%  %s  %s left", bar.label, cells, 100 * share, rate, left);
    int width =
        geul_terminal_width(STDERR_FILENO) - 1; /* a full line would wrap, and \r would no longer reach its start */
    fprintf(stderr, "\r%.*s\033[K", n < width ? n : width, line);
    fflush(stderr);
}

void geul_progress_update(uint64_t done, uint64_t total)
{
    double now = geul_os_seconds();
    /* Short work shows no bar, and long work redraws it 10 times a second at most. */
    if (!bar.label || now - bar.start < 1 || now - bar.shown < 0.1 || !geul_terminal_on_stderr())
        return;
    draw(done > total && total ? total : done, total, now - bar.start);
    bar.shown = now;
    bar.visible = true;
}

bool geul_progress_callback(void *user, uint64_t done, uint64_t total)
{
    (void)user;
    geul_progress_update(done, total);
    return !geul_interrupted();
}

void geul_progress_hide(void)
{
    if (bar.visible) {
        fprintf(stderr, "\r\033[K");
        fflush(stderr);
    }
    bar.visible = false;
}

/* line_view.c: see line_view.h.
 *
 * A frame is laid out into rows as the terminal would wrap it. Only rows from the first that changed on are drawn, all
 * in one write. Within a row the terminal's cursor is trusted only as far as terminals agree: behind a cluster whose
 * columns they count differently it is put into its column by carriage return and a move to the right.
 *
 * From row to row the text wraps by itself at the right margin, so that the terminal knows which rows belong together:
 * copying gives back one line, and terminals that lay lines out anew when their window changes take the question along.
 * A text that ends at the right margin gets an empty row, in which the cursor stands.
 *
 * The escape sequences are those of the VT100 (ED, EL, CUU, CUD, CUF), which every terminal knows but dumb ones. On
 * those one row shows the part of the text around the cursor. */
#include "command/line/line_view.h"

#include "command/line/cluster.h"

#include "core/os.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

enum { TAB = 8 };

/* One row of the terminal: text[begin..end), which takes columns of it, the prompt included. */
struct row {
    size_t begin, end;
    int columns;
    bool wraps; /* the text continues in the next row without a newline */
};

struct layout {
    struct row *rows;
    int n, size;
    int cursor_row, cursor_column;
};

struct bytes {
    char *data;
    size_t n, size;
    bool failed;
};

struct geul_line_view {
    int width, height;
    bool dumb, reflows;
    struct layout now;
    struct bytes out;
    /* What is on the terminal: */
    char *drawn; /* the text, with its prompts */
    size_t drawn_length, drawn_size, drawn_cursor;
    const char *prompt, *more_prompt; /* NULL: nothing */
    int top, n_rows;                  /* the first row of the layout that is visible, and how many rows there are */
    int row;                          /* of the cursor, from the first visible one */
    int dumb_columns;                 /* of the row of a dumb terminal */
};

/* ---- output -------------------------------------------------------------------------------- */

static void put(struct bytes *b, const char *data, size_t n)
{
    if (b->size - b->n < n) {
        size_t size = 2 * (b->n + n) + 256;
        char *grown = realloc(b->data, size);
        if (!grown) {
            b->failed = true;
            return;
        }
        b->data = grown;
        b->size = size;
    }
    memcpy(b->data + b->n, data, n);
    b->n += n;
}

static void put_text(struct bytes *b, const char *text)
{
    put(b, text, strlen(text));
}

/* A move by n rows or columns, in the direction of the letter; none for n < 1. */
static void put_move(struct bytes *b, int n, char direction)
{
    char text[32];
    if (n > 0)
        put(b, text, (size_t)snprintf(text, sizeof text, "\033[%d%c", n, direction));
}

static void put_column(struct bytes *b, int column)
{
    put_text(b, "\r");
    put_move(b, column, 'C');
}

void geul_line_view_write(const char *bytes, size_t n)
{
    while (n > 0) {
        ssize_t done = write(STDOUT_FILENO, bytes, n);
        if (done < 0 && errno != EINTR && errno != EAGAIN)
            return; /* the terminal is gone; reading from it will say so */
        bytes += done > 0 ? done : 0;
        n -= done > 0 ? (size_t)done : 0;
    }
}

static void flush(struct bytes *b)
{
    geul_line_view_write(b->data, b->n);
    b->n = 0;
    b->failed = false;
}

/* ---- layout -------------------------------------------------------------------------------- */

/* Whether the text begins with one of U+0080 to U+009F, which terminals obey as they do ESC. */
static bool is_high_control(const char *text, size_t n)
{
    return n > 1 && (unsigned char)text[0] == 0xc2 && (unsigned char)text[1] < 0xa0;
}

/* The cluster at offset at with the columns it takes at column x. Control characters are shown as ^X. */
static struct geul_cluster cluster_at(const struct geul_line_frame *f, size_t at, int x, int width)
{
    struct geul_cluster cluster = geul_cluster_at(f->text, f->length, at);
    unsigned char c = (unsigned char)f->text[at];
    if (c == '\t') {
        cluster.columns = TAB - x % TAB;
        if (x < width && cluster.columns > width - x)
            cluster.columns = width - x;
    } else if (c < 0x20 || c == 0x7f) {
        cluster.columns = 2;
    } else if (is_high_control(f->text + at, cluster.end - at)) {
        cluster.columns = 1;
    }
    return cluster;
}

/* Appends a row; NULL when memory is short. */
static struct row *add_row(struct layout *l, size_t begin, int columns)
{
    if (l->n == l->size) {
        int size = 2 * l->size + 16;
        struct row *grown = realloc(l->rows, (size_t)size * sizeof *grown);
        if (!grown)
            return NULL;
        l->rows = grown;
        l->size = size;
    }
    l->rows[l->n] = (struct row){begin, begin, columns, false};
    return &l->rows[l->n++];
}

/* Lays the frame out in rows of so many columns. false when memory is short. */
static bool lay_out(struct layout *l, const struct geul_line_frame *f, int width)
{
    l->n = 0;
    struct row *row = add_row(l, 0, (int)strlen(f->prompt));
    for (size_t at = 0; row && at < f->length;) {
        struct geul_cluster cluster = cluster_at(f, at, row->columns, width);
        bool newline = f->text[at] == '\n';
        if (!newline && row->columns + cluster.columns > width) {
            row->wraps = true;
            row = add_row(l, at, 0);
            continue; /* a tab is narrower or wider there */
        }
        if (at <= f->cursor && f->cursor < cluster.end) {
            l->cursor_row = l->n - 1;
            l->cursor_column = row->columns;
        }
        at = cluster.end;
        if (newline) {
            row = add_row(l, at, (int)strlen(f->more_prompt));
        } else {
            row->end = at;
            row->columns += cluster.columns;
        }
    }
    if (row && row->columns == width) {
        row->wraps = true;
        row = add_row(l, f->length, 0);
    }
    if (row && f->cursor >= f->length) {
        l->cursor_row = l->n - 1;
        l->cursor_column = row->columns;
    }
    /* Before a newline at the right margin the cursor stands on the last column: beyond it there is none. */
    if (l->cursor_column >= width)
        l->cursor_column = width - 1;
    return row != NULL;
}

/* The prompt that a row begins with. */
static const char *prompt_of(const struct layout *l, const struct geul_line_frame *f, int row)
{
    return row == 0 ? f->prompt : l->rows[row - 1].wraps ? "" : f->more_prompt;
}

/* ---- drawing ------------------------------------------------------------------------------- */

/* Appends one cluster that takes so many columns as the terminal is to show it. */
static void put_cluster(struct bytes *b, const char *text, size_t n, int columns)
{
    unsigned char c = (unsigned char)*text;
    char caret[2] = {'^', (char)(c ^ 0x40)};
    if (c == '\t')
        for (int i = 0; i < columns; i++)
            put(b, " ", 1);
    else if (c < 0x20 || c == 0x7f)
        put(b, caret, 2);
    else if (is_high_control(text, n))
        put(b, "?", 1);
    else
        put(b, text, n);
}

/* Draws one row from its first column on and clears what is right of it. */
static void draw_row(struct geul_line_view *v, const struct geul_line_frame *f, int index)
{
    const struct row *row = &v->now.rows[index];
    const char *prompt = prompt_of(&v->now, f, index);
    int x = (int)strlen(prompt);
    put_text(&v->out, prompt);
    for (size_t at = row->begin; at < row->end;) {
        struct geul_cluster cluster = cluster_at(f, at, x, v->width);
        put_cluster(&v->out, f->text + at, cluster.end - at, cluster.columns);
        x += cluster.columns;
        at = cluster.end;
        if (cluster.unsure && x < v->width)
            put_column(&v->out, x);
    }
    if (x < v->width)
        put_text(&v->out, "\033[K");
}

/* Draws rows first..last, with the cursor anywhere in row first; leaves it in row last. */
static void draw_rows(struct geul_line_view *v, const struct geul_line_frame *f, int first, int last)
{
    put_text(&v->out, "\r");
    for (int i = first; i <= last; i++) {
        const struct row *row = &v->now.rows[i];
        if (i > first && !row[-1].wraps)
            put_text(&v->out, "\r\n");
        else if (i > first && row->begin == row->end)
            put_text(&v->out, " \r"); /* makes the terminal wrap */
        draw_row(v, f, i);
    }
    if (v->now.rows[last].columns < v->width) /* at the margin it would take the last character away */
        put_text(&v->out, "\033[J");
}

/* Remembers what is on the terminal. Without memory for it the next frame is drawn as a whole. */
static void keep_drawn(struct geul_line_view *v, const struct geul_line_frame *f)
{
    v->drawn_length = 0;
    if (v->drawn_size < f->length) {
        char *grown = realloc(v->drawn, 2 * f->length);
        if (!grown)
            return;
        v->drawn = grown;
        v->drawn_size = 2 * f->length;
    }
    if (f->length > 0)
        memcpy(v->drawn, f->text, f->length);
    v->drawn_length = f->length;
    v->drawn_cursor = f->cursor;
    v->prompt = f->prompt;
    v->more_prompt = f->more_prompt;
}

/* The first row that is not on the terminal as it should be; the number of rows when all are. */
static int first_change(const struct geul_line_view *v, const struct geul_line_frame *f)
{
    size_t same = 0;
    if (v->prompt != f->prompt || v->more_prompt != f->more_prompt)
        return 0;
    while (same < f->length && same < v->drawn_length && f->text[same] == v->drawn[same])
        same++;
    if (same == f->length && same == v->drawn_length)
        return v->now.n;
    int first = 0; /* where a row ends depends on the cluster behind it, and that on one code point more */
    while (first + 1 < v->now.n && v->now.rows[first + 1].end < same)
        first++;
    return first;
}

/* The first visible row when so many rows have room. */
static int choose_top(const struct geul_line_view *v, int room)
{
    int top = v->top, n = v->now.n, cursor = v->now.cursor_row;
    if (n <= room)
        return 0;
    if (cursor < top)
        top = cursor;
    if (cursor >= top + room)
        top = cursor - room + 1;
    return top > n - room ? n - room : top;
}

/* Shows the frame on a terminal of so many rows. */
static void show(struct geul_line_view *v, const struct geul_line_frame *f, int room)
{
    if (!lay_out(&v->now, f, v->width))
        return;
    int top = choose_top(v, room), last = v->now.n - top > room ? top + room - 1 : v->now.n - 1;
    int first = first_change(v, f), at = v->row + v->top;
    if (top != v->top || v->n_rows > room || v->now.n > room) {
        at = v->row + top; /* rows counted from the first visible one, whichever that was */
        first = top;
    }
    if (first <= last) {
        put_move(&v->out, at - first, 'A');
        put_move(&v->out, first - at, 'B');
        draw_rows(v, f, first, last);
        at = last;
    }
    put_move(&v->out, at - v->now.cursor_row, 'A');
    put_move(&v->out, v->now.cursor_row - at, 'B');
    put_column(&v->out, v->now.cursor_column);
    v->top = top;
    v->n_rows = v->now.n;
    v->row = v->now.cursor_row - top;
    keep_drawn(v, f);
    flush(&v->out);
}

/* ---- dumb terminals ------------------------------------------------------------------------ */

/* Appends what lies in columns begin..end of the text as one long row, up to offset stop. Returns the columns. */
static int put_slice(struct bytes *b, const struct geul_line_frame *f, int begin, int end, size_t stop)
{
    int x = 0, columns = 0;
    for (size_t at = 0; at < stop;) {
        struct geul_cluster cluster = cluster_at(f, at, x, x + TAB);
        if (x >= begin && x + cluster.columns <= end) {
            put_cluster(b, f->text + at, cluster.end - at, cluster.columns);
            columns += cluster.columns;
        }
        x += cluster.columns;
        at = cluster.end;
    }
    return columns;
}

/* Shows the part of the text around the cursor. The last column stays free, because it may wrap. */
static void show_dumb(struct geul_line_view *v, const struct geul_line_frame *f)
{
    int prompt = (int)strlen(f->prompt), room = v->width - 1 - prompt, x = 0;
    for (size_t at = 0; at < f->cursor;) {
        struct geul_cluster cluster = cluster_at(f, at, x, x + TAB);
        x += cluster.columns;
        at = cluster.end;
    }
    int half = room / 2 > 0 ? room / 2 : 1, begin = x < room ? 0 : (x / half - 1) * half;
    put_text(&v->out, "\r");
    put_text(&v->out, f->prompt);
    int columns = prompt + put_slice(&v->out, f, begin, begin + room, f->length);
    for (int i = columns; i < v->dumb_columns; i++)
        put_text(&v->out, " ");
    v->dumb_columns = columns;
    put_text(&v->out, "\r");
    put_text(&v->out, f->prompt);
    put_slice(&v->out, f, begin, begin + room, f->cursor);
    flush(&v->out);
}

/* ---- the view ------------------------------------------------------------------------------ */

static void take_size(struct geul_line_view *v)
{
    struct winsize size;
    bool known = ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0;
    v->width = known && size.ws_col > 0 ? size.ws_col : 80;
    v->height = known && size.ws_row > 0 ? size.ws_row : 24;
    if (v->width < GEUL_CLUSTER_COLUMNS)
        v->width = GEUL_CLUSTER_COLUMNS;
}

struct geul_line_view *geul_line_view_new(void)
{
    struct geul_line_view *v = calloc(1, sizeof *v);
    if (!v)
        return NULL;
    const char *term = geul_os_env("TERM");
    v->dumb = !term || !*term || strcmp(term, "dumb") == 0;
    /* xterm and GNU screen cut rows when their window becomes narrower; the others lay them out anew. */
    v->reflows = geul_os_env("TMUX") || (!geul_os_env("XTERM_VERSION") && !geul_os_env("STY"));
    geul_line_view_begin(v);
    return v;
}

void geul_line_view_free(struct geul_line_view *v)
{
    if (!v)
        return;
    free(v->now.rows);
    free(v->out.data);
    free(v->drawn);
    free(v);
}

bool geul_line_view_is_dumb(const struct geul_line_view *v)
{
    return v->dumb;
}

int geul_line_view_width(const struct geul_line_view *v)
{
    return v->width;
}

void geul_line_view_begin(struct geul_line_view *v)
{
    take_size(v);
    v->prompt = v->more_prompt = NULL;
    v->drawn_length = v->drawn_cursor = 0;
    v->top = v->row = v->n_rows = v->dumb_columns = 0;
}

void geul_line_view_show(struct geul_line_view *v, const struct geul_line_frame *f)
{
    if (v->dumb)
        show_dumb(v, f);
    else
        show(v, f, v->height);
}

bool geul_line_view_finish(struct geul_line_view *v, const struct geul_line_frame *f)
{
    struct geul_line_frame end = *f;
    end.cursor = f->length;
    if (v->dumb) {
        show_dumb(v, &end);
        return false;
    }
    if (v->n_rows > v->height) { /* the rows that were not visible go into the terminal's memory */
        put_move(&v->out, v->row, 'A');
        v->row = v->top = v->n_rows = 0;
        v->prompt = NULL;
    }
    show(v, &end, INT_MAX);
    return v->now.n > 1 && v->now.rows[v->now.n - 2].wraps && v->now.cursor_column == 0;
}

void geul_line_view_resize(struct geul_line_view *v)
{
    int old_rows = v->n_rows, old_height = v->height;
    take_size(v);
    if (v->dumb || !v->prompt)
        return;
    struct geul_line_frame drawn = {v->prompt, v->more_prompt, v->drawn, v->drawn_length, v->drawn_cursor};
    if (!lay_out(&v->now, &drawn, v->width))
        return;
    if (old_rows > old_height || v->now.n > v->height) {
        geul_line_view_clear(v);
        return;
    }
    if (v->reflows)
        v->row = v->now.cursor_row;
    /* Everything is drawn over and cleared behind its end, but nothing cleared before: at the top of the screen tmux
     * would keep what is cleared in its history. */
    v->n_rows = v->top = 0;
    v->prompt = NULL;
}

void geul_line_view_clear(struct geul_line_view *v)
{
    if (!v->dumb)
        geul_line_view_write("\033[H\033[2J", 7);
    geul_line_view_begin(v);
}

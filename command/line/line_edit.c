/* line_edit.c: see line_edit.h. The keys are those of Emacs, as in every shell. The text is UTF-8 with its newlines in
 * it; the cursor is an offset between two clusters. */
#include "command/line/line_edit.h"

#include "command/line/cluster.h"
#include "command/line/line_history.h"
#include "command/line/line_keys.h"
#include "command/line/line_view.h"
#include "command/terminal.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

/* A text that grows, with a NUL behind it once data is not NULL. */
struct text {
    char *data;
    size_t n, size;
};

enum state { EDITING, ACCEPTED, INTERRUPTED, CLOSED };

struct geul_line_editor {
    struct geul_line_options options;
    struct geul_line_view *view;
    struct geul_line_keys *keys;
    struct geul_line_history *history;
    struct text text, killed, own; /* own: the new text, while one of the history is shown */
    size_t cursor;
    int place; /* in the history; its count: the new text */
    enum state state;
    struct text search;    /* what Ctrl-R looks for */
    struct text search_as; /* how that is shown */
    bool searching, search_failed;
};

/* ---- texts --------------------------------------------------------------------------------- */

/* Puts n bytes in place of old ones at an offset. false when memory is short. */
static bool replace(struct text *t, size_t at, size_t old, const char *bytes, size_t n)
{
    size_t need = t->n - old + n + 1;
    if (need > t->size) {
        char *grown = realloc(t->data, 2 * need);
        if (!grown)
            return false;
        t->data = grown;
        t->size = 2 * need;
    }
    memmove(t->data + at + n, t->data + at + old, t->n - at - old);
    if (n > 0)
        memcpy(t->data + at, bytes, n);
    t->n = need - 1;
    t->data[t->n] = '\0';
    return true;
}

static bool set(struct text *t, const char *bytes, size_t n)
{
    return replace(t, 0, t->n, bytes, n);
}

static void insert(struct geul_line_editor *e, const char *bytes, size_t n)
{
    if (replace(&e->text, e->cursor, 0, bytes, n))
        e->cursor += n;
}

/* Takes text[begin..end) away; the cursor is then at begin. */
static void cut(struct geul_line_editor *e, size_t begin, size_t end)
{
    replace(&e->text, begin, end - begin, NULL, 0);
    e->cursor = begin;
}

/* The same, for Ctrl-Y to bring back. */
static void kill(struct geul_line_editor *e, size_t begin, size_t end)
{
    if (begin == end)
        return;
    set(&e->killed, e->text.data + begin, end - begin);
    cut(e, begin, end);
}

static size_t line_begin(const struct geul_line_editor *e, size_t at)
{
    while (at > 0 && e->text.data[at - 1] != '\n')
        at--;
    return at;
}

static size_t line_end(const struct geul_line_editor *e, size_t at)
{
    while (at < e->text.n && e->text.data[at] != '\n')
        at++;
    return at;
}

static size_t before(const struct geul_line_editor *e, size_t at)
{
    return at > 0 ? geul_cluster_before(e->text.data, at) : 0;
}

static size_t after(const struct geul_line_editor *e, size_t at)
{
    return at < e->text.n ? geul_cluster_at(e->text.data, e->text.n, at).end : at;
}

/* Whether the cluster at offset at belongs to a word: letters, their marks, digits. */
static bool in_word(const struct geul_line_editor *e, size_t at)
{
    size_t end;
    utf8proc_category_t c = utf8proc_category(geul_cluster_decode(e->text.data, e->text.n, at, &end));
    return c >= UTF8PROC_CATEGORY_LU && c <= UTF8PROC_CATEGORY_NO;
}

static size_t word_before(const struct geul_line_editor *e)
{
    size_t at = e->cursor;
    while (at > 0 && !in_word(e, before(e, at)))
        at = before(e, at);
    while (at > 0 && in_word(e, before(e, at)))
        at = before(e, at);
    return at;
}

static size_t word_after(const struct geul_line_editor *e)
{
    size_t at = e->cursor;
    while (at < e->text.n && !in_word(e, at))
        at = after(e, at);
    while (at < e->text.n && in_word(e, at))
        at = after(e, at);
    return at;
}

/* ---- the view ------------------------------------------------------------------------------ */

static struct geul_line_frame frame(const struct geul_line_editor *e)
{
    return (struct geul_line_frame){e->options.prompt, e->options.more_prompt, e->text.data ? e->text.data : "",
                                    e->text.n, e->cursor};
}

static void show(struct geul_line_editor *e)
{
    struct geul_line_frame f = frame(e);
    geul_line_view_show(e->view, &f);
}

/* Shows the text to its end and leaves the cursor at the beginning of a row below it. */
static void leave_text(struct geul_line_editor *e)
{
    struct geul_line_frame f = frame(e);
    if (!geul_line_view_finish(e->view, &f))
        geul_line_view_write("\n", 1);
}

static void bell(void)
{
    geul_line_view_write("\a", 1);
}

/* ---- commands ------------------------------------------------------------------------------ */

static void do_left(struct geul_line_editor *e)
{
    e->cursor = before(e, e->cursor);
}

static void do_right(struct geul_line_editor *e)
{
    e->cursor = after(e, e->cursor);
}

static void do_word_left(struct geul_line_editor *e)
{
    e->cursor = word_before(e);
}

static void do_word_right(struct geul_line_editor *e)
{
    e->cursor = word_after(e);
}

static void do_home(struct geul_line_editor *e)
{
    e->cursor = line_begin(e, e->cursor);
}

static void do_end(struct geul_line_editor *e)
{
    e->cursor = line_end(e, e->cursor);
}

static void do_backspace(struct geul_line_editor *e)
{
    cut(e, before(e, e->cursor), e->cursor);
}

static void do_delete(struct geul_line_editor *e)
{
    cut(e, e->cursor, after(e, e->cursor));
}

static void do_delete_or_close(struct geul_line_editor *e)
{
    if (e->text.n == 0)
        e->state = CLOSED;
    else
        do_delete(e);
}

static void do_kill_to_end(struct geul_line_editor *e)
{
    size_t end = line_end(e, e->cursor);
    kill(e, e->cursor, end == e->cursor ? after(e, end) : end); /* at the end of a line the newline */
}

static void do_kill_to_begin(struct geul_line_editor *e)
{
    size_t begin = line_begin(e, e->cursor);
    kill(e, begin == e->cursor ? before(e, begin) : begin, e->cursor);
}

static void do_kill_word_before(struct geul_line_editor *e)
{
    kill(e, word_before(e), e->cursor);
}

static void do_kill_word_after(struct geul_line_editor *e)
{
    kill(e, e->cursor, word_after(e));
}

/* Ctrl-W: back to white space. */
static void do_kill_space_word(struct geul_line_editor *e)
{
    size_t at = e->cursor;
    while (at > 0 && strchr(" \t\n", e->text.data[at - 1]))
        at--;
    while (at > 0 && !strchr(" \t\n", e->text.data[at - 1]))
        at--;
    kill(e, at, e->cursor);
}

static void do_yank(struct geul_line_editor *e)
{
    if (e->killed.n > 0)
        insert(e, e->killed.data, e->killed.n);
}

/* Ctrl-T: exchanges the clusters around the cursor, at the end of a line the two before it. */
static void do_exchange(struct geul_line_editor *e)
{
    size_t middle = e->cursor == line_end(e, e->cursor) ? before(e, e->cursor) : e->cursor;
    size_t begin = before(e, middle), end = after(e, middle);
    if (middle <= line_begin(e, e->cursor) || middle == end)
        return;
    struct text second = {NULL, 0, 0};
    if (set(&second, e->text.data + middle, end - middle)) {
        memmove(e->text.data + begin + second.n, e->text.data + begin, middle - begin);
        memcpy(e->text.data + begin, second.data, second.n);
        e->cursor = end;
    }
    free(second.data);
}

static void do_clear(struct geul_line_editor *e)
{
    geul_line_view_clear(e->view);
}

static void do_newline(struct geul_line_editor *e)
{
    insert(e, "\n", 1);
}

static void do_enter(struct geul_line_editor *e)
{
    size_t at = e->cursor, n = 0;
    if (e->text.n > 0 && e->options.goes_on && e->options.goes_on(e->text.data, e->cursor, &at, &n)) {
        if (replace(&e->text, at, n, "\n", 1))
            e->cursor = at + 1;
        return;
    }
    e->state = ACCEPTED;
}

/* ---- history ------------------------------------------------------------------------------- */

/* Shows the text at a place in the history, with the cursor at its end. */
static void go_to(struct geul_line_editor *e, int place)
{
    int count = geul_line_history_count(e->history);
    if (place < 0 || place > count) {
        bell();
        return;
    }
    if (e->place == count)
        set(&e->own, e->text.n ? e->text.data : "", e->text.n);
    const char *text = place < count ? geul_line_history_get(e->history, place) : e->own.data ? e->own.data : "";
    set(&e->text, text, strlen(text));
    e->cursor = e->text.n;
    e->place = place;
}

static void do_previous(struct geul_line_editor *e)
{
    go_to(e, e->place - 1);
}

static void do_next(struct geul_line_editor *e)
{
    go_to(e, e->place + 1);
}

/* To the line that begins at an offset, and there as many columns from its beginning as the cursor is now. */
static void go_to_line(struct geul_line_editor *e, size_t begin)
{
    size_t here = line_begin(e, e->cursor), end = line_end(e, begin);
    int columns = geul_cluster_columns(e->text.data + here, e->cursor - here);
    e->cursor = begin;
    while (e->cursor < end) {
        struct geul_cluster cluster = geul_cluster_at(e->text.data, end, e->cursor);
        columns -= cluster.columns;
        if (columns < 0)
            break;
        e->cursor = cluster.end;
    }
}

/* Up and Down move between the lines of a text, and beyond them in the history. */
static void do_up(struct geul_line_editor *e)
{
    size_t begin = line_begin(e, e->cursor);
    if (begin > 0)
        go_to_line(e, line_begin(e, begin - 1));
    else
        do_previous(e);
}

static void do_down(struct geul_line_editor *e)
{
    size_t end = line_end(e, e->cursor);
    if (end < e->text.n)
        go_to_line(e, end + 1);
    else
        do_next(e);
}

/* ---- search -------------------------------------------------------------------------------- */

/* Shows the newest text from place backwards that holds what is searched; the one before stays when there is none. */
static void find(struct geul_line_editor *e, int place)
{
    for (; e->search.n > 0 && place >= 0; place--) {
        if (place == geul_line_history_count(e->history))
            continue;
        const char *text = geul_line_history_get(e->history, place), *found = strstr(text, e->search.data);
        if (!found)
            continue;
        go_to(e, place);
        e->cursor = (size_t)(found - text);
        e->search_failed = false;
        return;
    }
    e->search_failed = e->search.n > 0;
    if (e->search_failed)
        bell();
}

static void show_search(struct geul_line_editor *e)
{
    struct text *as = &e->search_as;
    const char *head = e->search_failed ? "(no match)'" : "(search)'", *pattern = e->search.n ? e->search.data : "";
    if (!set(as, head, strlen(head)) || !replace(as, as->n, 0, pattern, e->search.n) ||
        !replace(as, as->n, 0, "': ", 3) || !replace(as, as->n, 0, e->text.n ? e->text.data : "", e->text.n))
        return;
    struct geul_line_frame f = {"", e->options.more_prompt, as->data, as->n, as->n - e->text.n + e->cursor};
    geul_line_view_show(e->view, &f);
}

static void do_search(struct geul_line_editor *e)
{
    e->searching = true;
    e->search_failed = false;
    set(&e->search, "", 0);
}

/* A key during a search. false: the search is over, and the key means what it always does. */
static bool search_key(struct geul_line_editor *e, int32_t key)
{
    char bytes[4];
    if (key == GEUL_KEY_CTRL('R')) {
        find(e, e->place - 1);
    } else if (key == 0x7f || key == GEUL_KEY_CTRL('H')) {
        if (e->search.n > 0) {
            size_t begin = geul_cluster_before(e->search.data, e->search.n);
            replace(&e->search, begin, e->search.n - begin, NULL, 0);
        }
        find(e, geul_line_history_count(e->history));
    } else if (key == GEUL_KEY_CTRL('G')) {
        go_to(e, geul_line_history_count(e->history));
        e->searching = false;
    } else if (key >= 0x20 && key < GEUL_KEY_NONE) {
        replace(&e->search, e->search.n, 0, bytes, geul_cluster_encode(key, bytes));
        find(e, e->place);
    } else {
        e->searching = false;
        return false;
    }
    return true;
}

/* ---- completion ---------------------------------------------------------------------------- */

void geul_line_choices_add(struct geul_line_choices *choices, const char *item, size_t n)
{
    if (choices->n == choices->size) {
        int size = 2 * choices->size + 16;
        char **grown = realloc(choices->items, (size_t)size * sizeof *grown);
        if (!grown)
            return;
        choices->items = grown;
        choices->size = size;
    }
    char *copy = strndup(item, n);
    if (copy)
        choices->items[choices->n++] = copy;
}

static int by_bytes(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* How many bytes all choices begin with, up to a boundary between code points. */
static size_t common_bytes(const struct geul_line_choices *choices)
{
    size_t n = strlen(choices->items[0]);
    for (int i = 1; i < choices->n; i++)
        for (size_t j = 0; j < n; j++)
            if (choices->items[i][j] != choices->items[0][j])
                n = j;
    while (n > 0 && ((unsigned char)choices->items[0][n] & 0xc0) == 0x80)
        n--;
    return n;
}

/* What is listed of a choice: the last part of a path. */
static const char *label(const char *item)
{
    const char *end = item + strlen(item), *slash = end > item ? end - 1 : end;
    while (slash > item && slash[-1] != '/')
        slash--;
    return slash;
}

/* Lists the choices in columns below the text. */
static void list_choices(struct geul_line_editor *e, const struct geul_line_choices *choices)
{
    int widest = 0, width = geul_line_view_width(e->view);
    struct text out = {NULL, 0, 0};
    leave_text(e);
    for (int i = 0; i < choices->n; i++) {
        int columns = geul_cluster_columns(label(choices->items[i]), strlen(label(choices->items[i])));
        widest = columns > widest ? columns : widest;
    }
    int across = (width - 1) / (widest + 2) > 0 ? (width - 1) / (widest + 2) : 1;
    for (int i = 0; i < choices->n; i++) {
        const char *item = label(choices->items[i]);
        int gap = widest + 2 - geul_cluster_columns(item, strlen(item));
        bool last = i % across == across - 1 || i == choices->n - 1;
        replace(&out, out.n, 0, item, strlen(item));
        for (int j = 0; !last && j < gap; j++)
            replace(&out, out.n, 0, " ", 1);
        if (last)
            replace(&out, out.n, 0, "\n", 1);
    }
    geul_line_view_write(out.data, out.n);
    free(out.data);
    geul_line_view_begin(e->view);
}

static void do_complete(struct geul_line_editor *e)
{
    struct geul_line_choices choices = {.items = NULL};
    if (e->options.complete && e->text.n > 0)
        e->options.complete(e->text.data, e->cursor, &choices);
    if (choices.n == 0) {
        bell();
        free(choices.items);
        return;
    }
    qsort(choices.items, (size_t)choices.n, sizeof *choices.items, by_bytes);
    size_t n = common_bytes(&choices), typed = e->cursor - choices.begin;
    const char *item = choices.items[0];
    if (n >= typed && (n > typed || choices.n == 1) && replace(&e->text, choices.begin, typed, item, n)) {
        e->cursor = choices.begin + n;
        if (choices.n == 1 && n > 0 && item[n - 1] != '/')
            insert(e, " ", 1);
    } else {
        list_choices(e, &choices);
    }
    for (int i = 0; i < choices.n; i++)
        free(choices.items[i]);
    free(choices.items);
}

/* ---- keys ---------------------------------------------------------------------------------- */

/* Reads what was pasted and inserts it at once, with its newlines, without control characters. */
static void do_paste(struct geul_line_editor *e)
{
    struct text pasted = {NULL, 0, 0};
    char bytes[4];
    bool after_return = false;
    int32_t key;
    while ((key = geul_line_keys_read(e->keys)) != GEUL_KEY_PASTE_END) {
        if (key == GEUL_KEY_INTERRUPTED || key == GEUL_KEY_CLOSED) {
            e->state = key == GEUL_KEY_CLOSED ? CLOSED : INTERRUPTED;
            break;
        }
        bool newline = key == '\r' || (key == '\n' && !after_return);
        after_return = key == '\r';
        if (newline)
            replace(&pasted, pasted.n, 0, "\n", 1);
        else if (key == '\t' || (key >= 0x20 && key < 0x7f) || (key >= 0xa0 && key < GEUL_KEY_NONE))
            replace(&pasted, pasted.n, 0, bytes, geul_cluster_encode(key, bytes));
    }
    if (pasted.n > 0)
        insert(e, pasted.data, pasted.n);
    free(pasted.data);
}

static void do_interrupt(struct geul_line_editor *e)
{
    e->state = INTERRUPTED;
}

static void do_close(struct geul_line_editor *e)
{
    e->state = CLOSED;
}

static void do_suspend(struct geul_line_editor *e)
{
    leave_text(e);
    geul_line_keys_suspend(e->keys);
}

static void do_resize(struct geul_line_editor *e)
{
    geul_line_view_resize(e->view);
}

static void do_continue(struct geul_line_editor *e)
{
    geul_line_view_begin(e->view);
}

static const struct {
    int32_t key;
    void (*run)(struct geul_line_editor *e);
} bindings[] = {
    {'\r', do_enter},
    {'\n', do_enter},
    {GEUL_KEY_ALT | '\r', do_newline},
    {GEUL_KEY_ALT | '\n', do_newline},
    {'\t', do_complete},
    {0x7f, do_backspace},
    {GEUL_KEY_CTRL('H'), do_backspace},
    {GEUL_KEY_DELETE, do_delete},
    {GEUL_KEY_CTRL('D'), do_delete_or_close},
    {GEUL_KEY_LEFT, do_left},
    {GEUL_KEY_CTRL('B'), do_left},
    {GEUL_KEY_RIGHT, do_right},
    {GEUL_KEY_CTRL('F'), do_right},
    {GEUL_KEY_WORD_LEFT, do_word_left},
    {GEUL_KEY_ALT | 'b', do_word_left},
    {GEUL_KEY_WORD_RIGHT, do_word_right},
    {GEUL_KEY_ALT | 'f', do_word_right},
    {GEUL_KEY_HOME, do_home},
    {GEUL_KEY_CTRL('A'), do_home},
    {GEUL_KEY_END, do_end},
    {GEUL_KEY_CTRL('E'), do_end},
    {GEUL_KEY_UP, do_up},
    {GEUL_KEY_CTRL('P'), do_previous},
    {GEUL_KEY_DOWN, do_down},
    {GEUL_KEY_CTRL('N'), do_next},
    {GEUL_KEY_CTRL('R'), do_search},
    {GEUL_KEY_CTRL('K'), do_kill_to_end},
    {GEUL_KEY_CTRL('U'), do_kill_to_begin},
    {GEUL_KEY_CTRL('W'), do_kill_space_word},
    {GEUL_KEY_ALT | 0x7f, do_kill_word_before},
    {GEUL_KEY_ALT | GEUL_KEY_CTRL('H'), do_kill_word_before},
    {GEUL_KEY_ALT | 'd', do_kill_word_after},
    {GEUL_KEY_CTRL('Y'), do_yank},
    {GEUL_KEY_CTRL('T'), do_exchange},
    {GEUL_KEY_CTRL('L'), do_clear},
    {GEUL_KEY_PASTE_BEGIN, do_paste},
    {GEUL_KEY_INTERRUPTED, do_interrupt},
    {GEUL_KEY_CLOSED, do_close},
    {GEUL_KEY_SUSPENDED, do_suspend},
    {GEUL_KEY_RESIZED, do_resize},
    {GEUL_KEY_CONTINUED, do_continue},
};

static void obey(struct geul_line_editor *e, int32_t key)
{
    char bytes[4];
    if (e->searching && key != GEUL_KEY_RESIZED && key != GEUL_KEY_CONTINUED && search_key(e, key))
        return;
    for (size_t i = 0; i < sizeof bindings / sizeof *bindings; i++) {
        if (bindings[i].key == key) {
            bindings[i].run(e);
            return;
        }
    }
    if (key >= 0x20 && key < GEUL_KEY_NONE && (key < 0x80 || key >= 0xa0))
        insert(e, bytes, geul_cluster_encode(key, bytes));
}

enum geul_line_end geul_line_editor_read(struct geul_line_editor *e, const char **text)
{
    *text = "";
    if (!set(&e->text, "", 0) || !geul_line_keys_begin(e->keys, !geul_line_view_is_dumb(e->view)))
        return GEUL_LINE_CLOSED;
    e->cursor = 0;
    e->place = geul_line_history_count(e->history);
    e->searching = false;
    geul_line_view_begin(e->view);
    for (e->state = EDITING; e->state == EDITING;) {
        if (!geul_line_keys_pending(e->keys)) {
            if (e->searching)
                show_search(e);
            else
                show(e);
        }
        obey(e, geul_line_keys_read(e->keys));
    }
    struct geul_line_frame f = frame(e);
    bool fresh = geul_line_view_finish(e->view, &f);
    if (e->state == INTERRUPTED)
        geul_line_view_write("^C", 2);
    if (!fresh || e->state != ACCEPTED)
        geul_line_view_write("\n", 1);
    geul_line_keys_end(e->keys);
    *text = e->text.data;
    if (e->state != ACCEPTED)
        return e->state == INTERRUPTED ? GEUL_LINE_INTERRUPTED : GEUL_LINE_CLOSED;
    geul_line_history_add(e->history, e->text.data);
    return GEUL_LINE_TEXT;
}

struct geul_line_editor *geul_line_editor_new(const struct geul_line_options *options)
{
    struct geul_line_editor *e = calloc(1, sizeof *e);
    if (!e)
        return NULL;
    e->options = *options;
    e->view = geul_line_view_new();
    e->keys = geul_line_keys_new();
    e->history = geul_line_history_new(options->history_path);
    if (e->view && e->keys && e->history)
        return e;
    geul_line_editor_free(e);
    return NULL;
}

void geul_line_editor_free(struct geul_line_editor *e)
{
    if (!e)
        return;
    struct text *const texts[] = {&e->text, &e->killed, &e->own, &e->search, &e->search_as};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        free(texts[i]->data);
    geul_line_view_free(e->view);
    geul_line_keys_free(e->keys);
    geul_line_history_free(e->history);
    free(e);
}

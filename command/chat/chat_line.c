/* chat_line.c: lines from a terminal through libedit's wide-character interface, or plain lines from a pipe.
 *
 * Characters are read and decoded here (EL_GETCFN), not by libedit: so Ctrl-C, a resized window and returning from
 * Ctrl-Z are noticed at once, and input is UTF-8 whatever the locale says. libedit needs a UTF-8 locale for widths and
 * output: the user's if it is one, C.UTF-8 otherwise.
 *
 * Signal handlers only set flags; read_byte() looks at them at least every POLL_MS, and only there is libedit called
 * about them, since none of it is safe in a handler (EL_SIGNAL 0 keeps it from installing its own). Ctrl-C makes the
 * read fail with EINTR, el_wgets() returns NULL, and the line is discarded: chat_line_read() then returns "". SIGTERM
 * and SIGHUP end the input in the same way, with NULL.
 */
#include "command/chat/chat.h"

#include "command/paths.h"
#include "command/report.h"
#include "command/terminal.h"
#include "command/text_input.h"

#include <errno.h>
#include <fcntl.h>
#include <histedit.h>
#include <langinfo.h>
#include <locale.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { HISTORY_LINES = 1000, POLL_MS = 100 };

struct geul_chat_line {
    EditLine *editor; /* NULL: no terminal */
    HistoryW *history;
    char *history_path; /* NULL: not kept */
    char *line;
    size_t capacity;
    bool failed; /* a line was no text */
};

static volatile sig_atomic_t window_changed, continued, ended;

static void on_signal(int number)
{
    if (number == SIGWINCH)
        window_changed = 1;
    else if (number == SIGCONT)
        continued = 1;
    else
        ended = 1;
}

static wchar_t *prompt(EditLine *editor)
{
    static wchar_t text[] = L"> ";
    (void)editor;
    return text;
}

/* Does what signals left to do. false: the line is to be discarded. */
static bool obey_signals(EditLine *editor)
{
    if (window_changed) {
        window_changed = 0;
        el_resize(editor);
    }
    if (continued) { /* the shell has restored its own terminal mode */
        continued = 0;
        el_wset(editor, EL_PREP_TERM, 0);
        el_wset(editor, EL_PREP_TERM, 1);
        el_wset(editor, EL_REFRESH);
    }
    return !geul_interrupted() && !ended;
}

/* Reads one byte of the terminal. 1, 0 at the end, -1 when interrupted. */
static int read_byte(EditLine *editor, unsigned char *byte)
{
    struct pollfd input = {.fd = STDIN_FILENO, .events = POLLIN};
    for (;;) {
        if (!obey_signals(editor)) {
            errno = EINTR;
            return -1;
        }
        int ready = poll(&input, 1, POLL_MS); /* a signal right before this call is noticed when it times out */
        if (ready > 0) {
            ssize_t n = read(STDIN_FILENO, byte, 1);
            if (n >= 0)
                return (int)n;
        }
        if (ready != 0 && errno != EINTR && errno != EAGAIN)
            return -1;
    }
}

/* libedit's request for the next character. Broken UTF-8 becomes U+FFFD. Returns 1, 0 at the end, -1 on failure. */
static int read_character(EditLine *editor, wchar_t *out)
{
    unsigned char byte;
    int got = read_byte(editor, &byte);
    if (got <= 0)
        return got;
    /* more: continuation bytes after a lead byte, which keeps its low 6, 5, 4 or 3 bits. wchar_t is UTF-32 here. */
    int more = byte >= 0xf0 ? 3 : byte >= 0xe0 ? 2 : byte >= 0xc0 ? 1 : 0;
    wchar_t c = more ? (wchar_t)(byte & (0x3f >> more)) : byte < 0x80 ? (wchar_t)byte : L'\xfffd';
    while (more-- > 0) {
        got = read_byte(editor, &byte);
        if (got <= 0)
            return got;
        if ((byte & 0xc0) != 0x80) {
            c = L'\xfffd';
            break;
        }
        c = (wchar_t)(c << 6 | (byte & 0x3f));
    }
    *out = c;
    return 1;
}

/* UTF-8 of a wide string into *text, which grows; false when memory is short. */
static bool to_utf8(const wchar_t *wide, size_t n, char **text, size_t *capacity)
{
    if (*capacity < 4 * n + 1) {
        char *grown = realloc(*text, 4 * n + 1);
        if (!grown)
            return false;
        *text = grown;
        *capacity = 4 * n + 1;
    }
    char *at = *text;
    for (size_t i = 0; i < n; i++) {
        uint32_t c = (uint32_t)wide[i];
        int more = c < 0x80 ? 0 : c < 0x800 ? 1 : c < 0x10000 ? 2 : 3;
        static const unsigned char lead[] = {0, 0xc0, 0xe0, 0xf0};
        *at++ = (char)(lead[more] | c >> (6 * more));
        while (more-- > 0)
            *at++ = (char)(0x80 | (c >> (6 * more) & 0x3f));
    }
    *at = '\0';
    return true;
}

/* Opens the history file, which only its owner may read. NULL where that is not possible. */
static FILE *open_history(const struct geul_chat_line *l, const char *mode, int flags)
{
    int fd = l->history_path ? open(l->history_path, O_WRONLY | O_CREAT | O_CLOEXEC | flags, 0600) : -1;
    FILE *f = fd >= 0 ? fdopen(fd, mode) : NULL;
    if (!f && fd >= 0)
        close(fd);
    return f;
}

/* Loads the history file into the editor; a file that has grown too long is cut to its newest lines. */
static void load_history(struct geul_chat_line *l)
{
    HistEventW event;
    wchar_t *wide = NULL;
    FILE *f = l->history_path ? fopen(l->history_path, "r") : NULL;
    char *line = NULL;
    size_t capacity = 0, length, n_lines = 0;
    while (f && geul_text_input_line(f, &line, &capacity, &length)) {
        wchar_t *grown = realloc(wide, (length + 1) * sizeof *wide);
        if (!grown)
            break;
        wide = grown;
        if (mbstowcs(wide, line, length + 1) != (size_t)-1)
            history_w(l->history, &event, H_ENTER, wide);
        n_lines++;
    }
    free(line);
    free(wide);
    if (f)
        fclose(f);
    /* The file only grows while it is used (remember() appends, so that several chats can share it); rewriting it at
     * twice the limit keeps that rare. H_LAST is the oldest line, and H_PREV leads to newer ones. */
    if (n_lines < 2 * HISTORY_LINES || !(f = open_history(l, "w", O_TRUNC)))
        return;
    line = NULL;
    capacity = 0;
    for (int more = history_w(l->history, &event, H_LAST); more == 0; more = history_w(l->history, &event, H_PREV))
        if (to_utf8(event.str, wcslen(event.str), &line, &capacity))
            fprintf(f, "%s\n", line);
    free(line);
    fclose(f);
}

/* Home, End, Delete and Ctrl with an arrow as the usual terminals send them, whatever TERM says: over ssh and
 * inside tmux it often names another terminal. */
static void bind_keys(EditLine *editor)
{
    static const struct {
        const wchar_t *keys, *command;
    } bindings[] = {
        {L"\\e[H", L"ed-move-to-beg"},  {L"\\eOH", L"ed-move-to-beg"},  {L"\\e[1~", L"ed-move-to-beg"},
        {L"\\e[7~", L"ed-move-to-beg"}, {L"\\e[F", L"ed-move-to-end"},  {L"\\eOF", L"ed-move-to-end"},
        {L"\\e[4~", L"ed-move-to-end"}, {L"\\e[8~", L"ed-move-to-end"}, {L"\\e[3~", L"ed-delete-next-char"},
        {L"\\e[1;5D", L"ed-prev-word"}, {L"\\e[1;5C", L"em-next-word"},
    };
    for (size_t i = 0; i < sizeof bindings / sizeof *bindings; i++)
        el_wset(editor, EL_BIND, bindings[i].keys, bindings[i].command, NULL);
}

/* Makes the editor; on failure lines are read plainly. */
static void start_editor(struct geul_chat_line *l, struct geul_context *ctx)
{
    HistEventW event;
    if (!setlocale(LC_CTYPE, "") || strcmp(nl_langinfo(CODESET), "UTF-8") != 0)
        setlocale(LC_CTYPE, "C.UTF-8");
    l->editor = el_init("geul", stdin, stdout, stderr);
    l->history = history_winit();
    if (!l->editor || !l->history)
        return;
    history_w(l->history, &event, H_SETSIZE, HISTORY_LINES);
    history_w(l->history, &event, H_SETUNIQUE, 1);
    el_wset(l->editor, EL_PROMPT, prompt);
    el_wset(l->editor, EL_EDITOR, L"emacs");
    el_wset(l->editor, EL_GETCFN, read_character);
    el_wset(l->editor, EL_HIST, history_w, l->history);
    el_wset(l->editor, EL_SIGNAL, 0);
    bind_keys(l->editor);
    el_source(l->editor, NULL);
    l->history_path = geul_path_state(ctx, "history");
    geul_error_clear(ctx); /* without a directory for it no history is kept */
    load_history(l);
}

struct geul_chat_line *geul_chat_line_new(struct geul_context *ctx)
{
    struct geul_chat_line *l = calloc(1, sizeof *l);
    if (l && isatty(STDIN_FILENO) && isatty(STDOUT_FILENO))
        start_editor(l, ctx);
    struct sigaction action = {.sa_handler = on_signal};
    sigemptyset(&action.sa_mask);
    static const int signals[] = {SIGWINCH, SIGCONT, SIGTERM, SIGHUP};
    for (size_t i = 0; l && l->editor && i < sizeof signals / sizeof *signals; i++)
        sigaction(signals[i], &action, NULL);
    return l;
}

void geul_chat_line_free(struct geul_chat_line *l)
{
    if (!l)
        return;
    if (l->editor)
        el_end(l->editor);
    if (l->history)
        history_wend(l->history);
    free(l->history_path);
    free(l->line);
    free(l);
}

bool geul_chat_line_terminal(const struct geul_chat_line *l)
{
    return l && l->editor;
}

/* Adds a line to the history, in memory and in the file. */
static void remember(struct geul_chat_line *l, const wchar_t *wide)
{
    HistEventW event;
    if (!*l->line)
        return;
    history_w(l->history, &event, H_ENTER, wide);
    FILE *f = open_history(l, "a", O_APPEND);
    if (!f)
        return;
    fprintf(f, "%s\n", l->line);
    fclose(f);
}

/* A line from the editor. */
static const char *read_edited(struct geul_chat_line *l)
{
    int n = 0;
    const wchar_t *wide = el_wgets(l->editor, &n);
    if (!wide || n <= 0) {
        bool again = geul_interrupted() && !ended; /* Ctrl-C; otherwise Ctrl-D or a signal that ends the program */
        geul_interrupt_clear();
        printf(again ? "^C   (/exit or Ctrl-D leaves)\n" : "\n");
        fflush(stdout);
        return again ? "" : NULL;
    }
    size_t length = (size_t)n;
    while (length > 0 && (wide[length - 1] == L'\n' || wide[length - 1] == L'\r'))
        length--;
    if (!to_utf8(wide, length, &l->line, &l->capacity))
        return NULL;
    wchar_t *copy = wcsdup(wide); /* libedit's buffer must not be changed; the history wants no newline */
    if (copy) {
        copy[length] = L'\0';
        remember(l, copy);
    }
    free(copy);
    return l->line;
}

const char *geul_chat_line_read(struct geul_chat_line *l)
{
    size_t length;
    geul_interrupt_clear();
    if (!l)
        return NULL;
    if (l->editor)
        return read_edited(l);
    if (!geul_text_input_line(stdin, &l->line, &l->capacity, &length))
        return NULL;
    l->failed = !geul_text_input_check(l->line, length);
    if (!l->failed && memchr(l->line, '\0', length)) { /* questions are C strings */
        geul_report_error("standard input holds a NUL byte: it is not text");
        l->failed = true;
    }
    return l->failed ? NULL : l->line;
}

bool geul_chat_line_failed(const struct geul_chat_line *l)
{
    return l && l->failed;
}

/* chat_line.c: questions and commands from the terminal, or from a pipe.
 *
 * A line is a text, unless it begins a longer one: three quotes begin a text that three quotes at the end of a line
 * end, and a line with "\" at its end goes on in the next, as ollama and llama.cpp have it. In the terminal, where "\"
 * becomes a newline as soon as Enter is pressed, what is pasted keeps its newlines without either. */
#include "command/chat/chat.h"

#include "command/line/line_edit.h"
#include "command/paths.h"
#include "command/report.h"
#include "command/terminal.h"
#include "command/text_input.h"

#include "core/os.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char quotes[] = "\"\"\"", prompt[] = "> ", more_prompt[] = "| ";
enum { N_QUOTES = sizeof quotes - 1 };

struct geul_chat_line {
    struct geul_line_editor *editor; /* NULL: no terminal, or one that edits lines itself */
    bool terminal;
    char *text; /* malloc()ed: what the last call returned */
    char *line;
    size_t line_size;
    bool failed; /* a line was no text */
};

/* ---- texts of several lines ---------------------------------------------------------------- */

/* Where the quotes that text begins with stand, perhaps behind a command; NULL when it begins with none. */
static const char *opening_quotes(const char *text)
{
    const char *body = text + strspn(text, " \t");
    if (*body == '/') {
        body += strcspn(body, " \t\n");
        body += strspn(body, " \t");
    }
    return strncmp(body, quotes, N_QUOTES) == 0 ? body : NULL;
}

/* The quotes that end a text whose opening ones these are; NULL while there are none. */
static const char *closing_quotes(const char *opening)
{
    const char *end = opening + strlen(opening);
    while (end > opening && strchr(" \t\r\n", end[-1]))
        end--;
    bool closed = end - opening >= 2 * N_QUOTES && strncmp(end - N_QUOTES, quotes, N_QUOTES) == 0;
    return closed ? end - N_QUOTES : NULL;
}

/* For the editor: see line_edit.h. Two backslashes at the end are just that. */
static bool goes_on(const char *text, size_t cursor, size_t *at, size_t *n)
{
    const char *opening = opening_quotes(text);
    *at = cursor;
    *n = 0;
    if (opening)
        return !closing_quotes(opening);
    size_t length = strlen(text), slashes = 0;
    while (slashes < length && text[length - 1 - slashes] == '\\')
        slashes++;
    *at = length - 1;
    *n = 1;
    return slashes % 2 == 1;
}

/* Takes the quotes away, each with the newline next to it, and newlines at the end. Returns whether there were any
 * quotes at the very beginning. */
static bool unquote(char *text)
{
    const char *found = opening_quotes(text);
    bool whole = found && found == text + strspn(text, " \t");
    if (found) {
        char *opening = text + (found - text), *rest = opening + N_QUOTES;
        const char *closing = closing_quotes(opening);
        if (closing)
            text[closing - text] = '\0';
        rest += *rest == '\n';
        memmove(opening, rest, strlen(rest) + 1);
        if (whole)
            memmove(text, opening, strlen(opening) + 1);
    }
    for (size_t n = strlen(text); n > 0 && (text[n - 1] == '\n' || text[n - 1] == '\r'); n--)
        text[n - 1] = '\0';
    return whole;
}

/* ---- where they come from ------------------------------------------------------------------ */

/* Whether a line may be a question or a part of one; false after a message. */
static bool is_text(const char *line, size_t length)
{
    if (!geul_text_input_check(line, length))
        return false;
    if (!memchr(line, '\0', length)) /* questions are C strings */
        return true;
    geul_report_error("standard input holds a NUL byte: it is not text");
    return false;
}

/* Reads lines of a pipe into l->text until it is whole. false at the end, and after a message about a line that is no
 * text. */
static bool read_plain(struct geul_chat_line *l)
{
    size_t length, n = 0, at, cut;
    for (;;) {
        if (l->terminal)
            fputs(n > 0 ? more_prompt : prompt, stdout);
        fflush(stdout);
        if (!geul_text_input_line(stdin, &l->line, &l->line_size, &length))
            return n > 0; /* the end of the input ends a text, too */
        if ((l->failed = !is_text(l->line, length)))
            return false;
        char *grown = realloc(l->text, n + length + 2);
        if (!grown)
            return false;
        l->text = grown;
        memcpy(l->text + n, l->line, length + 1);
        n += length;
        if (n == 0 || !goes_on(l->text, n, &at, &cut))
            return true;
        n = at;
        memcpy(l->text + n++, "\n", 2);
    }
}

/* The same with the editor. */
static bool read_edited(struct geul_chat_line *l)
{
    const char *text;
    enum geul_line_end end = geul_line_editor_read(l->editor, &text);
    geul_interrupt_clear();
    if (end == GEUL_LINE_CLOSED)
        return false;
    if (end == GEUL_LINE_INTERRUPTED && !*text)
        fprintf(stderr, "/exit or Ctrl-D leaves\n");
    l->text = strdup(end == GEUL_LINE_TEXT ? text : "");
    return l->text != NULL;
}

bool geul_chat_line_read(struct geul_chat_line *l, struct geul_chat_input *out)
{
    geul_interrupt_clear();
    if (!l)
        return false;
    free(l->text);
    l->text = NULL;
    if (l->editor ? !read_edited(l) : !read_plain(l))
        return false;
    bool quoted = unquote(l->text), escaped = !quoted && strncmp(l->text, "//", 2) == 0;
    *out = (struct geul_chat_input){.text = l->text + escaped, .is_command = !quoted && !escaped && *l->text == '/'};
    return true;
}

/* Whether lines are edited already when they come, as in Emacs' M-x shell. */
static bool is_edited_elsewhere(void)
{
    const char *term = geul_os_env("TERM");
    return geul_os_env("INSIDE_EMACS") && term && strcmp(term, "dumb") == 0;
}

struct geul_chat_line *geul_chat_line_new(struct geul_context *ctx)
{
    struct geul_chat_line *l = calloc(1, sizeof *l);
    if (!l || !isatty(STDIN_FILENO) || !isatty(STDOUT_FILENO))
        return l;
    l->terminal = true;
    if (is_edited_elsewhere())
        return l;
    char *history = geul_path_state(ctx, "history");
    geul_error_clear(ctx); /* without a directory for it no history is kept */
    struct geul_line_options options = {.prompt = prompt,
                                        .more_prompt = more_prompt,
                                        .history_path = history,
                                        .goes_on = goes_on,
                                        .complete = geul_chat_complete};
    l->editor = geul_line_editor_new(&options);
    free(history);
    return l;
}

void geul_chat_line_free(struct geul_chat_line *l)
{
    if (!l)
        return;
    geul_line_editor_free(l->editor);
    free(l->text);
    free(l->line);
    free(l);
}

bool geul_chat_line_terminal(const struct geul_chat_line *l)
{
    return l && l->terminal;
}

bool geul_chat_line_failed(const struct geul_chat_line *l)
{
    return l && l->failed;
}

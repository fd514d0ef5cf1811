/* line_edit.h: a text typed into the terminal, with editing, history, pasting and completion. */
#ifndef GEUL_LINE_EDIT_H
#define GEUL_LINE_EDIT_H

#include <stdbool.h>
#include <stddef.h>

/* What Tab may put in place of text[begin..cursor). */
struct geul_line_choices {
    size_t begin;
    char **items; /* malloc()ed, as their texts are */
    int n, size;
};
/* Appends a copy of n bytes. */
void geul_line_choices_add(struct geul_line_choices *choices, const char *item, size_t n);

struct geul_line_options {
    const char *prompt, *more_prompt; /* printable ASCII; more_prompt begins what follows a newline */
    const char *history_path;         /* NULL: no file */
    /* Called on Enter. true: the text goes on, so it gets a newline at *at, instead of the n bytes there. NULL: every
     * text ends. */
    bool (*goes_on)(const char *text, size_t cursor, size_t *at, size_t *n);
    /* Called on Tab. NULL: nothing can be completed. */
    void (*complete)(const char *text, size_t cursor, struct geul_line_choices *choices);
};

enum geul_line_end { GEUL_LINE_TEXT, GEUL_LINE_INTERRUPTED, GEUL_LINE_CLOSED };

struct geul_line_editor;
/* For the terminal on stdin and stdout. NULL when memory is short. The options' texts must outlive it. Free with
 * geul_line_editor_free(). */
struct geul_line_editor *geul_line_editor_new(const struct geul_line_options *options);
void geul_line_editor_free(struct geul_line_editor *e);
/* Reads a text, valid until the next call, into *text, and adds it to the history. INTERRUPTED: *text was given up by
 * Ctrl-C; CLOSED: by Ctrl-D in an empty line, the end of the input or a signal. */
enum geul_line_end geul_line_editor_read(struct geul_line_editor *e, const char **text);

#endif

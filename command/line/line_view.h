/* line_view.h: a text with its cursor on the terminal. */
#ifndef GEUL_LINE_VIEW_H
#define GEUL_LINE_VIEW_H

#include <stdbool.h>
#include <stddef.h>

/* What is to be seen. Rows that begin after a newline begin with more_prompt; prompts are printable ASCII. */
struct geul_line_frame {
    const char *prompt, *more_prompt;
    const char *text; /* UTF-8, any control characters */
    size_t length, cursor;
};

struct geul_line_view;
/* A view of the terminal on stdout; NULL when memory is short. Free with geul_line_view_free(). */
struct geul_line_view *geul_line_view_new(void);
void geul_line_view_free(struct geul_line_view *v);
/* Whether the terminal understands nothing but printable characters, carriage return and newline (TERM=dumb). */
bool geul_line_view_is_dumb(const struct geul_line_view *v);

/* Begins at the cursor's row, which is empty: nothing of the frames before is on the terminal any more. */
void geul_line_view_begin(struct geul_line_view *v);
/* Makes the terminal show the frame. */
void geul_line_view_show(struct geul_line_view *v, const struct geul_line_frame *f);
/* Shows the whole frame, also the rows that the terminal has no room for, and puts the cursor behind its end. Returns
 * whether that is the beginning of an empty row. */
bool geul_line_view_finish(struct geul_line_view *v, const struct geul_line_frame *f);
/* The window has another size now: finds the frame again on the terminal, which has moved its rows. */
void geul_line_view_resize(struct geul_line_view *v);
/* Clears the terminal. */
void geul_line_view_clear(struct geul_line_view *v);
/* Columns of the terminal. */
int geul_line_view_width(const struct geul_line_view *v);
/* Writes n bytes to the terminal. */
void geul_line_view_write(const char *bytes, size_t n);

#endif

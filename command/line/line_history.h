/* line_history.h: what was typed before. */
#ifndef GEUL_LINE_HISTORY_H
#define GEUL_LINE_HISTORY_H

struct geul_line_history;
/* Reads the file, if there is one; path NULL: nothing is kept in a file. The file may be read and written by several
 * programs at once. NULL when memory is short. Free with geul_line_history_free(). */
struct geul_line_history *geul_line_history_new(const char *path);
void geul_line_history_free(struct geul_line_history *h);
/* Adds a text, in memory and in the file, unless it is the last one again. */
void geul_line_history_add(struct geul_line_history *h, const char *text);
int geul_line_history_count(const struct geul_line_history *h);
/* 0 is the oldest; valid until the next call of geul_line_history_add(). */
const char *geul_line_history_get(const struct geul_line_history *h, int index);

#endif

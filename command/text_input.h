/* text_input.h: texts from files and stdin, any bytes. */
#ifndef GEUL_TEXT_INPUT_H
#define GEUL_TEXT_INPUT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

/* The whole file, or stdin for "-", with a NUL behind it; free with free(). NULL after a message. */
char *geul_text_input_file(const char *path, size_t *length);
/* The next line without its newline; *line grows as with getline() and is freed by free(). false at the end. */
bool geul_text_input_line(FILE *f, char **line, size_t *capacity, size_t *length);
/* The prompt that -p (TEXT or "-") or -f names; one of them must be given; a newline at the end of
 * a file is left out. NULL after a message, with *code set. */
char *geul_text_input_prompt(const char *text, const char *file, size_t *length, int *code);

#endif

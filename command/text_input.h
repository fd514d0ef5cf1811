/* text_input.h: texts from files and stdin, without byte order mark and with LF for CR LF (geul_text_decode()). Text in
 * another encoding is an error that names it; other bytes are taken as they are. */
#ifndef GEUL_TEXT_INPUT_H
#define GEUL_TEXT_INPUT_H

#include "geul.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

/* The whole file, or stdin for "-", with a NUL behind it; free with free(). encoding: as for geul_text_decode(). NULL
 * after a message. */
char *geul_text_input_file(const char *path, const char *encoding, size_t *length);
/* The next line without its newline; *line grows as with getline() and is freed by free(). false at the end. */
bool geul_text_input_line(FILE *f, char **line, size_t *capacity, size_t *length);
/* Whether a line of standard input may be text in UTF-8; false after a message that names its encoding. */
bool geul_text_input_check(const char *line, size_t length);
/* The prompt that -p (TEXT or "-") or -f names; one of them must be given; a newline at the end of
 * a file, whose encoding may be given, is left out. NULL after a message, with *code set. */
char *geul_text_input_prompt(const char *text, const char *file, const char *encoding, size_t *length, int *code);

/* The row of --nfc, for a field `nfc` of the settings, whose default is "auto"; and what a value of it means. */
extern const char *const geul_nfc_choices[];
enum geul_nfc geul_nfc_of(const char *name);
#define GEUL_NFC_OPTION(what)                                                                                          \
    OPTION_CHOICE("--nfc", nfc, "auto|on|off", geul_nfc_choices,                                                       \
                  "on: composes decomposed characters (NFD, as macOS writes Hangul) in " what                          \
                  "; auto: unless the tokenizer does so itself")

/* The row of --encoding, for a field `encoding` of the settings. */
#define GEUL_ENCODING_OPTION                                                                                           \
    OPTION_TEXT("--encoding", encoding, "NAME",                                                                        \
                "of the text in files and standard input, as iconv names it: cp949, utf-16; UTF-8 when not given")

#endif

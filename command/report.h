/* report.h: what the command prints: messages on stderr, results on stdout. What messages and lines for people name may
 * come from a hostile file, so a terminal gets no control characters through them. */
#ifndef GEUL_REPORT_H
#define GEUL_REPORT_H

#include "core/context.h"

#include <jansson.h>
#include <stdio.h>

/* Sets the word that the program was started by, and returns it: for commands that are printed to be typed again. */
void geul_report_set_program(const char *word);
const char *geul_report_program(void);
/* Sets the subcommand that the messages below begin with; NULL: none is known yet. */
void geul_report_set_command(const char *command);
/* "geul <command>: <message>" on stderr; returns 1. */
int geul_report_error(const char *format, ...) GEUL_PRINTF(1, 2);
/* The failure that ctx holds; 130 when the user interrupted the work. */
int geul_report_failure(const struct geul_context *ctx);
/* Wrong usage: the message and a pointer to --help; returns 2. */
int geul_report_usage(const char *format, ...) GEUL_PRINTF(1, 2);
/* "geul <command>: <message>" on stderr that is not a failure. */
void geul_report_note(const char *format, ...) GEUL_PRINTF(1, 2);
/* A line on stdout, for people; control characters of what it names are replaced, see geul_printable(). */
void geul_report_line(const char *format, ...) GEUL_PRINTF(1, 2);
/* Writes n bytes of a text of several lines to f, its control characters but newlines and tabs replaced. */
void geul_report_clean(FILE *f, const char *text, size_t n);
/* A text that the command itself has read from a file, or NULL from standard input: no output may replace it. To be
 * called before the context is made. */
void geul_report_input(const char *path);
/* A context that uses the C library's memory and passes warnings (with verbose also notes) on to stderr; Ctrl-C cancels
 * what is computed with it. Its inputs stay inputs until it is freed. NULL after a message. Free with
 * geul_report_context_free(). */
struct geul_context *geul_report_context(bool verbose);
void geul_report_context_free(struct geul_context *ctx);

/* Writes text to stdout and flushes it. false when a write has failed, so that nobody reads it any more. */
bool geul_report_text(const char *text, size_t length);
/* A document on stdout, or one line of JSON; json is released, also on failure. Returns the exit code. */
int geul_report_json(json_t *json);
int geul_report_json_line(json_t *json);
/* A JSON string of any bytes; what is not UTF-8 becomes U+FFFD. */
json_t *geul_report_json_text(const char *text, size_t length);
/* The same for a file's name. */
json_t *geul_report_json_name(const char *name);
/* A JSON number; null when it is not finite. */
json_t *geul_report_json_real(double v);
/* A JSON array of n ids. */
json_t *geul_report_json_ids(const int32_t *ids, size_t n);
/* Flushes stdout. Returns code, or 1 after a message when what was printed could not be written. A reader that closed
 * the pipe is not a failure. */
int geul_report_end(int code);

#endif

/* progress.h: a bar with rate and time left, on stderr when it is a terminal and the work takes more than a second. */
#ifndef GEUL_PROGRESS_H
#define GEUL_PROGRESS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Starts the bar of a piece of work; label and unit are short English words ("tokens"); unit NULL means bytes. */
void geul_progress_start(const char *label, const char *unit);
/* done of total; total 0: unknown. Cheap to call often. */
void geul_progress_update(uint64_t done, uint64_t total);
/* The same as a callback of the library's long calls: false, so that they stop, after Ctrl-C. user is not used. */
bool geul_progress_callback(void *user, uint64_t done, uint64_t total);
/* Erases the bar; without one it does nothing. */
void geul_progress_hide(void);

/* "1 min 20 s"; writes into text and returns it. */
const char *geul_progress_time(double seconds, char *text, size_t size);

#endif

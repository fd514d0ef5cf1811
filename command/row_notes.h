/* row_notes.h: reports rows that could not be used. */
#ifndef GEUL_ROW_NOTES_H
#define GEUL_ROW_NOTES_H

#include "geul_tools.h"

/* Prints the problems on stderr, one per line, and how many more there are. */
void geul_row_notes_print(const struct geul_row_problems *p);

#endif

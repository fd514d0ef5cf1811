/* row_notes.h: reports rows that could not be used, and what of the others was not. */
#ifndef GEUL_ROW_NOTES_H
#define GEUL_ROW_NOTES_H

#include "geul_tools.h"

/* Prints the problems on stderr, one per line, how many more there are, and what else of the rows was not used. */
void geul_row_notes_print(const struct geul_row_problems *p);
/* Prints which form each file has. */
void geul_row_notes_print_forms(const struct geul_row_problems *p);
/* Prints how many rows have texts that are not in NFC, and what was done about it. */
void geul_row_notes_print_nfc(int64_t not_nfc, bool applied);

#endif

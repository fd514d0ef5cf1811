/* preview.h: prints what a model will learn, for checking by eye. */
#ifndef GEUL_PREVIEW_H
#define GEUL_PREVIEW_H

#include "geul.h"

#include <stdio.h>

/* Prints the first n samples of d to f, each under a line with its counts: what is learned as it is, what is only read
 * dim (colour, for a terminal) or between white square brackets, U+27E6 and U+27E7. Special tokens appear as their
 * text, control characters other than newline and tab as \xNN; a character that is split over several tokens belongs to
 * the token of its last byte. false when memory is short or f cannot be written. */
bool geul_preview_print(FILE *f, const struct geul_tokenizer *tok, const struct geul_dataset *d, int n, bool colour);

#endif

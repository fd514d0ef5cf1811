/* cluster.h: what a reader takes for one character, and the columns that a terminal gives it. */
#ifndef GEUL_CLUSTER_H
#define GEUL_CLUSTER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { GEUL_CLUSTER_COLUMNS = 4 }; /* the most that a cluster takes */

/* A grapheme cluster: a syllable of decomposed Hangul, a letter with its marks, an emoji of several code points. */
struct geul_cluster {
    size_t end;  /* offset behind its last byte */
    int columns; /* control characters, tabs and newlines have 0 here */
    bool unsure; /* terminals disagree about the columns */
};

/* The code point at offset at < n of UTF-8 text, and the offset behind it; a byte that is not UTF-8 is U+FFFD. */
int32_t geul_cluster_decode(const char *text, size_t n, size_t at, size_t *end);
/* The UTF-8 of a code point; returns its 1 to 4 bytes. */
size_t geul_cluster_encode(int32_t c, char bytes[4]);
/* The cluster that begins at offset at < n. */
struct geul_cluster geul_cluster_at(const char *text, size_t n, size_t at);
/* Where the cluster that ends at offset at > 0 begins. */
size_t geul_cluster_before(const char *text, size_t at);
/* Columns of n bytes without control characters. */
int geul_cluster_columns(const char *text, size_t n);

#endif

/* scan.h: hand-written scanners for the split patterns in use. */
#ifndef GEUL_SCAN_H
#define GEUL_SCAN_H

#include "core/context.h"

/* A match of a scanner is [from, to) of a text. Every scanner advances: to > the position it started at. */
enum geul_scanner {
    GEUL_SCANNER_GPT2,  /* GPT-2, GPT-NeoX, Polyglot-Ko */
    GEUL_SCANNER_GPT4,  /* cl100k and Llama 3: up to three digits together */
    GEUL_SCANNER_QWEN2, /* the same with single digits */
    GEUL_SCANNER_WORDS, /* \w+|[^\w\s]+ : leaves white space between its matches */
    GEUL_SCANNER_COUNT
};

/* The scanner that matches exactly what the regular expression does, GEUL_SCANNER_COUNT when there is none. */
enum geul_scanner geul_scanner_find(const char *pattern, size_t length);
/* The pattern of a scanner as tokenizer.json files write it; "" for WORDS, which is a step there, not a pattern. */
const char *geul_scanner_pattern(enum geul_scanner scanner);
/* The first match in [p, end), p < end: true, *from and *to. Any bytes are allowed: a byte that is not part of valid
 * UTF-8 counts as a symbol. */
bool geul_scan(enum geul_scanner scanner, const char *p, const char *end, const char **from, const char **to);
/* The GPT-2 scanner alone, for the inner loop: the end of the match that begins at p (p < end). */
const char *geul_scan_gpt2(const char *p, const char *end);

#endif

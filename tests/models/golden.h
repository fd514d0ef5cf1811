/* golden.h: the tiny GPT-NeoX checkpoints of tests/golden, converted for a test. */
#ifndef GEUL_TESTS_GOLDEN_H
#define GEUL_TESTS_GOLDEN_H

#include "geul_tools.h"
#include "models/session.h"
#include "tests/harness.h"

/* A case of tests/golden/cases.tsv with what transformers computed for it. */
struct golden {
    const char *name;
    bool f32;               /* weights are float32, otherwise 16-bit */
    struct test_npy tokens; /* i32 (T) */
    struct test_npy logits; /* f32 (T, V) */
    struct test_npy greedy; /* i32 (64) */
    int usable;             /* ids that greedy chose from */
};

extern const char *const golden_names[];
extern const int n_goldens;

/* Reads a case; false (and a failed check) when it is damaged. */
bool golden_open(const char *name, struct golden *g);
void golden_close(struct golden *g);
/* Converts the case into a scratch file of the given type and returns its path. */
const char *golden_convert(const struct golden *g, enum geul_type type);
/* The type of the checkpoint's own weights. */
enum geul_type golden_type(const struct golden *g);
/* Largest minus smallest logit of the case. */
double golden_range(const struct golden *g);

#endif

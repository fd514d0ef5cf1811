/* device_models.h: the goldens of transformers on devices of a test's choice. */
#ifndef GEUL_TESTS_DEVICE_MODELS_H
#define GEUL_TESTS_DEVICE_MODELS_H

#include "tests/models/golden.h"
#include "tests/models/rig.h"

/* How a model is divided between the CPU and what `other` opens. */
struct device_division {
    const char *what; /* for messages */
    struct rig_options o;
};

/* Logits of every golden, in its own type of weights: within 1e-4 for float32, and 2e-2 of the logits' range for 16-bit
 * ones, as the CPU's are held to. */
void check_golden_logits(const struct device_division *divisions, int n);
/* The greedy continuation of every golden with float32 weights: a prompt and 63 single tokens. */
void check_golden_texts(const struct device_division *divisions, int n);

#endif

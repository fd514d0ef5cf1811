/* synth.h: models of random numbers. */
#ifndef GEUL_SYNTH_H
#define GEUL_SYNTH_H

#include "convert/neox_config.h"
#include "quantize/mix.h"

/* "1.3b:q4_k_m" or "config.json:f16": the shape and the types of the matrices. */
struct geul_synth {
    struct geul_neox_config config;
    const struct geul_mix *mix;
    char label[64]; /* "1.3b-q8_0", fit for a file name */
};

/* Reads a SIZE:TYPE. false after a message. */
bool geul_synth_parse(struct geul_context *ctx, const char *text, struct geul_synth *out);
/* Whether g holds a model of that shape and those types. */
bool geul_synth_fits(struct geul_context *ctx, const struct geul_synth *synth, const struct geul_gguf *g);
/* Writes the model; the same seed gives the same bytes for every number of threads. Needs little memory. CANCELLED
 * after Ctrl-C. */
enum geul_status geul_synth_write(struct geul_context *ctx, const struct geul_synth *synth, uint64_t seed,
                                  const char *path);

#endif

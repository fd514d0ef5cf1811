/* merge.h: low-rank adapters into the weights they belong to: W' = W + sum of scale * B A. The writing is
 * geul_quantize_write()'s. */
#ifndef GEUL_MERGE_H
#define GEUL_MERGE_H

#include "models/adapter_file.h"
#include "quantize/quantize_plan.h"

struct geul_merge_input {
    const struct geul_adapter_data *data;
    float scale;      /* times what the adapter itself has */
    const char *path; /* for messages */
};

/* What is added to each matrix of a model. */
struct geul_merge;

/* Checks the n adapters against the model at base_path (of a split one the first part). Their data has to outlive the
 * result. NULL on failure; free with geul_merge_free(). */
struct geul_merge *geul_merge_new(struct geul_context *ctx, const char *base_path,
                                  const struct geul_merge_input *inputs, int n);
void geul_merge_free(struct geul_merge *m);
/* Matrices that change, and whether some of those are quantized in the base. */
int geul_merge_matrices(const struct geul_merge *m);
bool geul_merge_is_quantized(const struct geul_merge *m);
/* Makes o write the changed model: its hooks, and the template of the last adapter that brings one. */
void geul_merge_apply(struct geul_merge *m, struct geul_quantize_options *o);

#endif

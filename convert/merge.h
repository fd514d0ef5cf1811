/* merge.h: merging (geul_tools.h) of adapters that are in memory. */
#ifndef GEUL_MERGE_H
#define GEUL_MERGE_H

#include "geul_tools.h"
#include "models/lora.h"
#include "quantize/quantize_tensors.h"

struct geul_merge_lora {
    const struct geul_lora *data;
    float scale;      /* times what the adapter itself has */
    const char *path; /* for messages */
};

/* As geul_merge_new(), from n adapters in memory, which have to outlive the result. */
struct geul_merge *geul_merge_data(struct geul_context *ctx, const char *base_path,
                                   const struct geul_merge_lora *sources, int n);

#endif

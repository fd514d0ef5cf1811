/* adapter.h: low-rank adapters on the devices of a model, where its graph adds them to the products. */
#ifndef GEUL_ADAPTER_H
#define GEUL_ADAPTER_H

#include "models/adapter_file.h"
#include "models/model.h"

struct geul_adapter;

/* An adapter of model without any pair; before model in freeing. NULL (recorded in ctx) when memory is short. */
struct geul_adapter *geul_adapter_new(struct geul_context *ctx, const struct geul_model *model);
void geul_adapter_free(struct geul_adapter *adapter);
/* Puts a pair on the device of its layer: adds scale * B A x to that product. Each product once. The source has to fit
 * the model (geul_adapter_data_fits()); its matrices are copied. */
enum geul_status geul_adapter_set(struct geul_context *ctx, struct geul_adapter *adapter,
                                  const struct geul_adapter_source *source, float scale);

/* geul_model_add_adapter() with data that was read or made elsewhere; it is copied. where is for messages. */
enum geul_status geul_model_attach_adapter(struct geul_context *ctx, struct geul_model *model,
                                           const struct geul_adapter_data *d, float scale, const char *where);

#endif

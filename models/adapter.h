/* adapter.h: low-rank adapters on the devices of a model, where its graph adds them to the products. */
#ifndef GEUL_ADAPTER_H
#define GEUL_ADAPTER_H

#include "models/lora.h"

struct geul_adapter;
struct geul_device;

/* An adapter without any pair for a model of n_layers. Free it before the model whose graph uses it. NULL (recorded in
 * ctx) when memory is short. */
struct geul_adapter *geul_adapter_new(struct geul_context *ctx, int n_layers);
void geul_adapter_free(struct geul_adapter *adapter);
/* Copies a pair to device, where its layer's weights are: scale * B A x is added to that product. Each product once.
 * The pair has to fit the model (geul_lora_check_shape()). */
enum geul_status geul_adapter_add_pair(struct geul_context *ctx, struct geul_adapter *adapter,
                                       struct geul_device *device, const struct geul_lora_pair *pair, float scale);
/* What the graph is built with. Lives as long as adapter. */
const struct geul_neox_adapter *geul_adapter_view(const struct geul_adapter *adapter);

#endif

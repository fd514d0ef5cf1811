/* pickle.h: reading the state dictionaries that torch.save() writes (PyTorch 1.6 and later) without executing anything.
 *
 * A pickle is a program. This reader runs the few instructions that lists of tensors are made of and knows four names:
 * collections.OrderedDict, torch._utils._rebuild_tensor_v2, torch._utils._rebuild_parameter and the storage classes
 * torch.*Storage. Any other name is an error that says which. */
#ifndef GEUL_PICKLE_H
#define GEUL_PICKLE_H

#include "formats/source_tensor.h"

/* Appends the tensors of the checkpoint in [data, data + size) to list; they point into data. name is for messages. */
enum geul_status geul_pickle_read(struct geul_context *ctx, const char *name, const uint8_t *data, size_t size,
                                  struct geul_source_list *list);

#endif

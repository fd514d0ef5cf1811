/* pickle.h: reading the state dictionaries that torch.save() writes, as ZIP archives or in the older form (before
 * PyTorch 1.6), without executing anything.
 *
 * A pickle is a program. This reader runs the few instructions that lists of tensors are made of and knows few names:
 * collections.OrderedDict, torch._utils._rebuild_tensor_v2 and its relatives, the storage classes torch.*Storage and
 * the types. Any other name is an error that says which. */
#ifndef GEUL_PICKLE_H
#define GEUL_PICKLE_H

#include "formats/source_tensor.h"

/* Appends the tensors of the checkpoint in [data, data + size) to list; they point into data. name is for messages. */
enum geul_status geul_pickle_read(struct geul_context *ctx, const char *name, const uint8_t *data, size_t size,
                                  struct geul_source_list *list);

#endif

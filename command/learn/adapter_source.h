/* adapter_source.h: the adapter that a run goes on from. */
#ifndef GEUL_ADAPTER_SOURCE_H
#define GEUL_ADAPTER_SOURCE_H

#include "command/learn/train_args.h"

/* Reads the adapter o->lora.from, a GGUF file or a directory of PEFT, for a model of that shape, and takes its rank,
 * alpha, rslora and targets over into o; options that ask for others are refused by name. One of PEFT becomes
 * DIR/start.gguf in the directory of the run, which o then names (with --plan and --preview: nothing). *template_text:
 * a copy of its template, NULL: none; free with geul_free(). Returns 0, or the exit code after a message. */
int geul_adapter_source_take(struct geul_context *ctx, const struct geul_train_args *args, struct geul_train_options *o,
                             const struct geul_model_shape *shape, char **template_text);

#endif

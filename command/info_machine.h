/* info_machine.h: what `geul info` says about the machine and the build. */
#ifndef GEUL_INFO_MACHINE_H
#define GEUL_INFO_MACHINE_H

#include "core/context.h"

/* Each prints a table or JSON and returns the exit code. */
int geul_info_host(struct geul_context *ctx, bool json);
int geul_info_ops(bool json);
int geul_info_devices(struct geul_context *ctx, bool json);

#endif

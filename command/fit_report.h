/* fit_report.h: --fit, what would lie on which device. */
#ifndef GEUL_FIT_REPORT_H
#define GEUL_FIT_REPORT_H

#include "command/model_args.h"

#include <jansson.h>

enum { GEUL_FIT_DEPTHS_MAX = 32 };

/* Plans the model of args, measures the devices, and prints, with the speed at these depths of the cache (n_depths 0:
 * when it is empty, and when it is full). list NULL: for people. Otherwise the plan is appended to list. Returns the
 * exit code: 1 also when it does not fit. */
int geul_fit_report(const struct geul_model_args *args, const int *depths, int n_depths, json_t *list);
/* The same for a subcommand with one model: prints a document with json. */
int geul_fit_print(const struct geul_model_args *args, bool json);

#endif

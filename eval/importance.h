/* importance.h: collecting an importance matrix through an existing session; geul_tools.h has the rest,
 * quantize/imatrix.h the files. */
#ifndef GEUL_IMPORTANCE_H
#define GEUL_IMPORTANCE_H

#include "geul_tools.h"

/* Names the text that the next tokens come from, for the file; copied. */
enum geul_status geul_importance_add_dataset(struct geul_importance *m, const char *name);

struct geul_importance_run {
    const int32_t *ids;
    size_t n;
    int chunk; /* tokens of one context; the last chunk may be shorter */
    /* At first and after every batch: tokens done and in all. false stops. May be NULL. */
    bool (*on_batch)(void *user, uint64_t done, uint64_t total);
    void *user;
};
/* Adds the inputs of the matrices of the session's model over a text. */
enum geul_status geul_importance_collect(struct geul_importance *m, struct geul_session *s,
                                         const struct geul_importance_run *run);

#endif

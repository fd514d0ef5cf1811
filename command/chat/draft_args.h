/* draft_args.h: the options of speculative decoding, and what they open. */
#ifndef GEUL_DRAFT_ARGS_H
#define GEUL_DRAFT_ARGS_H

#include "command/model_args.h"

/* -md --lookup --draft-max ... */
struct geul_draft_args {
    const char *path; /* of the draft model, NULL: none */
    int n_max, n_min;
    float p_min;
    bool lookup, always;
};
/* The defaults of the library. */
struct geul_draft_args geul_draft_args_default(void);
extern const struct geul_option geul_draft_options[];

/* What they open; all NULL when no speculation is wanted. */
struct geul_drafter {
    struct geul_model *model;
    struct geul_session *session;
    struct geul_speculator *speculator;
};
/* Loads the draft model and starts the speculator for l, adding to its load_seconds. Returns the exit code; after a
 * failure (its message was printed) *out holds nothing. Close with geul_drafter_close(), before l. */
int geul_drafter_open(const struct geul_draft_args *args, const struct geul_model_args *model, struct geul_loaded *l,
                      struct geul_drafter *out);
void geul_drafter_close(struct geul_drafter *d);

#endif

/* windows.h: how a long text is cut into pieces that fit the context, and which of their tokens are scored;
 * geul_tools.h has the methods. */
#ifndef GEUL_WINDOWS_H
#define GEUL_WINDOWS_H

#include "geul_tools.h"

/* Tokens [begin, end) of the text, of which [first, end) are scored. */
struct geul_window {
    size_t begin, end, first;
};

enum { GEUL_WINDOWS_LEAST_CONTEXT = 4 };

/* The windows over n_tokens tokens by a method that is not the default; stride 0: half of n_context; most > 0: only so
 * many windows. Fails when the text is too short or the stride does not fit the context. */
enum geul_status geul_windows_make(struct geul_context *ctx, enum geul_windows_method method, size_t n_tokens,
                                   int n_context, int stride, size_t most, struct geul_windows *out);
/* Window i < n_windows. */
struct geul_window geul_windows_at(const struct geul_windows *w, size_t i);
/* "stride", "llama" */
const char *geul_windows_method_name(enum geul_windows_method method);

/* Tokens that are computed for them: a window's last one predicts nothing that is scored. */
uint64_t geul_windows_work(const struct geul_windows *w);

/* Called while windows are computed; false stops. */
struct geul_windows_callbacks {
    /* The logits that predict token `target` of the text, targets in ascending order; valid during the call. */
    bool (*on_row)(void *user, size_t target, const float *logits, int n_vocab);
    /* After every batch: tokens computed so far, and in all. May be NULL. */
    bool (*on_batch)(void *user, uint64_t done, uint64_t total);
    void *user;
};

/* How many windows fill a batch of n_batch tokens: the number of sequences for a session, at least 1. */
int geul_windows_sequences(const struct geul_windows *w, int n_batch);
/* Computes all windows over ids with as many sequences at once as the session has; its context must hold a window.
 * What the session held is discarded. A callback that stops may leave its reason in the session's context. */
enum geul_status geul_windows_run(struct geul_session *s, const struct geul_windows *w, const int32_t *ids,
                                  const struct geul_windows_callbacks *callbacks);

#endif

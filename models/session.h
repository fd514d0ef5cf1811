/* session.h: what generate.c and eval/ need of a session beyond the public calls. */
#ifndef GEUL_SESSION_H
#define GEUL_SESSION_H

#include "models/model.h"

/* The tokens that sequence seq holds, geul_session_length() of them. */
const int32_t *geul_session_tokens(const struct geul_session *s, int seq);
int geul_session_batch(const struct geul_session *s);
/* From now on evaluations report how far they are, as geul_runtime_watch() says; progress NULL: no longer. */
void geul_session_watch(struct geul_session *s, void (*progress)(void *user, int done, int total), void *user);
int geul_session_sequences(const struct geul_session *s);

/* Receives the input of a product with a weight: n_rows rows of n_cols floats, valid during the call. The rows are
 * tokens of the batch; for the output matrix only those whose logits are wanted. false stops the evaluation. */
typedef bool (*geul_session_observer)(void *user, const char *weight, const float *rows, int n_rows, int n_cols);
/* From now on every evaluation shows the inputs of all products to observer; NULL ends that. They take memory for all
 * layers at once, geul_session_observed_floats() per token of a batch, instead of for one layer. */
void geul_session_observe(struct geul_session *s, geul_session_observer observer, void *user);
/* Floats per token that an observed batch keeps. */
size_t geul_session_observed_floats(const struct geul_model_shape *shape);

#endif

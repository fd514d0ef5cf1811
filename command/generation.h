/* generation.h: what complete and chat share: a prompt's ids, and a generation's timings. */
#ifndef GEUL_GENERATION_H
#define GEUL_GENERATION_H

#include "command/model_args.h"

#include <jansson.h>

/* The ids of a prompt; an empty one gives the end token, after which texts begin. */
struct geul_ids {
    int32_t *data;
    size_t n;
};
/* false with the reason in l->ctx. Free with geul_ids_free(). */
bool geul_ids_of_text(struct geul_loaded *l, const char *text, size_t length, struct geul_ids *ids);
void geul_ids_free(struct geul_loaded *l, struct geul_ids *ids);
/* Brings the malloc()ed text that a user wrote into NFC where that applies. false after a message. */
bool geul_nfc_prompt(struct geul_loaded *l, enum geul_nfc nfc, char **text, size_t *length);
/* geul_generate_ids(), which refuses prompts longer than the session, with a message that names -c. */
enum geul_status geul_ids_generate(struct geul_loaded *l, const struct geul_ids *ids, const struct geul_generation *how,
                                   struct geul_generation_result *r);

/* For on_prompt: draws the progress, stops on Ctrl-C. */
bool geul_generation_prompt(void *user, int done, int total);
/* "end_token" and so on. */
const char *geul_stop_reason_name(enum geul_stop_reason reason);
/* Seconds, tokens and tokens per second. */
json_t *geul_generation_timings(double load_seconds, const struct geul_generation_result *r);
/* The same as one line on stderr. */
void geul_generation_print_timings(double load_seconds, const struct geul_generation_result *r);

#endif

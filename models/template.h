/* template.h: the parts of a prompt template, for training samples, where what users wrote must not be mistaken for
 * what the template says. */
#ifndef GEUL_TEMPLATE_H
#define GEUL_TEMPLATE_H

#include "core/context.h"
#include "geul.h"

/* Takes the next n bytes of a text; own: they are the template's, not the users'. false stops. */
typedef bool (*geul_template_sink)(void *user, const char *s, size_t n, bool own);

/* Hands over the prompt of one turn, up to where its answer goes: what geul_template_apply() makes of it. input may be
 * NULL. false when put stopped. */
bool geul_template_put_prompt(const struct geul_template *t, const char *question, const char *input,
                              geul_template_sink put, void *user);
/* Whether the template has a place for an input; one without leaves inputs out. */
bool geul_template_takes_input(const struct geul_template *t);
/* What stands between a prompt and a finished answer, and after that answer. */
const char *geul_template_gap(const struct geul_template *t);
const char *geul_template_end(const struct geul_template *t);

#endif

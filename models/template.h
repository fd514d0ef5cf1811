/* template.h: the parts of a prompt template, for training samples, where what users wrote must not be mistaken for
 * what the template says. */
#ifndef GEUL_TEMPLATE_H
#define GEUL_TEMPLATE_H

#include "core/context.h"
#include "geul.h"

/* Takes the next n bytes of a text; own: they are the template's, not the users'. false stops. */
typedef bool (*geul_template_sink)(void *user, const char *s, size_t n, bool own);

/* Passes the prompt of one turn, up to where its answer goes, to put, as geul_template_apply() writes it. input may be
 * NULL. false when put stopped. */
bool geul_template_put_prompt(const struct geul_template *t, const char *question, const char *input,
                              geul_template_sink put, void *user);
/* Whether the template takes an input; one that does not leaves inputs out. */
bool geul_template_takes_input(const struct geul_template *t);
/* A finished answer of *length bytes without the white space at both ends, which is the template's to set; *length
 * becomes what is left. */
const char *geul_template_trim(const char *answer, size_t *length);
/* The text between a prompt and a finished answer, and after that answer. */
const char *geul_template_gap(const struct geul_template *t);
const char *geul_template_end(const struct geul_template *t);

#endif

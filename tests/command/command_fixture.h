/* command_fixture.h: what the tests of the command share. */
#ifndef GEUL_TESTS_COMMAND_FIXTURE_H
#define GEUL_TESTS_COMMAND_FIXTURE_H

#include "tests/harness.h"

#include <jansson.h>

/* Path of the golden `full`, converted to float32 in this test's scratch directory; NULL after a failed check. */
const char *fixture_model(void);
/* Whether s is whole, valid UTF-8. */
bool fixture_is_utf8(const char *s, size_t n);
/* Checks the exit code, that stderr is exactly one line that begins with begins and holds holds, and that stdout is
 * empty; frees r. */
void fixture_fails(struct test_run r, int status, const char *begins, const char *holds);
/* Checks exit code 0 and parses stdout as JSON; frees r. NULL after a failed check. Free with json_decref(). */
json_t *fixture_json(struct test_run r);

#endif

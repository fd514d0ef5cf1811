/* command_fixture.c: what the tests of the command share. */
#include "tests/command/command_fixture.h"

const char *fixture_model(void)
{
    static char path[1024];
    snprintf(path, sizeof path, "%s", test_scratch("full.gguf"));
    struct test_run r = GEUL("convert", test_path("golden/full"), "-o", path, "--type", "f32");
    bool ok = CHECK_MSG(r.status == 0, "convert: %s", r.err);
    test_run_free(&r);
    return ok ? path : NULL;
}

bool fixture_is_utf8(const char *s, size_t n)
{
    const unsigned char *p = (const unsigned char *)s;
    for (size_t i = 0; i < n;) {
        size_t more = p[i] < 0x80 ? 0 : p[i] >= 0xf0 ? 3 : p[i] >= 0xe0 ? 2 : 1;
        if ((p[i] >= 0x80 && p[i] < 0xc2) || p[i] > 0xf4 || more > n - i - 1)
            return false;
        for (size_t k = 1; k <= more; k++)
            if ((p[i + k] & 0xc0) != 0x80)
                return false;
        i += more + 1;
    }
    return true;
}

void fixture_fails(struct test_run r, int status, const char *begins, const char *holds)
{
    CHECK_MSG(r.status == status, "exit code %d, expected %d; stderr: %s", r.status, status, r.err);
    CHECK_MSG(r.out_length == 0, "stdout is not empty: %s", r.out);
    const char *newline = strchr(r.err, '\n');
    CHECK_MSG(newline && newline[1] == '\0', "stderr is not one line: %s", r.err);
    CHECK_MSG(strncmp(r.err, begins, strlen(begins)) == 0, "stderr \"%s\" does not begin with \"%s\"", r.err, begins);
    CHECK_MSG(strstr(r.err, holds), "stderr \"%s\" does not hold \"%s\"", r.err, holds);
    test_run_free(&r);
}

json_t *fixture_json(struct test_run r)
{
    json_error_t error;
    json_t *json = NULL;
    if (CHECK_MSG(r.status == 0, "exit code %d; stderr: %s", r.status, r.err)) {
        json = json_loadb(r.out, r.out_length, 0, &error);
        CHECK_MSG(json, "not JSON: %s in %s", error.text, r.out);
    }
    test_run_free(&r);
    return json;
}

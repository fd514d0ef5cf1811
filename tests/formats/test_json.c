/* test_json.c: JSON as Python's json module reads it. The values on the right are Python's: repr(json.loads(text)). */
#include "tests/harness.h"

#include "formats/json_file.h"
#include "formats/json_text.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define BYTES(s) s, sizeof(s) - 1

static const struct {
    const char *text;
    size_t size;
    const char *odd; /* of the first value of the array; NULL: value is its value */
    double value;
} values[] = {
    {BYTES("[NaN]"), "NaN", 0},
    {BYTES("[Infinity]"), "Infinity", 0},
    {BYTES("[-Infinity]"), "-Infinity", 0},
    {BYTES("[ NaN , 1]"), "NaN", 0},
    {BYTES("\xef\xbb\xbf[5]"), NULL, 5},
    {BYTES("[0]"), NULL, 0},
    {BYTES("[-0]"), NULL, 0},
    {BYTES("[9223372036854775807]"), NULL, 9223372036854775807.0},
    {BYTES("[9223372036854775808]"), NULL, 9223372036854775808.0},
    {BYTES("[-9223372036854775808]"), NULL, -9223372036854775808.0},
    {BYTES("[-9223372036854775809]"), NULL, -9223372036854775809.0},
    {BYTES("[1000000000000000019884624838656]"), NULL, 1e30},
    {BYTES("[-123456789012345678901234567890]"), NULL, -1.2345678901234568e29},
    {BYTES("[1e308]"), NULL, 1e308},
    {BYTES("[1.7976931348623157e308]"), NULL, 1.7976931348623157e308},
    {BYTES("[17976931348623157.0E+292]"), NULL, 1.7976931348623157e308},
    {BYTES("[1.7976931348623158e308]"), NULL, 1.7976931348623157e308}, /* rounds down, as Python's does */
    {BYTES("[1.7976931348623159e308]"), "a number beyond double", 0},
    {BYTES("[1e309]"), "a number beyond double", 0},
    {BYTES("[-1E400]"), "a number beyond double", 0},
    {BYTES("[1e99999999999999999999999]"), "a number beyond double", 0},
    {BYTES("[0e99999999999999999999999]"), NULL, 0},
    {BYTES("[0.0e400]"), NULL, 0},
    {BYTES("[1e-400]"), NULL, 0},
    {BYTES("[1e-99999999999999999999999]"), NULL, 0},
    {BYTES("[0.000000000000000000001e330]"), "a number beyond double", 0},
    {BYTES("[0.000000000000000000000000001e330]"), NULL, 1e303},
    {BYTES("[\"\\ud800\"]"), "broken Unicode (half a surrogate pair)", 0},
    {BYTES("[\"x\\udc00\\ud83d y\"]"), "broken Unicode (half a surrogate pair)", 0},
    {BYTES("[\"\\ud83d\\n\"]"), "broken Unicode (half a surrogate pair)", 0},
};

static bool is_value(const json_t *v, const char *odd, double value)
{
    const char *is = geul_json_oddity(v);
    bool same = json_number_value(v) <= value && json_number_value(v) >= value;
    return odd ? is && strcmp(is, odd) == 0 : !is && json_is_number(v) && same;
}

TEST(json_values_are_those_that_python_reads)
{
    for (size_t i = 0; i < sizeof values / sizeof *values; i++) {
        struct geul_context *ctx = geul_context_new(NULL);
        json_t *json = geul_json_parse(ctx, "a.json", values[i].text, values[i].size);
        CHECK_MSG(json && is_value(json_array_get(json, 0), values[i].odd, values[i].value), "%s: %s", values[i].text,
                  geul_error(ctx));
        json_decref(json);
        geul_context_free(ctx);
    }
}

/* A number of n digits; Python's is whole, and beyond double from 309 or 310 digits on. */
TEST(json_long_numbers)
{
    static char text[20000];
    static const struct {
        int digits;
        char first;
        bool beyond;
    } cases[] = {{308, '9', false}, {309, '1', false}, {309, '2', true}, {310, '1', true}, {19000, '1', true}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct geul_context *ctx = geul_context_new(NULL);
        memset(text, '0', sizeof text);
        text[0] = '[';
        text[1] = cases[i].first;
        text[cases[i].digits + 1] = ']';
        json_t *json = geul_json_parse(ctx, "a.json", text, (size_t)cases[i].digits + 2);
        const json_t *v = json_array_get(json, 0);
        CHECK(v && (geul_json_oddity(v) != NULL) == cases[i].beyond);
        CHECK(cases[i].beyond ||
              fabs(json_real_value(v) / ((cases[i].first - '0') * pow(10, cases[i].digits - 1)) - 1) < 1e-12);
        json_decref(json);
        geul_context_free(ctx);
    }
}

TEST(json_texts_and_keys_stay_what_they_are)
{
    static const char text[] =
        "{\"a\":1,\"NaN\":\"-Infinity\",\"n\":\"1e999 \\\" NaN\",\"\\ud83d\\ude00\":\"\\\\ud800\",\"a\":2,\n"
        " \"half\\ud83d\" : 3, \"zero\\u0000\":4, \"z\":\"\\u0000\", \"deep\":[[{\"x\":Infinity}]]}";
    struct geul_context *ctx = geul_context_new(NULL);
    json_t *json = geul_json_parse(ctx, "a.json", BYTES(text));
    if (CHECK(json != NULL)) {
        CHECK_INT(json_integer_value(json_object_get(json, "a")), 2);
        CHECK_STR(json_string_value(json_object_get(json, "NaN")), "-Infinity");
        CHECK_STR(json_string_value(json_object_get(json, "n")), "1e999 \" NaN");
        CHECK_STR(json_string_value(json_object_get(json, "\xf0\x9f\x98\x80")), "\\ud800");
        CHECK_INT(json_integer_value(json_object_get(json, "half\xef\xbf\xbd")), 3);
        CHECK_INT(json_integer_value(json_object_get(json, "zero\xef\xbf\xbd")), 4);
        CHECK_INT((int)json_string_length(json_object_get(json, "z")), 1);
        const json_t *inner = json_array_get(json_array_get(json_object_get(json, "deep"), 0), 0);
        CHECK_STR(geul_json_oddity(json_object_get(inner, "x")), "Infinity");
        CHECK(!geul_json_oddity(inner) && !geul_json_oddity(json) && !geul_json_oddity(NULL));
    }
    json_decref(json);
    geul_context_free(ctx);
}

/* What Python refuses too, with the place in the file rather than in what jansson is given. */
TEST(json_refuses_what_python_refuses)
{
    static const struct {
        const char *text, *message;
    } cases[] = {
        {"[NaN, Infinity, nan]", "(line 1, column 19)"},
        {"[NaN,\n \"가\", 1e999, +1]", "(line 2, column 14)"},
        {"[1000000000000000019884624838656, 01]", "(line 1, column 36)"},
        {"{NaN: 1}", "(line 1"},
        {"[-NaN]", "not valid JSON"},
        {"[+Infinity]", "not valid JSON"},
        {"[NaN]]", "end of file expected"},
        {"[NaN", "']' expected"},
        {"[Infinit]", "not valid JSON"},
        {"[01e999]", "not valid JSON"},
        {"[1.e999]", "not valid JSON"},
        {"[-]", "not valid JSON"},
        {"[\"\\ud800", "not valid JSON"},
        {"[\"\\ud8", "not valid JSON"},
        {"[\"\\", "not valid JSON"},
        {"\xef\xbb\xbf", "not valid JSON"},
        {"[\"\xff\", NaN]", "not valid JSON"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct geul_context *ctx = geul_context_new(NULL);
        json_t *json = geul_json_parse(ctx, "a.json", cases[i].text, strlen(cases[i].text));
        CHECK_MSG(!json && strstr(geul_error(ctx), cases[i].message), "%s: %s", cases[i].text, geul_error(ctx));
        json_decref(json);
        geul_context_free(ctx);
    }
}

TEST(json_settings_that_are_no_numbers_are_refused_by_name)
{
    static const char text[] = "{\"int\":NaN,\"real\":1e999,\"bool\":Infinity,\"string\":\"\\udead\",\"big\":"
                               "1000000000000000019884624838656}";
    struct geul_context *ctx = geul_context_new(NULL);
    json_t *json = geul_json_parse(ctx, "a.json", BYTES(text));
    int64_t n;
    double d;
    bool b;
    const char *s;
    CHECK(!geul_json_int(ctx, "a.json", json, "int", 0, 9, &n));
    CHECK_STR(geul_error(ctx), "a.json: \"int\" is NaN; it must be a whole number from 0 to 9");
    geul_error_clear(ctx);
    CHECK(!geul_json_real(ctx, "a.json", json, "real", 0, 9, &d));
    CHECK_STR(geul_error(ctx), "a.json: \"real\" is a number beyond double; it must be a number from 0 to 9");
    geul_error_clear(ctx);
    CHECK(!geul_json_bool(ctx, "a.json", json, "bool", &b));
    CHECK_STR(geul_error(ctx), "a.json: \"bool\" is Infinity; it must be true or false");
    geul_error_clear(ctx);
    CHECK(!geul_json_string(ctx, "a.json", json, "string", &s));
    CHECK_STR(geul_error(ctx), "a.json: \"string\" is broken Unicode (half a surrogate pair); it must be a string");
    geul_error_clear(ctx);
    CHECK(!geul_json_int(ctx, "a.json", json, "big", 0, 9, &n));
    CHECK_STR(geul_error(ctx), "a.json: \"big\" must be a whole number from 0 to 9");
    json_decref(json);
    geul_context_free(ctx);
}

/* What export writes back of a kept config.json. */
TEST(json_odd_values_are_written_as_they_were_read)
{
    static const char text[] = "{\"a\":NaN,\"b\":[-Infinity,{\"\177geul\":1},1e999,{\"Infinity\":Infinity}],"
                               "\"c\":\"\\\\\\\"\\ud800\",\"d\":\"{\\\"NaN\"}";
    struct geul_context *ctx = geul_context_new(NULL);
    const char *path = test_scratch("a.json");
    json_t *json = geul_json_parse(ctx, "a.json", BYTES(text));
    REQUIRE(json != NULL);
    char *compact = geul_json_encode(json, JSON_COMPACT | JSON_ENSURE_ASCII);
    CHECK_STR(compact, text);
    free(compact);
    CHECK(geul_json_save(ctx, path, json, true) == GEUL_OK);
    json_decref(json);
    size_t size;
    char *saved = test_slurp(path, &size);
    CHECK(saved && strstr(saved, "\n  \"a\": NaN,\n") && strstr(saved, "\n      \"Infinity\": Infinity\n"));
    free(saved);
    geul_context_free(ctx);
}

TEST(json_survives_every_failing_allocation)
{
    static const char text[] = "{\"a\":NaN,\"b\":[1e999,{\"c\":-Infinity}]}";
    struct test_shortage s = {.most = 100};
    while (test_shortage_next(&s)) {
        json_t *json = geul_json_parse(s.ctx, "a.json", BYTES(text));
        s.ok = json != NULL;
        json_decref(json);
    }
}

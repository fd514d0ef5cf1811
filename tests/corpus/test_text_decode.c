/* test_text_decode.c: texts in the encodings and with the line ends that people have. Expected bytes are those of
 * Python's codecs and of open(..., newline=None). */
#include "tests/harness.h"

#include "core/context.h"
#include "geul_tools.h"

#define BYTES(s) s, sizeof s - 1

TEST(text_decode_drops_marks_and_returns)
{
    static const struct {
        const char *bytes;
        size_t size;
        const char *text;
    } cases[] = {
        {BYTES("안녕\r\n"), "안녕\n"}, {BYTES("\xef\xbb\xbf안녕\r\n\r\n둘\n"), "안녕\n\n둘\n"},
        {BYTES("\xef\xbb\xbf"), ""},   {BYTES(""), ""},
        {BYTES("a\rb\r"), "a\rb\r"},                                    /* a CR alone ends no line */
        {BYTES("\r\r\n"), "\r\n"},     {BYTES("\xff\x01"), "\xff\x01"}, /* not UTF-8, and no telling what */
    };
    struct geul_context *ctx = geul_context_new(NULL);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        size_t n = 99;
        char *text = geul_text_decode(ctx, cases[i].bytes, cases[i].size, "t", NULL, &n);
        REQUIRE(CHECK_MSG(text, "case %zu: %s", i, geul_error(ctx)));
        CHECK_STR(text, cases[i].text);
        CHECK_INT(n, strlen(cases[i].text));
        geul_text_free(ctx, text);
    }
    geul_context_free(ctx);
}

/* "안녕하세요\n", "{"a": "가나"}" and "ABC" in the encodings that are told apart. */
static const struct {
    const char *bytes;
    size_t size;
    const char *encoding, *text;
} encoded[] = {
    {BYTES("\xff\xfe\x48\xc5\x55\xb1\x0a\x00"), "utf-16le", "안녕\n"},
    {BYTES("\xfe\xff\xc5\x48\xb1\x55\x00\x0a"), "utf-16be", "안녕\n"},
    {BYTES("\x48\xc5\x55\xb1\x0a\x00"), "utf-16le", "안녕\n"},
    {BYTES("\xc5\x48\xb1\x55\x00\x0d\x00\x0a"), "utf-16be", "안녕\n"},
    {BYTES("{\0\"\0a\0\"\0:\0\x00\xac\x98\xb0}\0"), "utf-16le", "{\"a\":가나}"},
    {BYTES("\0A\0B\0C"), "utf-16be", "ABC"},
    {BYTES("\xff\xfe\0\0\x48\xc5\0\0"), "utf-32le", "안"},
    {BYTES("\0\0\xfe\xff\0\0\xc5\x48"), "utf-32be", "안"},
    {BYTES("\xbe\xc8\xb3\xe7\xc7\xcf\xbc\xbc\xbf\xe4\n"), "cp949", "안녕하세요\n"},
    {BYTES("Q,A\r\n\xc4\xa1\xc5\xb2,\xb8\xc0\x8c\x63\r\n"), "cp949", "Q,A\n치킨,맛똠\n"}, /* C4 A1 is UTF-8 too */
};

TEST(text_decode_names_other_encodings)
{
    struct geul_context *ctx = geul_context_new(NULL);
    for (size_t i = 0; i < sizeof encoded / sizeof *encoded; i++) {
        size_t n;
        const char *guess = geul_text_guess_encoding(encoded[i].bytes, encoded[i].size);
        CHECK_MSG(guess && strcmp(guess, encoded[i].encoding) == 0, "case %zu: %s", i, guess ? guess : "none");
        CHECK(!geul_text_decode(ctx, encoded[i].bytes, encoded[i].size, "a.txt", NULL, &n));
        CHECK(geul_error_status(ctx) == GEUL_ERROR_FORMAT);
        CHECK_MSG(strncmp(geul_error(ctx), "a.txt is ", 9) == 0 && strstr(geul_error(ctx), encoded[i].encoding) &&
                      strstr(geul_error(ctx), "iconv -f"),
                  "%s", geul_error(ctx));
    }
    geul_context_free(ctx);
}

TEST(text_decode_reads_other_encodings)
{
    struct geul_context *ctx = geul_context_new(NULL);
    for (size_t i = 0; i < sizeof encoded / sizeof *encoded; i++) {
        size_t n;
        char *text = geul_text_decode(ctx, encoded[i].bytes, encoded[i].size, "a.txt", encoded[i].encoding, &n);
        if (!text && strstr(geul_error(ctx), "there is no encoding")) {
            test_skip("this system's iconv lacks %s", encoded[i].encoding);
            break;
        }
        REQUIRE(CHECK_MSG(text, "case %zu: %s", i, geul_error(ctx)));
        CHECK_STR(text, encoded[i].text);
        geul_text_free(ctx, text);
    }
    geul_context_free(ctx);
}

TEST(text_decode_says_what_is_wrong)
{
    struct geul_context *ctx = geul_context_new(NULL);
    size_t n;
    CHECK(!geul_text_decode(ctx, "a", 1, "a.txt", "no-such", &n) && geul_error_status(ctx) == GEUL_ERROR_ARGUMENT);
    CHECK_MSG(strstr(geul_error(ctx), "a.txt") && strstr(geul_error(ctx), "no-such"), "%s", geul_error(ctx));
    CHECK(!geul_text_decode(ctx, BYTES("a\0\0\xd8"), "a.txt", "utf-16le", &n));
    CHECK_MSG(strstr(geul_error(ctx), "a.txt: byte 3 is not utf-16le"), "%s", geul_error(ctx));
    geul_context_free(ctx);
}

/* Korean in UTF-8, whole or cut anywhere, is never taken for another encoding. */
TEST(text_guess_knows_utf8)
{
    static const char text[] = "가나다라 마바사 아자차카타파하 뷁 똠방각하 漢字 かな, ASCII 그리고 😀 이모지. 거 걱 걲";
    for (size_t from = 0; from < sizeof text - 1; from++)
        for (size_t to = from + 1; to < sizeof text; to++) {
            const char *guess = geul_text_guess_encoding(text + from, to - from);
            CHECK_MSG(!guess || to - from < 8, "bytes %zu to %zu: %s", from, to, guess ? guess : "");
        }
    CHECK(!geul_text_guess_encoding("", 0) && !geul_text_guess_encoding("a\0b", 3));
}

TEST(text_decode_survives_every_failing_allocation)
{
    struct test_shortage s = {.most = 20};
    while (test_shortage_next(&s)) {
        size_t n;
        char *text = geul_text_decode(s.ctx, encoded[0].bytes, encoded[0].size, "t", "utf-16", &n);
        s.ok = text != NULL;
        geul_text_free(s.ctx, text);
    }
}

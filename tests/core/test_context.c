/* Contexts: memory that may fail, the arena, the first error; and structs that begin with their size. */
#include "core/context.h"
#include "tests/harness.h"

TEST(context_keeps_the_first_error)
{
    struct geul_context *ctx = geul_context_new(NULL);
    REQUIRE(ctx);
    CHECK_STR(geul_error(ctx), "");
    CHECK_INT(geul_fail(ctx, GEUL_ERROR_IO, "disk %d", 7), GEUL_ERROR_IO);
    geul_fail(ctx, GEUL_ERROR_MEMORY, "later");
    CHECK_STR(geul_error(ctx), "disk 7");
    CHECK_INT(geul_error_status(ctx), GEUL_ERROR_IO);
    struct geul_context *other = geul_context_new_like(ctx);
    REQUIRE(other);
    CHECK_INT(geul_fail_from(other, ctx), GEUL_ERROR_IO);
    CHECK_STR(geul_error(other), "disk 7");
    geul_error_clear(ctx);
    CHECK_STR(geul_error(ctx), "");
    geul_context_free(other);
    geul_context_free(ctx);
}

TEST(context_alloc_is_aligned_zeroed_and_bounded)
{
    struct geul_context *ctx = geul_context_new(NULL);
    REQUIRE(ctx);
    for (size_t n = 0; n < 300; n += 37) {
        unsigned char *p = geul_alloc(ctx, n, 1);
        REQUIRE(p);
        CHECK_INT((uintptr_t)p % 64, 0);
        for (size_t i = 0; i < n; i++)
            if (p[i])
                CHECK_MSG(false, "byte %zu of %zu is not zero", i, n);
        memset(p, 0xee, n);
        unsigned char *q = geul_realloc(ctx, p, n + 100, 1);
        REQUIRE(q);
        CHECK(n == 0 || (q[0] == 0xee && q[n - 1] == 0xee));
        geul_free(ctx, q);
    }
    CHECK(geul_alloc(ctx, SIZE_MAX / 2, 4) == NULL);
    CHECK_INT(geul_error_status(ctx), GEUL_ERROR_MEMORY);
    geul_context_free(ctx);
}

TEST(context_arena_is_reused_after_reset)
{
    struct test_allocator a = {0};
    struct geul_context *ctx =
        geul_context_new(&(struct geul_context_options){.allocate = test_allocate, .allocate_user = &a});
    REQUIRE(ctx);
    long calls = 0;
    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < 1000; i++) {
            char *p = geul_arena(ctx, 1, (size_t)(i % 500) + 1);
            REQUIRE(p);
            CHECK_INT((uintptr_t)p % 16, 0);
            if (p[0] || p[i % 500])
                CHECK_MSG(false, "arena memory is not zeroed");
            memset(p, 1, (size_t)(i % 500) + 1);
        }
        REQUIRE(geul_arena(ctx, 1, 9 << 20)); /* larger than any chunk */
        if (round == 0)
            calls = a.calls;
        CHECK_INT(a.calls, calls); /* later rounds find their memory */
        geul_context_reset(ctx);
    }
    geul_context_free(ctx);
    CHECK_INT(a.outstanding, 0);
}

static void remember_line(void *user, enum geul_log_level level, const char *text)
{
    snprintf(user, 64, "%d %s", (int)level, text);
}

TEST(context_logs_through_the_callback_only)
{
    char line[64] = "";
    struct geul_context *ctx = geul_context_new(&(struct geul_context_options){.log = remember_line, .log_user = line});
    REQUIRE(ctx);
    geul_log(ctx, GEUL_LOG_WARN, "the end token is %d", 2);
    CHECK_STR(line, "2 the end token is 2");
    geul_context_free(ctx);
}

/* What messages do to text out of files. */
TEST(context_messages_are_printable)
{
    static const struct {
        const char *text, *shown;
    } cases[] = {
        {"한글 abc ~", "한글 abc ~"},
        {"\033[31m빨강\033[0m", "?[31m빨강?[0m"},
        {"a\tb\r\n\177", "a?b???"},
        {"\xc2\x80\xc2\x9b\xc2\x9f\xc2\xa0", "???\xc2\xa0"},          /* C1, then a no-break space */
        {"\xe2\x80\xae\xe2\x81\xa6\xe2\x80\xa8\xe2\x80\xa6", "???…"}, /* RLO, LRI, a line separator */
        {"\x9b"
         "31m \xff \xc0\x80 \xed\xa0\x80 \xf4\x90\x80\x80",
         "?31m ? ?? ??? ????"}, /* not UTF-8 */
        {"😀 👩\xe2\x80\x8d💻", "😀 👩\xe2\x80\x8d💻"},
        {"\xea\xb8", ""}, /* cut within a character, as a message that was too long is */
    };
    char line[64] = "", small[8];
    struct geul_context *ctx = geul_context_new(&(struct geul_context_options){.log = remember_line, .log_user = line});
    REQUIRE(ctx);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        geul_fail(ctx, GEUL_ERROR_IO, "%s", cases[i].text);
        CHECK_STR(geul_error(ctx), cases[i].shown);
        geul_log(ctx, GEUL_LOG_WARN, "%s", cases[i].text);
        CHECK_STR(line + 2, cases[i].shown);
        geul_error_clear(ctx);
    }
    CHECK_STR(geul_printable("가나다", small, sizeof small), "가나"); /* 7 bytes: whole characters only */
    geul_context_free(ctx);
}

/* A struct of the public interface: a program's may be shorter (older) or longer (newer) than the library's. */
struct example {
    size_t size;
    int a, b;
    double c;
};

TEST(context_takes_structs_of_older_programs)
{
    struct geul_context *ctx = geul_context_new(NULL);
    struct example in = {offsetof(struct example, c), 1, 2, 3}, out;
    CHECK(geul_take_struct(ctx, &out, sizeof out, &in, "example") == GEUL_OK);
    CHECK(out.size == sizeof out && out.a == 1 && out.b == 2 && out.c == 0);
    CHECK(geul_take_struct(ctx, &out, sizeof out, NULL, "example") == GEUL_OK);
    CHECK(out.size == sizeof out && out.a == 0);
    in.size = (size_t)1 << 40; /* never set: whatever lay there */
    CHECK(geul_take_struct(ctx, &out, sizeof out, &in, "example") == GEUL_ERROR_ARGUMENT);
    geul_error_clear(ctx);
    in.size = 0;
    CHECK(geul_take_struct(ctx, &out, sizeof out, &in, "example") == GEUL_ERROR_ARGUMENT);
    CHECK(strstr(geul_error(ctx), "struct example"));
    geul_context_free(ctx);
}

TEST(context_takes_structs_of_newer_programs_where_they_ask_for_nothing_new)
{
    struct geul_context *ctx = geul_context_new(NULL);
    struct {
        struct example known;
        int64_t unknown;
    } newer = {{sizeof newer, 1, 2, 3}, 0};
    struct example out;
    CHECK(geul_take_struct(ctx, &out, sizeof out, &newer, "example") == GEUL_OK);
    CHECK(out.size == sizeof out && out.c == 3);
    newer.unknown = 1;
    CHECK(geul_take_struct(ctx, &out, sizeof out, &newer, "example") == GEUL_ERROR_ARGUMENT);
    geul_context_free(ctx);
}

TEST(context_gives_structs_as_far_as_their_size)
{
    struct example ours = {sizeof ours, 1, 2, 3}, theirs = {offsetof(struct example, b), -1, -1, -1};
    geul_give_struct(&theirs, &ours, sizeof ours);
    CHECK(theirs.size == offsetof(struct example, b) && theirs.a == 1 && theirs.b == -1 && theirs.c == -1);
    theirs.size = sizeof theirs;
    geul_give_struct(&theirs, &ours, sizeof ours);
    CHECK(theirs.b == 2 && theirs.c == 3);
}

/* Of a result only the size is read: what a newer program's struct has behind is left as it was. */
TEST(context_gives_structs_that_have_nothing_but_a_size)
{
    struct geul_context *ctx = geul_context_new(NULL);
    struct example theirs[2];
    memset(theirs, 0xa5, sizeof theirs);
    theirs[0].size = sizeof theirs;
    CHECK(geul_check_struct(ctx, theirs, "example") == GEUL_OK && geul_check_struct(ctx, NULL, "example") == GEUL_OK);
    struct example ours = {sizeof ours, 1, 2, 3};
    geul_give_struct(theirs, &ours, sizeof ours);
    CHECK(theirs[0].size == sizeof theirs && theirs[0].a == 1 && theirs[0].c == 3);
    CHECK(theirs[1].size == 0xa5a5a5a5a5a5a5a5u);
    CHECK(geul_check_struct(ctx, &theirs[1], "example") == GEUL_ERROR_ARGUMENT);
    geul_context_free(ctx);
}

/* test_shard_set.c: lists of token shards that are complete, broken off, damaged and hostile. */
#include "data/shard_set.h"
#include "tests/harness.h"

#define HEAD GEUL_SHARD_SET_HEAD

TEST(shard_set_lists)
{
    static const struct {
        const char *text;
        uint64_t number, bytes;
        const char *holds; /* of the message; NULL: fine */
    } cases[] = {
        {HEAD "files 2\n8 tokens, 56 bytes\n3 tokens, 46 bytes\ncomplete\n", 0, 56, NULL},
        {HEAD "files 2\n8 tokens, 56 bytes\n3 tokens, 46 bytes\ncomplete\n", 1, 46, NULL},
        {HEAD "files 2\n8 tokens, 56 bytes\n3 tokens, 46 bytes\ncomplete\n", 1, 44,
         "was written with 46 bytes and has 44"},
        {HEAD "files 2\n8 tokens, 56 bytes\n3 tokens, 46 bytes\ncomplete\n", 2, 46, "lists 2 shards"},
        {HEAD, 0, 56, "not complete"},
        {"", 0, 56, "damaged"},
        {HEAD "files 2\n8 tokens, 56 bytes\n", 0, 56, "damaged"},
        {HEAD "files 2\n8 tokens, 56 bytes\n3 tokens, 46 bytes\n", 0, 56, "damaged"},
        {HEAD "files 2\n8 tokens, 56 bytes\n3 tokens, 46 bytes\ncomplete\nmore", 0, 56, "damaged"},
        {HEAD "files 99999999999999999999\ncomplete\n", 0, 56, "damaged"},
        {HEAD "files -1\ncomplete\n", 0, 56, "damaged"},
        {HEAD "files 0\ncomplete\n", 0, 56, "lists 0 shards"},
    };
    struct geul_context *ctx = geul_context_new(NULL);
    uint64_t n, next;
    REQUIRE(ctx);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        geul_error_clear(ctx);
        enum geul_status status = geul_shard_set_find(ctx, "c.geulset", cases[i].text, strlen(cases[i].text),
                                                      cases[i].number, cases[i].bytes, &n, &next);
        CHECK_MSG((status == GEUL_OK) == !cases[i].holds, "case %zu: %s", i, geul_error(ctx));
        CHECK_MSG(!cases[i].holds || (strstr(geul_error(ctx), cases[i].holds) && strstr(geul_error(ctx), "c.geulset")),
                  "case %zu: %s", i, geul_error(ctx));
        if (status == GEUL_OK)
            CHECK(n == 2 && next == (cases[i].number ? 56 : 46));
    }
    const char *whole = cases[0].text;
    for (size_t size = 0; size < strlen(whole); size++) /* every truncation is noticed */
        CHECK(geul_shard_set_find(ctx, "c", whole, size, 0, 56, &n, &next) != GEUL_OK);
    geul_context_free(ctx);
}

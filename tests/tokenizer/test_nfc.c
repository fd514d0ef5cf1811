/* test_nfc.c: the composed form of what users write (geul.h). Expected texts are those of Python's unicodedata. */
#include "tests/harness.h"

#include <geul_tools.h>

TEST(nfc_of_texts)
{
    static const struct {
        const char *text, *nfc;
    } cases[] = {
        {"", ""},
        {"안녕 hello 漢字", "안녕 hello 漢字"},
        {"\xe1\x84\x8b\xe1\x85\xa1\xe1\x86\xab\xe1\x84\x82\xe1\x85\xa7\xe1\x86\xbc?", "안녕?"},
        {"\xea\xb0\x80\xe1\x86\xa8", "각"}, /* a syllable and a final consonant */
        {"e\xcc\x81", "\xc3\xa9"},
        {"\xff\xe1\x84\x80\xe1\x85\xa1\xe1", "\xff가\xe1"},       /* bytes that are not UTF-8 stay */
        {"\xe1\x84\x80\xe1\x84\x80", "\xe1\x84\x80\xe1\x84\x80"}, /* two initials make no syllable */
    };
    struct geul_context *ctx = geul_context_new(NULL);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        size_t n;
        char *nfc = geul_text_nfc(ctx, cases[i].text, strlen(cases[i].text), &n);
        REQUIRE(nfc);
        CHECK_STR(nfc, cases[i].nfc);
        CHECK_INT(n, strlen(cases[i].nfc));
        geul_text_free(ctx, nfc);
    }
    geul_context_free(ctx);
}

TEST(nfc_applies_where_the_tokenizer_does_not_do_it)
{
    struct geul_context *ctx = geul_context_new(NULL);
    struct geul_tokenizer *tok = geul_tokenizer_load(ctx, test_mini_model(), NULL);
    REQUIRE(tok);
    CHECK(geul_nfc_applies(tok, GEUL_NFC_AUTO) && geul_nfc_applies(tok, GEUL_NFC_ON));
    CHECK(!geul_nfc_applies(tok, GEUL_NFC_OFF));
    geul_tokenizer_free(tok);
    tok = geul_tokenizer_from_json(ctx, test_path("golden/tok/nfc_split_gpt4.json"));
    REQUIRE(tok);
    CHECK(!geul_nfc_applies(tok, GEUL_NFC_AUTO) && geul_nfc_applies(tok, GEUL_NFC_ON));
    geul_tokenizer_free(tok);
    geul_context_free(ctx);
}

TEST(nfc_survives_every_failing_allocation)
{
    struct test_shortage s = {.most = 20};
    while (test_shortage_next(&s)) {
        size_t n;
        char *nfc = geul_text_nfc(s.ctx, "e\xcc\x81", 3, &n);
        s.ok = nfc != NULL;
        geul_text_free(s.ctx, nfc);
    }
}

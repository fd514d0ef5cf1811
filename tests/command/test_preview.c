/* test_preview.c: what the preview of samples prints. It belongs to the command, whose files no library holds. */
#include "command/learn/preview.c"
#include "tests/command/command_fixture.h"
#include "tests/train/training_rig.h"

/* What a preview of d prints; malloc()ed. */
static char *printed(const struct training_rig *r, const struct geul_dataset *d, int n, bool colour)
{
    const char *path = test_scratch("preview");
    size_t size;
    FILE *f = fopen(path, "wb");
    CHECK(geul_preview_print(f, r->tok, d, n, colour));
    fclose(f);
    return test_slurp(path, &size);
}

TEST(preview_marks_what_is_only_read)
{
    struct training_rig r = training_rig_open();
    REQUIRE(r.tok);
    struct geul_dataset *d = geul_dataset_new(r.ctx);
    struct geul_template *t = geul_template_new(r.ctx, "koalpaca");
    REQUIRE(geul_dataset_add_answer(d, r.tok, t, "뷁?", NULL, "답\033[0m\t끝", false) == GEUL_OK);
    REQUIRE(geul_dataset_add_text(d, r.tok, "ab", 2) == GEUL_OK);
    char *text = printed(&r, d, 1, false), *more = printed(&r, d, 5, true), head[64];
    const char *line = strchr(text, '\n');
    snprintf(head, sizeof head, "sample 1: %d tokens, %d of them learned\n", geul_dataset_length(d, 0),
             (int)geul_dataset_target_count(d) - geul_dataset_length(d, 1) + 1);
    CHECK_MSG(strncmp(text, head, strlen(head)) == 0, "%s is not %s", text, head);
    if (line)
        CHECK_STR(line + 1, "⟦### 질문: 뷁?\n\n### 답변:⟧ 답\\x1b[0m\t끝<|endoftext|>\n");
    CHECK(strstr(more, "\033[2m### 질문: 뷁?\n\n### 답변:\033[22m 답\\x1b[0m") && strstr(more, "sample 2: "));
    free(text);
    free(more);
    geul_template_free(t);
    geul_dataset_free(d);
    training_rig_close(&r);
}

/* Every mask over a character whose bytes are in three tokens, and one that is never finished. */
TEST(preview_breaks_no_character)
{
    static const char *const bytes[] = {"\xeb", "\xb7", "\x81", "\xec", "a"};
    struct training_rig r = training_rig_open();
    REQUIRE(r.tok);
    int32_t ids[5];
    for (int i = 0; i < 5; i++)
        ids[i] = geul_token_find(r.tok, bytes[i], 1);
    for (unsigned mask = 1; mask < 32; mask++)
        for (int n = 2; n <= 5; n++) {
            bool target[5];
            for (int i = 0; i < 5; i++)
                target[i] = mask >> i & 1;
            struct geul_dataset *d = geul_dataset_new(r.ctx);
            if (geul_dataset_add(d, ids, target, n) == GEUL_OK) {
                char *text = printed(&r, d, 1, mask % 2);
                CHECK_MSG(fixture_is_utf8(text, strlen(text)), "mask %u, %d tokens", mask, n);
                CHECK((strstr(text, "뷁") != NULL) == (n >= 3));
                free(text);
            }
            geul_dataset_free(d);
        }
    training_rig_close(&r);
}

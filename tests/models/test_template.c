/* Prompt templates, byte for byte as in the models' cards. */
#include "geul.h"
#include "tests/harness.h"

static void check_prompt(const char *name, const struct geul_turn *turns, int n, const char *input,
                         const char *expected)
{
    struct geul_context *ctx = geul_context_new(NULL);
    struct geul_template *t = geul_template_new(ctx, name);
    REQUIRE(t);
    char *prompt = geul_template_apply(ctx, t, turns, n, input);
    REQUIRE(prompt);
    CHECK_STR(prompt, expected);
    geul_text_free(ctx, prompt);
    geul_template_free(t);
    geul_context_free(ctx);
}

TEST(template_prompts_byte_for_byte)
{
    const struct geul_turn one[] = {{"하늘은 왜 파란가요?", NULL}};
    const struct geul_turn two[] = {{"안녕", "안녕하세요."}, {"{input} 뭐야?", NULL}};
    check_prompt("koalpaca", one, 1, NULL, "### 질문: 하늘은 왜 파란가요?\n\n### 답변:");
    check_prompt("koalpaca", one, 1, "물리", "### 질문: 하늘은 왜 파란가요?\n\n### 맥락: 물리\n\n### 답변:");
    check_prompt("koalpaca", two, 2, NULL,
                 "### 질문: 안녕\n\n### 답변: 안녕하세요.<|endoftext|>### 질문: {input} 뭐야?\n\n### 답변:");
    check_prompt(
        "kullm", one, 1, NULL,
        "아래는 작업을 설명하는 명령어입니다. 요청을 적절히 완료하는 응답을 작성하세요.\n\n### 명령어:\n하늘은 왜 "
        "파란가요?\n\n### 응답:\n");
    check_prompt(
        "kullm", one, 1, "물리",
        "아래는 작업을 설명하는 명령어와 추가 컨텍스트를 제공하는 입력이 짝을 이루는 예제입니다. 요청을 적절히 "
        "완료하는 응답을 작성하세요.\n\n### 명령어:\n하늘은 왜 파란가요?\n\n### 입력:\n물리\n\n### 응답:\n");
    check_prompt("kgoat", one, 1, NULL, "하늘은 왜 파란가요?\n\n정답:");
    check_prompt("kgoat", two, 2, NULL, "안녕\n\n정답: 안녕하세요.<|endoftext|>{input} 뭐야?\n\n정답:");
    check_prompt("Q {instruction} {x} C {input}\nA: {output}\n###\n", two, 2, "맥락",
                 "Q 안녕 {x} C 맥락\nA: 안녕하세요.\n###\nQ {input} 뭐야? {x} C \nA:");
}

/* What a model wrote begins with the gap that the template puts there too, and may end in white space before a stop
 * string: given back as it is, it makes the prompt that its trimmed form makes. */
TEST(template_takes_answers_as_models_write_them)
{
    static const char *const names[] = {"koalpaca", "kullm", "kgoat", "Q {instruction}\nA:  {output}\n\n"};
    static const char *const written[] = {" 안녕하세요. 반가워요.", "안녕하세요. 반가워요.\n\n",
                                          "\r\n\t안녕하세요. 반가워요. "};
    struct geul_context *ctx = geul_context_new(NULL);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        struct geul_template *t = geul_template_new(ctx, names[i]);
        REQUIRE(t);
        struct geul_turn turns[] = {{"안녕", "안녕하세요. 반가워요."}, {"  뭐 해? ", NULL}};
        char *expected = geul_template_apply(ctx, t, turns, 2, NULL);
        REQUIRE(expected);
        for (size_t k = 0; k < sizeof written / sizeof *written; k++) {
            turns[0].answer = written[k];
            check_prompt(names[i], turns, 2, NULL, expected);
        }
        geul_text_free(ctx, expected);
        geul_template_free(t);
    }
    /* nothing but white space: an answer that ended at once */
    const struct geul_turn empty[] = {{"안녕", " \n"}, {"뭐 해?", NULL}};
    check_prompt("koalpaca", empty, 2, NULL, "### 질문: 안녕\n\n### 답변:<|endoftext|>### 질문: 뭐 해?\n\n### 답변:");
    geul_context_free(ctx);
}

TEST(template_stops_and_refusals)
{
    struct geul_context *ctx = geul_context_new(NULL);
    const struct {
        const char *name, *stop;
    } cases[] = {{"koalpaca", "###"},
                 {"kullm", "###"},
                 {"kgoat", NULL},
                 {"{instruction}: {output}<|endoftext|>", NULL},
                 {"{instruction}: {output}[끝]", "[끝]"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct geul_template *t = geul_template_new(ctx, cases[i].name);
        REQUIRE(t);
        int n;
        const char *const *stops = geul_template_stops(t, &n);
        CHECK_INT(n, cases[i].stop ? 1 : 0);
        if (n == 1)
            CHECK_STR(stops[0], cases[i].stop);
        geul_template_free(t);
    }
    CHECK(geul_template_new(ctx, "{output} {instruction}") == NULL); /* the prompt would not hold the question */
    CHECK(strstr(geul_error(ctx), "{instruction}") != NULL);
    geul_error_clear(ctx);
    CHECK(geul_template_new(ctx, "alpaca") == NULL);
    CHECK(strstr(geul_error(ctx), "koalpaca") != NULL);
    geul_context_free(ctx);
}

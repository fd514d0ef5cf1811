/* template.c: prompt templates of the Korean fine-tunes, byte for byte, and templates written by users. */
#include "models/template.h"

#include "core/bytes.h"

#include <string.h>

#define END_OF_TEXT "<|endoftext|>"

/* A template in parts: plain or with_input up to where the answer goes, then gap + answer + end in finished turns. */
struct geul_template {
    struct geul_context *ctx; /* of user templates, NULL for built-in ones */
    const char *name;
    const char *plain, *with_input; /* with {instruction} and {input}; with_input may be NULL */
    const char *gap;                /* between the prompt and a finished answer */
    const char *end;                /* after a finished answer */
    const char *stops[2];
    int n_stops;
};

#define KULLM_TASK "요청을 적절히 완료하는 응답을 작성하세요.\n\n### 명령어:\n{instruction}\n\n"

static const struct geul_template built_in[] = {
    {.name = "koalpaca",
     .plain = "### 질문: {instruction}\n\n### 답변:",
     .with_input = "### 질문: {instruction}\n\n### 맥락: {input}\n\n### 답변:",
     .gap = " ",
     .end = END_OF_TEXT,
     .stops = {"###"},
     .n_stops = 1},
    {.name = "kullm",
     .plain = "아래는 작업을 설명하는 명령어입니다. " KULLM_TASK "### 응답:\n",
     .with_input = "아래는 작업을 설명하는 명령어와 추가 컨텍스트를 제공하는 입력이 짝을 이루는 예제입니다. " KULLM_TASK
                   "### 입력:\n{input}\n\n### 응답:\n",
     .gap = "",
     .end = END_OF_TEXT,
     .stops = {"###"},
     .n_stops = 1},
    {.name = "kgoat", .plain = "{instruction}\n\n정답:", .gap = " ", .end = END_OF_TEXT},
};

/* Splits a user's text at {output}: what precedes it is the prompt (its trailing spaces become the gap), what follows
 * ends a finished answer and, when it is more than white space and not the end token's text, stops an answer. */
static struct geul_template *from_text(struct geul_context *ctx, const char *text)
{
    static const char mark[] = "{output}";
    const char *output = strstr(text, mark);
    size_t prompt = output ? (size_t)(output - text) : strlen(text), gap = 0;
    while (output && gap < prompt && text[prompt - gap - 1] == ' ')
        gap++;
    const char *end = output ? output + strlen(mark) : "";
    struct geul_template *t = geul_alloc(ctx, 1, sizeof *t);
    if (!t)
        return NULL;
    t->ctx = ctx;
    t->name = "file";
    t->plain = geul_strndup(ctx, text, prompt - gap);
    t->gap = geul_strndup(ctx, text + prompt - gap, gap);
    t->end = *end ? geul_strndup(ctx, end, strlen(end)) : geul_strndup(ctx, END_OF_TEXT, strlen(END_OF_TEXT));
    if (!t->plain || !t->gap || !t->end) {
        geul_template_free(t);
        return NULL;
    }
    if (strstr(t->plain, "{input}"))
        t->with_input = t->plain;
    if (*end && strcmp(end, END_OF_TEXT) != 0 && end[strspn(end, " \t\r\n")])
        t->stops[t->n_stops++] = t->end;
    return t;
}

struct geul_template *geul_template_new(struct geul_context *ctx, const char *name_or_text)
{
    for (size_t i = 0; i < sizeof built_in / sizeof *built_in; i++) {
        if (strcmp(name_or_text, built_in[i].name) != 0)
            continue;
        struct geul_template *t = geul_alloc(ctx, 1, sizeof *t);
        if (t) {
            *t = built_in[i];
            t->ctx = ctx;
        }
        return t;
    }
    const char *instruction = strstr(name_or_text, "{instruction}"), *output = strstr(name_or_text, "{output}");
    if (instruction && (!output || instruction < output))
        return from_text(ctx, name_or_text);
    geul_fail(
        ctx, GEUL_ERROR_ARGUMENT,
        "\"%.40s\" is not a template: use koalpaca, kullm, kgoat or a text holding {instruction}, before {output}",
        name_or_text);
    return NULL;
}

void geul_template_free(struct geul_template *t)
{
    if (!t)
        return;
    if (strcmp(t->name, "file") == 0) {
        geul_free(t->ctx, (void *)(uintptr_t)t->plain);
        geul_free(t->ctx, (void *)(uintptr_t)t->gap);
        geul_free(t->ctx, (void *)(uintptr_t)t->end);
    }
    geul_free(t->ctx, t);
}

const char *geul_template_name(const struct geul_template *t)
{
    return t->name;
}

const char *const *geul_template_stops(const struct geul_template *t, int *n)
{
    *n = t->n_stops;
    return t->stops;
}

bool geul_template_takes_input(const struct geul_template *t)
{
    return t->with_input != NULL;
}

const char *geul_template_gap(const struct geul_template *t)
{
    return t->gap;
}

const char *geul_template_end(const struct geul_template *t)
{
    return t->end;
}

/* Passes form with its {instruction} and {input} filled in to put. What is filled in is not searched for fields. */
static bool put_filled(const char *form, const char *instruction, const char *input, geul_template_sink put, void *user)
{
    const struct {
        const char *mark, *value;
    } fields[] = {{"{instruction}", instruction}, {"{input}", input ? input : ""}};
    bool ok = true;
    while (ok && *form) {
        size_t plain = strcspn(form, "{"), i = 0;
        while (form[plain] && i < 2 && strncmp(form + plain, fields[i].mark, strlen(fields[i].mark)) != 0)
            i++;
        if (form[plain] && i == 2)
            plain++; /* a brace that begins no field */
        ok = plain == 0 || put(user, form, plain, true);
        form += plain;
        if (ok && *form && i < 2) {
            ok = put(user, fields[i].value, strlen(fields[i].value), false);
            form += strlen(fields[i].mark);
        }
    }
    return ok;
}

bool geul_template_put_prompt(const struct geul_template *t, const char *question, const char *input,
                              geul_template_sink put, void *user)
{
    bool extra = input && *input && t->with_input;
    return put_filled(extra ? t->with_input : t->plain, question, extra ? input : NULL, put, user);
}

struct text {
    struct geul_context *ctx;
    struct geul_bytes bytes;
};

/* Appends n bytes; a geul_template_sink. */
static bool append(void *user, const char *s, size_t n, bool own)
{
    struct text *t = user;
    (void)own;
    return geul_bytes_add(t->ctx, &t->bytes, s, n);
}

static bool is_space(char c)
{
    return c == ' ' || c == '\n' || c == '\t' || c == '\r';
}

const char *geul_template_trim(const char *answer, size_t *length)
{
    while (*length > 0 && is_space(*answer)) {
        answer++;
        --*length;
    }
    while (*length > 0 && is_space(answer[*length - 1]))
        --*length;
    return answer;
}

/* Appends a finished answer. Models begin their answers with the gap, as they learned it, so what a model wrote has it
 * already: trimmed, the prompt of the next turn begins with the very tokens that the session holds. An answer that is
 * empty was ended at once, without a gap. */
static bool append_answer(struct text *text, const struct geul_template *t, const char *answer)
{
    size_t length = strlen(answer);
    answer = geul_template_trim(answer, &length);
    return (length == 0 || append(text, t->gap, strlen(t->gap), true)) && append(text, answer, length, false) &&
           append(text, t->end, strlen(t->end), true);
}

char *geul_template_apply(struct geul_context *ctx, const struct geul_template *t, const struct geul_turn *turns, int n,
                          const char *input)
{
    struct text text = {.ctx = ctx};
    bool ok = true;
    for (int i = 0; ok && i < n; i++) { /* the input goes into the first turn, which stays in the cache */
        const char *answer = turns[i].answer;
        ok = geul_template_put_prompt(t, turns[i].question, i == 0 ? input : NULL, append, &text);
        if (ok && answer)
            ok = append_answer(&text, t, answer);
    }
    if (ok && geul_bytes_add(ctx, &text.bytes, "", 1))
        return text.bytes.data;
    geul_free(ctx, text.bytes.data);
    return NULL;
}

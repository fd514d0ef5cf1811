/* test_row_shapes.c: the shapes in which people keep conversations. The turns expected are those that TRL, axolotl and
 * LLaMA-Factory make of the same rows; of what they read but do not learn, the mark is the same too. */
#include "tests/harness.h"

#include "corpus/rows.h"

/* The rows of a text as "system|question|answer|question|answer;", where an answer that is only read is in brackets and
 * an input follows its question after a plus. */
static void list_rows(struct geul_context *ctx, const char *name, const char *data, char *out, size_t size,
                      struct geul_row_problems *problems)
{
    struct geul_rows *rows = geul_rows_open_memory(ctx, data, strlen(data), name, NULL, problems);
    const struct geul_row *row;
    size_t used = 0;
    out[0] = '\0';
    while (rows && geul_rows_next(rows, &row) == GEUL_OK && row) {
        used += (size_t)snprintf(out + used, size - used, "%s", row->system ? row->system : "");
        for (int i = 0; i < row->n_turns; i++) {
            bool here = row->input && row->input_turn == i;
            used +=
                (size_t)snprintf(out + used, size - used, row->learned[i] ? "|%s%s%s|%s" : "|%s%s%s|(%s)",
                                 row->turns[i].question, here ? "+" : "", here ? row->input : "", row->turns[i].answer);
        }
        used += (size_t)snprintf(out + used, size - used, "%.*s;", (int)row->length, row->text ? row->text : "");
    }
    geul_rows_close(rows);
}

static const struct {
    const char *row, *expected, *note; /* note: NULL: none */
} shapes[] = {
    {"{\"id\":\"x\",\"conversations\":[{\"from\":\"human\",\"value\":\"안녕\"},{\"from\":\"gpt\",\"value\":\"반가워요."
     "\"}]}",
     "|안녕|반가워요.;", "s.jsonl: not used: id (1 row)"},
    {"{\"conversations\":[{\"from\":\"system\",\"value\":\"s\"},{\"from\":\"user\",\"value\":\"q\"},{\"from\":"
     "\"assistant\","
     "\"value\":\"a\"}]}",
     "s|q|a;", NULL},
    {"{\"system\":\"s\",\"tools\":\"\",\"conversations\":[{\"role\":\"user\",\"content\":\"q\"},{\"role\":\"bot\","
     "\"content\":\"a\"}]}",
     "s|q|a;", NULL},
    {"{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"안녕\"}]},{\"role\":\"assistant\","
     "\"content\":[{\"type\":\"text\",\"text\":\"반가\"},{\"type\":\"text\",\"text\":\"워요.\"}]}]}",
     "|안녕|반가\n워요.;", NULL},
    {"{\"messages\":[{\"role\":\"developer\",\"content\":\"s\"},{\"role\":\"user\",\"content\":\"q\",\"name\":\"민수\"}"
     ","
     "{\"role\":\"assistant\",\"content\":\"a\",\"tool_calls\":null}]}",
     "s|q|a;", "s.jsonl: not used: messages[].name (1 row)"},
    {"{\"messages\":[{\"role\":\"assistant\",\"content\":\"안녕하세요\"},{\"role\":\"user\",\"content\":\"b\"},{"
     "\"role\":"
     "\"assistant\",\"content\":\"c\"}]}",
     "|b|c;", "s.jsonl: not used: messages of the assistant that open a conversation (1)"},
    {"{\"messages\":[{\"role\":\"user\",\"content\":\"b\"},{\"role\":\"assistant\",\"content\":\"c\"},{\"role\":"
     "\"user\","
     "\"content\":\"d\"}]}",
     "|b|c;", "s.jsonl: not used: last questions, which have no answer (1)"},
    {"{\"messages\":[{\"role\":\"user\",\"content\":\"a\"},{\"role\":\"assistant\",\"content\":\"b\",\"weight\":0},{"
     "\"role\":"
     "\"user\",\"content\":\"c\"},{\"role\":\"assistant\",\"content\":\"d\",\"weight\":1}]}",
     "|a|(b)|c|d;", "s.jsonl: read, not learned: answers in a prompt, with weight 0 or train false (1)"},
    {"{\"conversations\":[{\"from\":\"human\",\"value\":\"a\"},{\"from\":\"gpt\",\"value\":\"b\",\"train\":false},{"
     "\"from\":"
     "\"human\",\"value\":\"c\"},{\"from\":\"gpt\",\"value\":\"d\",\"train\":true}]}",
     "|a|(b)|c|d;", "s.jsonl: read, not learned: answers in a prompt, with weight 0 or train false (1)"},
    {"{\"messages\":[{\"role\":\"user\",\"content\":\"a\"},{\"role\":\"assistant\",\"content\":\"b\",\"weight\":0.5}]}",
     "|a|b;", "s.jsonl: weights other than 0 and 1 count as 1 (1)"},
    {"{\"prompt\":[{\"role\":\"user\",\"content\":\"안녕\"}],\"completion\":[{\"role\":\"assistant\",\"content\":"
     "\"반가워요.\"}]}",
     "|안녕|반가워요.;", NULL},
    {"{\"prompt\":[{\"role\":\"system\",\"content\":\"s\"},{\"role\":\"user\",\"content\":\"a\"},{\"role\":"
     "\"assistant\","
     "\"content\":\"b\"},{\"role\":\"user\",\"content\":\"c\"}],\"completion\":\"d\"}",
     "s|a|(b)|c|d;", "s.jsonl: read, not learned: answers in a prompt, with weight 0 or train false (1)"},
    {"{\"prompt\":\"p\",\"completion\":[{\"role\":\"assistant\",\"content\":\"c\"}]}", "|p|c;", NULL},
    {"{\"instruction\":\"둘째 질문\",\"input\":\"\",\"output\":\"둘째 답\",\"history\":[[\"첫 질문\",\"첫 답\"]]}",
     "|첫 질문|첫 답|둘째 질문|둘째 답;", NULL},
    {"{\"instruction\":\"q\",\"input\":\"i\",\"output\":\"a\",\"system\":\"s\",\"history\":[[\"1\",\"2\"],[\"3\",\"4\"]"
     "]}",
     "s|1|2|3|4|q+i|a;", NULL},
    {"{\"system\":\"너는 친절해\",\"instruction\":\"안녕\",\"input\":\"\",\"output\":\"반가워요.\"}",
     "너는 친절해|안녕|반가워요.;", NULL},
    {"{\"system_prompt\":\"s\",\"question\":\"q\",\"response\":\"a\"}", "s|q|a;", NULL},
    {"{\"instruction\":\"\",\"input\":\"질문\",\"output\":\"답\"}", "|질문|답;", NULL},
    {"{\"instruction\":\"q\",\"input\":[\"하나\",\"둘\"],\"output\":\"a\"}", "|q+하나\n둘|a;", NULL},
    {"{\"instruction\":\"q\",\"input\":[],\"output\":\"a\"}", "|q|a;", NULL},
    {"{\"input\":[{\"role\":\"user\",\"content\":\"q\"}],\"output\":\"a\"}", "|q|a;", NULL},
    {"{\"instruction\":\"q\",\"context\":\"c\",\"response\":\"a\",\"category\":\"qa\"}", "|q+c|a;",
     "s.jsonl: not used: category (1 row)"},
    {"{\"question\":\"q\",\"context\":\"c\",\"answer\":\"a\"}", "|q+c|a;", NULL},
    {"{\"Instruction\":\"q\",\"Output\":\"a\"}", "|q|a;", NULL},
    {"{\"질문\":\"q\",\"답변\":\"a\"}", "|q|a;", NULL},
    {"{\"query\":\"q\",\"response\":\"a\",\"history\":[]}", "|q|a;", NULL},
    {"{\"conversations\":\"[{\\\"from\\\":\\\"human\\\",\\\"value\\\":\\\"q\\\"},{\\\"from\\\":\\\"gpt\\\","
     "\\\"value\\\":"
     "\\\"a\\\"}]\"}",
     "|q|a;", NULL},
    {"{\"text\":\"t\",\"meta\":{\"a\":1},\"empty\":null}", "t;", "s.jsonl: not used: meta (1 row)"},
};

TEST(row_shapes_of_other_tools)
{
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        struct geul_context *ctx = geul_context_new(NULL);
        struct geul_row_problems problems = {.ctx = ctx};
        char out[1024];
        list_rows(ctx, "s.jsonl", shapes[i].row, out, sizeof out, &problems);
        CHECK_MSG(strcmp(out, shapes[i].expected) == 0 && problems.n == 0, "case %zu: %s %s", i, out,
                  problems.n ? problems.texts[0] : "");
        const char *note = geul_row_problems_note(&problems, 0);
        CHECK_MSG(note ? shapes[i].note && strcmp(note, shapes[i].note) == 0 : !shapes[i].note, "case %zu: %s", i,
                  note ? note : "no note");
        CHECK(!geul_row_problems_note(&problems, 1) && !geul_row_problems_note(&problems, -1));
        CHECK(geul_error_status(ctx) == GEUL_OK);
        geul_row_problems_clear(&problems);
        geul_context_free(ctx);
    }
}

static const struct {
    const char *row, *message;
} refused[] = {
    {"{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"image_url\",\"image_url\":{}}]}]}",
     "messages[0].content[0] is of type image_url; only text can be learned"},
    {"{\"messages\":[{\"role\":\"user\",\"content\":[7]}]}", "messages[0].content[0] is a number, not a part"},
    {"{\"messages\":[{\"role\":\"user\",\"content\":[]}]}", "messages[0].content is empty"},
    {"{\"messages\":[{\"role\":\"user\",\"content\":\"q\"},{\"role\":\"assistant\",\"content\":null,\"tool_calls\":[1]}"
     "]}",
     "messages[1].tool_calls: templates have no place for calls of tools"},
    {"{\"conversations\":[{\"from\":\"human\",\"value\":\"q\"},{\"from\":\"function_call\",\"value\":\"f\"}]}",
     "conversations[1].from is \"function_call\": templates have no place for tools"},
    {"{\"conversations\":[{\"from\":\"narrator\",\"value\":\"q\"}]}",
     "conversations[0].from is \"narrator\"; system, user"},
    {"{\"conversations\":[{\"from\":\"human\",\"value\":\"q\"},{\"from\":\"human\",\"value\":\"q\"}]}",
     "conversations[1].role is user, but it is the assistant's turn"},
    {"{\"messages\":[{\"role\":\"user\",\"content\":\"q\"},{\"role\":\"assistant\",\"content\":\"a\",\"weight\":0}]}",
     "no answer is to be learned"},
    {"{\"instruction\":\"q\",\"output\":\"a\",\"history\":[[\"q\"]]}", "history[0] is an array of another length"},
    {"{\"instruction\":\"q\",\"output\":\"a\",\"history\":\"x\"}", "history is a string, not an array"},
    {"{\"instruction\":\"q\",\"output\":\"a\",\"history\":[[\"q\",\" \"]]}", "history[0][1] is empty"},
    {"{\"instruction\":\"q\",\"output\":[\"a\",\"b\"]}", "output is an array, not a string"},
    {"{\"prompt\":[{\"role\":\"user\",\"content\":\"q\"}],\"completion\":[]}", "completion is an array"},
    {"{\"system\":\"s\",\"messages\":[{\"role\":\"system\",\"content\":\"t\"}]}", "only the first message"},
    {"{\"prompt\":\"p\",\"chosen\":\"a\",\"rejected\":\"b\"}", "its keys are prompt, chosen, rejected; expected are"},
};

TEST(row_shapes_that_are_refused)
{
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
        struct geul_context *ctx = geul_context_new(NULL);
        struct geul_row_problems problems = {.ctx = ctx};
        char out[1024];
        list_rows(ctx, "s.jsonl", refused[i].row, out, sizeof out, &problems);
        CHECK_MSG(!*out && problems.n == 1 && strstr(problems.texts[0], refused[i].message), "case %zu: %s %s", i, out,
                  problems.n ? problems.texts[0] : "");
        CHECK(!geul_row_problems_note(&problems, 0)); /* all of it has been said */
        geul_row_problems_clear(&problems);
        geul_context_free(ctx);
    }
}

/* Every file says once what of it was not used, and which form it has. */
TEST(row_shapes_are_counted)
{
    static const char rows[] = "{\"question\":\"q\",\"answer\":\"a\",\"id\":1,\"label\":0}\n"
                               "{\"question\":\"q\",\"answer\":\"a\",\"id\":2}\n{\"text\":\"t\",\"\\u001b[2J\":1}\n";
    struct geul_context *ctx = geul_context_new(NULL);
    struct geul_row_problems problems = {.ctx = ctx};
    char out[256];
    for (int i = 0; i < 2; i++)
        list_rows(ctx, i ? "b.jsonl" : "a.jsonl", rows, out, sizeof out, &problems);
    CHECK_STR(geul_row_problems_note(&problems, 0), "a.jsonl: not used: id (2 rows), label (1 row), ?[2J (1 row)");
    CHECK_STR(geul_row_problems_note(&problems, 1), "b.jsonl: not used: id (2 rows), label (1 row), ?[2J (1 row)");
    CHECK_STR(geul_row_problems_form(&problems, 0), "a.jsonl: JSON Lines; question and answer (2 rows), text (1 row)");
    CHECK(!geul_row_problems_note(&problems, 2) && !geul_row_problems_form(&problems, 2));
    geul_row_problems_clear(&problems);
    geul_context_free(ctx);
}

/* More keys than are named are still said. */
TEST(row_shapes_count_keys_without_end)
{
    char row[4096] = "{\"text\":\"t\"";
    for (int i = 0; i < 100; i++)
        snprintf(row + strlen(row), 32, ",\"key%d\":1", i);
    strcat(row, "}");
    struct geul_context *ctx = geul_context_new(NULL);
    struct geul_row_problems problems = {.ctx = ctx};
    char out[64];
    list_rows(ctx, "a.jsonl", row, out, sizeof out, &problems);
    const char *note = geul_row_problems_note(&problems, 0);
    CHECK_MSG(note && strstr(note, "key15 (1 row) and more keys"), "%s", note ? note : "none");
    geul_row_problems_clear(&problems);
    geul_context_free(ctx);
}

TEST(row_shapes_survive_every_failing_allocation)
{
    struct test_shortage s = {.most = 200};
    while (test_shortage_next(&s)) {
        struct geul_row_problems problems = {.ctx = s.ctx};
        char out[1024];
        list_rows(s.ctx, "f.jsonl", shapes[14].row, out, sizeof out, &problems);
        s.ok = geul_error_status(s.ctx) == GEUL_OK;
        CHECK(!s.ok || strcmp(out, shapes[14].expected) == 0);
        geul_row_problems_clear(&problems);
    }
}

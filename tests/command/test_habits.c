/* test_habits.c: options of llama.cpp and Hugging Face, typed at geul. */
#include "tests/command/command_fixture.h"

#include "command/habits.h"

/* clang-format off */
#define SAME            GEUL_HABIT_SAME, NULL
#define SAME_AS(option) GEUL_HABIT_SAME, option
#define QUIET           GEUL_HABIT_QUIET, NULL
#define NOTE            GEUL_HABIT_NOTE, NULL
#define REFUSE          GEUL_HABIT_REFUSE, NULL
#define HABIT(name, with, takes, what, text) {name, with, GEUL_HABIT_##takes, what, text},
/* clang-format on */
static const struct geul_habit habits[] = {
#include "command/habits.def"
};
#undef HABIT
enum { N_HABITS = sizeof habits / sizeof *habits };

/* Ids that `geul complete` generates with these words after the model and the prompt; NULL after a failed check. */
static json_t *generate(const char *const *words)
{
    const char *argv[24] = {"complete", "-m", test_mini_model(), "-p", "안녕", "-n", "6", "--json"};
    int n = 8;
    while (*words && n < 23)
        argv[n++] = *words++;
    json_t *json = fixture_json(test_geul(argv, NULL, 0));
    json_t *tokens = json ? json_incref(json_object_get(json, "tokens")) : NULL;
    json_decref(json);
    return tokens;
}

TEST(habits_name_what_geul_has)
{
    static const struct {
        const char *typed[6], *here[6];
    } pairs[] = {
        {{"--temperature", "0"}, {"--temp", "0"}},
        {{"--temp", "0", "--repetition_penalty", "1.7"}, {"--temp", "0", "--repeat-penalty", "1.7"}},
        {{"--seed", "5", "--top_k", "-1"}, {"--seed", "5", "--top-k", "0"}},
        {{"--seed", "5", "-t", "-1"}, {"--seed", "5", "-t", "0"}},
        {{"--temp", "0", "--max-new-tokens", "3"}, {"--temp", "0", "-n", "3"}},
        {{"--temp", "0", "-fa", "on", "-ngl", "auto"}, {"--temp", "0"}},
        {{"--temp", "0", "-fa", "--color", "-ub", "16"}, {"--temp", "0", "-b", "16"}},
    };
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++) {
        json_t *a = generate(pairs[i].typed), *b = generate(pairs[i].here);
        CHECK_MSG(a && b && json_equal(a, b), "%s", pairs[i].typed[0]);
        json_decref(a);
        json_decref(b);
    }
    /* -1 is a seed of its own choice: two runs of 6 tokens at temperature 100 over 4,000 do not agree */
    json_t *a = generate((const char *const[]){"--seed", "-1", "--temp", "100", "--top-k", "0", "--top-p", "1", NULL});
    json_t *b = generate((const char *const[]){"--seed", "-1", "--temp", "100", "--top-k", "0", "--top-p", "1", NULL});
    CHECK(a && b && !json_equal(a, b));
    json_decref(a);
    json_decref(b);
}

TEST(habits_are_answered_in_one_line)
{
    struct test_run r = GEUL("complete", "-m", test_mini_model(), "-p", "안녕", "-n", "2", "--mlock", "--no-mmap");
    CHECK_MSG(r.status == 0 && strstr(r.err, "geul complete: --mlock: ") && strstr(r.err, "geul complete: --no-mmap: "),
              "%s", r.err);
    test_run_free(&r);
    fixture_fails(GEUL("complete", "-m", "x", "-p", "y", "-cnv"), 2, "geul complete: -cnv", "geul chat");
    fixture_fails(GEUL("complete", "-m", "x", "-p", "y", "-e"), 2, "geul complete: -e", "-f");
    fixture_fails(GEUL("chat", "-m", "x", "-p", "y"), 2, "geul chat: -p", "geul complete -p");
    fixture_fails(GEUL("finetune", "-m", "x", "--learning-rate", "high"), 2, "geul finetune: --learning-rate",
                  "not a number");
    fixture_fails(GEUL("finetune", "-m", "x", "--load_in_4bit"), 2, "geul finetune: --load_in_4bit", "geul quantize");
    fixture_fails(GEUL("quantize", "a", "b", "q4_0", "--pure"), 2, "geul quantize: --pure", "--tensor-type");
    /* where the option has no meaning, it is unknown */
    fixture_fails(GEUL("info", "x", "-fa"), 2, "geul info: ", "there is no option -fa");
}

/* Every row stands in a subcommand that has its option, and says something where it has to. */
TEST(habits_table_holds)
{
    static const char *const commands[] = {"complete", "chat", "perplexity", "quantize", "finetune"};
    char *help[5];
    for (int i = 0; i < 5; i++) {
        struct test_run r = GEUL(commands[i], "--help");
        help[i] = strdup(r.out);
        test_run_free(&r);
    }
    for (size_t i = 0; i < N_HABITS; i++) {
        const struct geul_habit *h = &habits[i];
        bool with = false, same = !h->same;
        for (int k = 0; k < 5; k++) {
            bool here = strstr(help[k], h->with) != NULL;
            with = with || here;
            same = same || (here && strstr(help[k], h->same));
        }
        CHECK_MSG(with && same, "%s: no subcommand has %s", h->name, with ? h->same : h->with);
        CHECK_MSG((h->text != NULL) == (h->kind == GEUL_HABIT_NOTE || h->kind == GEUL_HABIT_REFUSE), "%s", h->name);
        CHECK_MSG(!h->text || h->text[strlen(h->text) - 1] != '.', "%s: a full stop", h->name);
        for (size_t k = 0; k < i; k++)
            CHECK_MSG(strcmp(habits[k].name, h->name) != 0 || strcmp(habits[k].with, h->with) != 0, "%s is there twice",
                      h->name);
    }
    for (int i = 0; i < 5; i++)
        free(help[i]);
}

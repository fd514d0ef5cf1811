/* test_usage.c: help, wrong usage and missing or broken files, the same for every subcommand. */
#include "tests/command/command_fixture.h"

static const char *const commands[] = {
#define COMMAND(id, summary) #id,
#include "command/commands.def"
#undef COMMAND
};
enum { N_COMMANDS = sizeof commands / sizeof *commands };

/* Columns that a line takes on a terminal; Hangul takes two. */
static int columns(const char *line, const char *end)
{
    int n = 0;
    for (; line < end; line++)
        n += ((unsigned char)*line & 0xc0) == 0x80 ? 0 : (unsigned char)*line >= 0xe1 ? 2 : 1;
    return n;
}

TEST(command_help)
{
    struct test_run r = GEUL("--help");
    CHECK_INT(r.status, 0);
    CHECK_INT(r.err_length, 0);
    for (int i = 0; i < N_COMMANDS; i++)
        CHECK_MSG(strstr(r.out, commands[i]), "the help does not name %s", commands[i]);
    struct test_run bare = GEUL(NULL);
    CHECK_INT(bare.status, 0);
    CHECK_STR(bare.out, r.out);
    test_run_free(&bare);
    test_run_free(&r);
    r = GEUL("--version");
    CHECK_INT(r.status, 0);
    CHECK_MSG(strncmp(r.out, "geul ", 5) == 0 && strchr(r.out, '.'), "%s", r.out);
    struct test_run word = GEUL("version");
    CHECK_INT(word.status, 0);
    CHECK_STR(word.out, r.out);
    test_run_free(&word);
    test_run_free(&r);
}

/* Whether no program reads what the command says: it talks, or its files say everything (journal/). */
static bool is_for_people(const char *command)
{
    return strcmp(command, "chat") == 0 || strcmp(command, "train") == 0 || strcmp(command, "finetune") == 0;
}

TEST(command_help_of_subcommands)
{
    for (int i = 0; i < N_COMMANDS; i++) {
        struct test_run r = GEUL(commands[i], "--help");
        CHECK_INT(r.status, 0);
        CHECK_INT(r.err_length, 0);
        CHECK_MSG(strstr(r.out, "Example:\n  "), "%s --help has no example", commands[i]);
        CHECK_MSG(strstr(r.out, "--help"), "%s --help does not name itself", commands[i]);
        CHECK_MSG(is_for_people(commands[i]) || strstr(r.out, "--json"), "%s has no --json", commands[i]);
        for (const char *line = r.out, *end; (end = strchr(line, '\n')); line = end + 1)
            CHECK_MSG(columns(line, end) < 80, "%s --help: too wide for a terminal: %.*s", commands[i],
                      (int)(end - line), line);
        struct test_run other = GEUL("help", commands[i]);
        CHECK_STR(other.out, r.out);
        test_run_free(&other);
        test_run_free(&r);
    }
}

TEST(command_wrong_usage)
{
    fixture_fails(GEUL("complet"), 2, "geul: ", "did you mean \"complete\"");
    fixture_fails(GEUL("help", "complet"), 2, "geul: ", "did you mean \"complete\"");
    fixture_fails(GEUL("--json"), 2, "geul: ", "--json");
    for (int i = 0; i < N_COMMANDS; i++) {
        char begins[64];
        snprintf(begins, sizeof begins, "geul %s: ", commands[i]);
        fixture_fails(GEUL(commands[i], "--no-such-thing"), 2, begins, "--help");
        fixture_fails(GEUL(commands[i]), 2, begins, "--help");
    }
    fixture_fails(GEUL("complete", "-m", "x", "-p", "y", "--tmep", "0.5"), 2,
                  "geul complete: ", "did you mean --temp?");
    fixture_fails(GEUL("complete", "-m", "x", "-p", "y", "--temp", "hot"), 2, "geul complete: --temp", "not a number");
    fixture_fails(GEUL("complete", "-m", "x", "-p", "y", "--temp", "nan"), 2, "geul complete: --temp", "not a number");
    fixture_fails(GEUL("complete", "-m", "x", "-p", "y", "--top-p=1.5"), 2, "geul complete: --top-p", "outside 0 to 1");
    fixture_fails(GEUL("complete", "-m", "x", "-p", "y", "-n", "1e3"), 2, "geul complete: -n", "whole number");
    fixture_fails(GEUL("complete", "-m", "x", "-p", "y", "-t", "-2"), 2, "geul complete: -t", "outside");
    fixture_fails(GEUL("complete", "-m", "x", "-p", "y", "-t", "99999999999999999999"), 2, "geul complete: -t",
                  "outside");
    fixture_fails(GEUL("complete", "-m", "x", "-p", "y", "--seed", "-2"), 2, "geul complete: --seed", "whole number");
    fixture_fails(GEUL("complete", "-m", "x", "-p", "y", "--echo=1"), 2, "geul complete: --echo", "no value");
    fixture_fails(GEUL("complete", "-m"), 2, "geul complete: -m", "needs a value");
    fixture_fails(GEUL("complete", "-m", "x"), 2, "geul complete: ", "-p TEXT or -f FILE");
    fixture_fails(GEUL("complete", "-m", "x", "-p", "y", "-f", "z"), 2, "geul complete: ", "exclude");
    fixture_fails(GEUL("complete", "-m", "x", "-p", "y", "extra"), 2, "geul complete: ", "\"extra\"");
    fixture_fails(GEUL("convert", "dir", "-o", "x", "--type", "q3_x"), 2, "geul convert: --type", "f32, f16, bf16");
    fixture_fails(GEUL("synth", "1.3b", "-o", "x"), 2, "geul synth: ", "SIZE:TYPE");
    fixture_fails(GEUL("synth", "2b:f16", "-o", "x"), 2, "geul synth: ", "1.3b, 3.8b");
    fixture_fails(GEUL("synth", "1.3b:q9", "-o", "x"), 2, "geul synth: ", "q4_0");
    fixture_fails(GEUL("bench"), 2, "geul bench: ", "--synthetic");
    fixture_fails(GEUL("bench", "-m", "x", "-p", "1,x"), 2, "geul bench: -p", "\"1,x\"");
    fixture_fails(GEUL("bench", "-m", "x", "-t", "-2"), 2, "geul bench: -t", "0 to 1024");
    fixture_fails(GEUL("bench", "-m", "x", "-p", "0", "-n", "0,0"), 2, "geul bench: ", "nothing to measure");
    fixture_fails(GEUL("info", "x", "--cpu"), 2, "geul info: ", "exactly one");
}

/* How each command opens a file; FILE stands for one that is missing or broken. */
static const struct {
    const char *command, *args[8];
} opening[] = {
    {"complete", {"-m", "FILE", "-p", "x"}},
    {"chat", {"-m", "FILE"}},
    {"tokenize", {"-m", "FILE", "-p", "x"}},
    {"logits", {"-m", "FILE", "--ids", "1", "-o", "OUTPUT"}},
    {"perplexity", {"-m", "FILE", "-p", "x"}},
    {"imatrix", {"-m", "FILE", "-p", "x", "-o", "OUTPUT"}},
    {"info", {"FILE"}},
    {"convert", {"FILE", "-o", "OUTPUT"}},
    {"export", {"FILE", "OUTPUT"}},
    {"quantize", {"FILE", "OUTPUT", "q8_0"}},
    {"merge", {"-m", "FILE", "--lora", "x", "-o", "OUTPUT"}},
    {"train", {"--model", "FILE", "--train-file", "x", "-o", "OUTPUT"}},
    {"finetune", {"-m", "FILE", "--train-file", "x", "-o", "OUTPUT"}},
    {"synth", {"FILE.json:f16", "-o", "OUTPUT"}},
    {"bench", {"-m", "FILE"}},
};

static void check_opening(size_t row, const char *file, const char *output)
{
    const char *words[10] = {opening[row].command}, *word;
    char path[1100], begins[64];
    for (int i = 0; (word = opening[row].args[i]) != NULL; i++) {
        bool opened = strncmp(word, "FILE", 4) == 0;
        if (opened)
            snprintf(path, sizeof path, "%s%s", file, word + 4);
        words[i + 1] = opened ? path : strcmp(word, "OUTPUT") == 0 ? output : word;
    }
    snprintf(begins, sizeof begins, "geul %s: ", opening[row].command);
    fixture_fails(test_geul(words, NULL, 0), 1, begins, file);
}

TEST(command_missing_and_broken_files)
{
    char wrong[1024], empty[1024], output[1024];
    snprintf(wrong, sizeof wrong, "%s", test_scratch("wrong.gguf"));
    snprintf(empty, sizeof empty, "%s", test_scratch("empty.gguf"));
    snprintf(output, sizeof output, "%s", test_scratch("output"));
    test_spill(wrong, "this is no model, only a text", 29);
    test_spill(empty, "", 0);
    const char *const files[] = {"/no/such/file.gguf", wrong, empty, test_path("golden")};
    for (int i = 0; i < N_COMMANDS; i++) {
        size_t row = 0;
        while (row < sizeof opening / sizeof *opening && strcmp(opening[row].command, commands[i]) != 0)
            row++;
        if (!CHECK_MSG(row < sizeof opening / sizeof *opening, "%s has no row in opening[]", commands[i]))
            continue;
        for (size_t k = 0; k < sizeof files / sizeof *files; k++)
            check_opening(row, files[k], output);
    }
    fixture_fails(GEUL("complete", "-m", "x", "-f", "/no/such/prompt"), 1, "geul complete: ", "/no/such/prompt");
    fixture_fails(GEUL("synth", "/no/config.json:f16", "-o", output), 1, "geul synth: ", "/no/config.json");
    fixture_fails(GEUL("synth", "1.3b:q4_0", "-o", "/no/such/directory/x.gguf"), 1,
                  "geul synth: ", "/no/such/directory");
}

TEST(command_reports_a_full_disk)
{
    if (system("test -w /dev/full") != 0) {
        test_skip("there is no /dev/full");
        return;
    }
    char line[2048];
    snprintf(line, sizeof line, "'%s' info --ops >/dev/full 2>'%s'", GEUL_BINARY, test_scratch("err"));
    int status = system(line);
    CHECK_MSG(status == 256, "exit status %d", status);
    char *err = test_slurp(test_scratch("err"), NULL);
    CHECK_MSG(err && strstr(err, "cannot write to standard output"), "%s", err ? err : "");
    free(err);
}

/* test_manual.c: `--help=man`, which is made from the rows of the options as the help is: nothing may be missing in it.
 */
#include "tests/command/command_fixture.h"

static const char *const subcommands[] = {
#define COMMAND(id, summary) #id,
#include "command/commands.def"
#undef COMMAND
};
enum { N_SUBCOMMANDS = sizeof subcommands / sizeof *subcommands };

static int count(const char *text, const char *word)
{
    int n = 0;
    for (const char *at = text; (at = strstr(at, word)); at += strlen(word))
        n++;
    return n;
}

/* Every line is text, or a request that man(7) has. */
static void check_requests(const char *page, const char *name)
{
    static const char *const known[] = {".TH ", ".SH ", ".TP\n", ".br\n", ".EX\n", ".EE\n"};
    for (const char *line = page, *end; (end = strchr(line, '\n')); line = end + 1) {
        bool fine = *line != '.' && *line != '\'';
        for (size_t i = 0; i < sizeof known / sizeof *known; i++)
            fine = fine || strncmp(line, known[i], strlen(known[i])) == 0;
        CHECK_MSG(fine, "%s: no request of man(7): %.*s", name, (int)(end - line), line);
    }
}

/* Looks for every name of the option whose line of the help this is. */
static void check_names(const char *line, const char *end, const char *page, const char *subcommand)
{
    while (line < end && *line == '-') {
        char bold[160] = "\\fB";
        size_t at = strlen(bold);
        for (; line < end && *line != ',' && *line != ' '; line++)
            at += (size_t)snprintf(bold + at, sizeof bold - at, "%s%c", *line == '-' ? "\\" : "", *line);
        snprintf(bold + at, sizeof bold - at, "\\fR");
        CHECK_MSG(strstr(page, bold), "%s: %s is missing", subcommand, bold);
        line += strspn(line, ", ");
    }
}

TEST(command_manual_has_every_option)
{
    for (int i = 0; i < N_SUBCOMMANDS; i++) {
        struct test_run help = GEUL(subcommands[i], "--help"), page = GEUL(subcommands[i], "--help=man");
        int options = 0;
        CHECK_INT(page.status, 0);
        CHECK_INT(page.err_length, 0);
        check_requests(page.out, subcommands[i]);
        for (const char *line = help.out, *end; (end = strchr(line, '\n')); line = end + 1)
            if (strncmp(line, "  -", 3) == 0) {
                check_names(line + 2, end, page.out, subcommands[i]);
                options++;
            }
        CHECK(options > 1);
        CHECK_INT(count(page.out, "\n.TP\n"), options);
        CHECK_INT(count(page.out, " (default "), count(help.out, "(default"));
        test_run_free(&help);
        test_run_free(&page);
    }
}

TEST(command_manual_has_every_subcommand)
{
    struct test_run page = GEUL("--help=man");
    CHECK_INT(page.status, 0);
    check_requests(page.out, "geul");
    for (int i = 0; i < N_SUBCOMMANDS; i++) {
        char bold[64];
        snprintf(bold, sizeof bold, "\\fBgeul\\-%s\\fR(1)\n", subcommands[i]);
        CHECK_MSG(strstr(page.out, bold), "%s is missing", subcommands[i]);
    }
    CHECK_INT(count(page.out, "\n.TP\n"), N_SUBCOMMANDS);
    test_run_free(&page);
}

/* What a value may be is in the rows, and so in the manual. */
TEST(command_manual_says_what_a_value_is)
{
    struct test_run page = GEUL("finetune", "--help=man");
    static const char *const want[] = {
        "\n.br\nOne of bf16, f32.\n",       "\n.br\nA whole number from 0 to 4096.\n",
        "\n.br\nA number from 0 to 0.9.\n", "\n.br\nA whole number from 0 to 2\\(ha63 \\- 1.\n",
        "\n.br\nA directory. Required.\n",  "\n.br\nA name or a file.\n",
    };
    for (size_t i = 0; i < sizeof want / sizeof *want; i++)
        CHECK_MSG(strstr(page.out, want[i]), "missing: %s", want[i]);
    test_run_free(&page);
}

/* The help of --beta1, --beta2 and --epsilon names the defaults that geul_optimizers.def has. */
TEST(command_help_has_the_optimizers_defaults)
{
    static const struct {
        const char *usual, *note;
    } rows[][3] = {
#define HYPER(usual, least, most, note, meaning)                                                                       \
    {                                                                                                                  \
#usual, note                                                                                                   \
    }
#define OPTIMIZER(id, name, title, state0, state1, beta1, beta2, epsilon, weight_decay) {beta1, beta2, epsilon},
#include "geul_optimizers.def"
#undef OPTIMIZER
#undef HYPER
    };
    static const char *const names[] = {"--beta1 X ", "--beta2 X ", "--epsilon X "};
    struct test_run r = GEUL("finetune", "--help");
    char text[65536], want[64];
    size_t n = 0;
    for (const char *at = r.out; *at && n + 1 < sizeof text; at++) /* without the line breaks */
        if (*at != '\n' && !(*at == ' ' && n > 0 && text[n - 1] == ' '))
            text[n++] = *at;
    text[n] = '\0';
    for (int j = 0; j < 3; j++) {
        const char *option = strstr(text, names[j]), *end = option ? strstr(option, " (default ") : NULL;
        REQUIRE(end);
        snprintf(want, sizeof want, "-1: %s", rows[0][j].usual);
        const char *found = strstr(option, want);
        CHECK_MSG(found && found < end, "%sdoes not say %s", names[j], want);
        for (size_t i = 1; i < sizeof rows / sizeof *rows; i++) {
            found = strstr(option, rows[i][j].note);
            CHECK_MSG(found && found < end, "%sdoes not say%s", names[j], rows[i][j].note);
            CHECK_MSG(strcmp(rows[i][j].usual, rows[0][j].usual) == 0 || strstr(rows[i][j].note, rows[i][j].usual),
                      "%s: the note does not say %s", names[j], rows[i][j].usual);
        }
    }
    test_run_free(&r);
}

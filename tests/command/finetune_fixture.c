/* finetune_fixture.c: see finetune_fixture.h. */
#include "tests/command/finetune_fixture.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

void words_add(struct words *w, const char *const *more)
{
    while (*more && w->n < 62)
        w->items[w->n++] = *more++;
    w->items[w->n] = NULL;
}

const char *finetune_rows(const char *name, int n, uint64_t seed)
{
    static const char *const places[] = {"서울", "부산", "대구", "인천", "광주", "대전", "울산", "제주"};
    static char path[1024];
    snprintf(path, sizeof path, "%s", test_scratch(name));
    FILE *f = fopen(path, "w");
    for (int i = 0; f && i < n; i++) {
        const char *a = places[test_random(&seed) % 8], *b = places[test_random(&seed) % 8];
        fprintf(f, "{\"instruction\": \"%s에서 %s까지?\", \"output\": \"", a, b);
        for (uint64_t k = test_random(&seed) % 3; k < 3; k++)
            fprintf(f, "%d킬로미터. ", (int)(test_random(&seed) % 400));
        fprintf(f, "\"}\n");
    }
    CHECK_MSG(f && fclose(f) == 0, "cannot write %s", path);
    return path;
}

struct words finetune_words(const char *model, const char *rows)
{
    struct words w = {.n = 0};
    WORDS(&w, "finetune", "-m", model, "--train-file", rows, "-t", "1", "-c", "64", "-b", "2", "--held-out", "0",
          "--sample-every", "0");
    return w;
}

struct test_run finetune(const struct words *w)
{
    return test_geul(w->items, NULL, 0);
}

pid_t finetune_start(const struct words *w, const char *output)
{
    fflush(NULL);
    pid_t pid = fork();
    if (pid != 0)
        return pid;
    char *argv[66] = {(char *)(uintptr_t) "geul"};
    for (int i = 0; i < w->n; i++)
        argv[i + 1] = (char *)(uintptr_t)w->items[i];
    int fd = open(output, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    dup2(fd, STDOUT_FILENO);
    dup2(fd, STDERR_FILENO);
    execv(GEUL_BINARY, argv);
    _exit(127);
}

long finetune_last_step(const char *dir)
{
    char line[512];
    long last = 0;
    FILE *f = fopen(in(dir, "log.csv"), "r");
    while (f && fgets(line, sizeof line, f)) {
        char *end;
        long step = strtol(line, &end, 10);
        if (end > line && *end == ',')
            last = step;
    }
    if (f)
        fclose(f);
    return last;
}

long finetune_killed(const struct words *w, const char *dir, long step, unsigned more)
{
    char output[1024];
    snprintf(output, sizeof output, "%s", test_scratch("killed.txt"));
    pid_t pid = finetune_start(w, output);
    int status = 0;
    if (!CHECK(pid > 0))
        return -1;
    while (finetune_last_step(dir) < step && waitpid(pid, &status, WNOHANG) == 0)
        usleep(500);
    usleep(more);
    kill(pid, SIGKILL);
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        ;
    if (WIFSIGNALED(status))
        return finetune_last_step(dir);
    char *text = test_slurp(output, NULL);
    CHECK_MSG(WIFEXITED(status) && WEXITSTATUS(status) == 0, "the run failed: %s", text ? text : "");
    free(text);
    return -1;
}

const char *in(const char *dir, const char *name)
{
    static char paths[8][1200];
    static int turn;
    turn = (turn + 1) % 8;
    snprintf(paths[turn], sizeof paths[turn], "%s/%s", dir, name);
    return paths[turn];
}

bool exists(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0;
}

void check_same_file(const char *dir, const char *other, const char *name)
{
    size_t a_size = 0, b_size = 0;
    char *a = test_slurp(in(dir, name), &a_size), *b = test_slurp(in(other, name), &b_size);
    CHECK_MSG(a && b && a_size == b_size && memcmp(a, b, a_size) == 0, "%s is not the same (%zu and %zu bytes)", name,
              a_size, b_size);
    free(a);
    free(b);
}

/* Takes the values behind a name in JSON lines away. */
static void blank_value(char *text, const char *name)
{
    for (char *at = text; (at = strstr(at, name));) {
        at += strlen(name);
        size_t n = strcspn(at, ",}");
        memmove(at, at + n, strlen(at + n) + 1);
    }
}

/* Takes the lines that hold a text away. */
static void drop_lines(char *text, const char *holds)
{
    for (char *line = text; *line;) {
        size_t n = strcspn(line, "\n");
        n += line[n] == '\n';
        const char *found = strstr(line, holds);
        if (found && found < line + n)
            memmove(line, line + n, strlen(line + n) + 1);
        else
            line += n;
    }
}

/* Takes a column of the lines of a CSV away, from 0. */
static void blank_column(char *text, int column)
{
    for (char *line = text; *line;) {
        char *at = line;
        for (int i = 0; i < column && *at && *at != '\n'; at++)
            i += *at == ',';
        size_t n = strcspn(at, ",\n");
        memmove(at, at + n, strlen(at + n) + 1);
        line = strchr(at, '\n');
        if (!line)
            return;
        line++;
    }
}

void check_same_logs(const char *dir, const char *other)
{
    char *text[2][2];
    const char *const dirs[2] = {dir, other};
    for (int i = 0; i < 2; i++) {
        text[i][0] = test_slurp(in(dirs[i], "log.csv"), NULL);
        text[i][1] = test_slurp(in(dirs[i], "log.jsonl"), NULL);
        if (!text[i][0] || !text[i][1])
            return;
        blank_column(text[i][0], 8); /* seconds */
        blank_column(text[i][0], 4); /* tokens_per_second */
        blank_value(text[i][1], "\"tokens_per_second\":");
        blank_value(text[i][1], "\"seconds\":");
        drop_lines(text[i][1], "\"kind\":\"resumed\"");
        drop_lines(text[i][1], "\"kind\":\"setting changed\"");
    }
    for (int k = 0; k < 2; k++) {
        CHECK_MSG(strcmp(text[0][k], text[1][k]) == 0, "%s differs:\n%s\nand\n%s", k ? "log.jsonl" : "log.csv",
                  text[0][k], text[1][k]);
        free(text[0][k]);
        free(text[1][k]);
    }
}

void check_stops(const char *what, struct test_run r, int status, const char *holds)
{
    static const char begins[] = "geul finetune: ";
    const char *last = r.err ? r.err : "";
    for (const char *at = last; (at = strchr(at, '\n')) && at[1];)
        last = ++at;
    CHECK_MSG(r.status == status, "%s: exit code %d, expected %d; the last line is %s", what, r.status, status, last);
    CHECK_MSG(strncmp(last, begins, sizeof begins - 1) == 0, "%s: the last line is \"%s\"", what, last);
    CHECK_MSG(strstr(last, holds), "%s: \"%s\" is not in \"%s\"", what, holds, last);
    CHECK_MSG(fixture_is_utf8(r.err, r.err_length), "%s: the message is not UTF-8", what);
    printf("  %s: %s", what, last);
    test_run_free(&r);
}

/* test_finetune_lock.c: one run at a time in a directory. */
#include "tests/command/finetune_fixture.h"

#include <errno.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

/* Ends a run with a signal and waits for it. Returns what waitpid() says. */
static int end(pid_t pid, int signal_number)
{
    int status = 0;
    kill(pid, signal_number);
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        ;
    return status;
}

/* Waits until the log of a run that goes on has a step. */
static bool wait_for_step(const char *dir, long step)
{
    for (int i = 0; i < 20000 && finetune_last_step(dir) < step; i++)
        usleep(1000);
    return CHECK_MSG(finetune_last_step(dir) >= step, "the run in %s does not come to step %ld", dir, step);
}

static struct words long_run(const char *dir)
{
    static char model[1024];
    snprintf(model, sizeof model, "%s", fixture_model());
    struct words w = finetune_words(model, finetune_rows("rows.jsonl", 40, 3));
    WORDS(&w, "--steps", "1000000", "--save-every", "1", "--eval-every", "0", "-o", dir);
    return w;
}

TEST(finetune_second_run_in_a_directory_is_refused)
{
    char dir[600], named[700];
    snprintf(dir, sizeof dir, "%s", test_scratch("run"));
    struct words w = long_run(dir), resumed = w;
    WORDS(&resumed, "--resume");
    pid_t pid = finetune_start(&w, test_scratch("first.txt"));
    REQUIRE(pid > 0);
    if (wait_for_step(dir, 3)) {
        snprintf(named, sizeof named, "run is in use: process %ld writes there; wait until it ends", (long)pid);
        check_stops("a new run", finetune(&w), 1, named);
        check_stops("a resumed run", finetune(&resumed), 1, named);
        struct words plan = w; /* which writes nothing */
        WORDS(&plan, "--plan");
        struct test_run r = finetune(&plan);
        CHECK_MSG(r.status == 0, "%s", r.err);
        test_run_free(&r);
        wait_for_step(dir, finetune_last_step(dir) + 2); /* the first goes on */
    }
    CHECK(WIFSIGNALED(end(pid, SIGKILL)));
    /* The steps of the log ascend by one: nothing was mixed in. */
    FILE *f = fopen(in(dir, "log.csv"), "r");
    REQUIRE(f != NULL);
    char line[512];
    for (long row = 0; fgets(line, sizeof line, f); row++) {
        long step = row == 0 ? 0 : strtol(line, NULL, 10); /* the first holds names */
        CHECK_MSG(step == row, "row %ld is of step %ld", row, step);
    }
    fclose(f);
    /* A killed run leaves no lock behind, only its file. */
    CHECK(exists(in(dir, "lock")));
    pid = finetune_start(&resumed, test_scratch("second.txt"));
    wait_for_step(dir, finetune_last_step(dir) + 2);
    CHECK(WIFEXITED(end(pid, SIGINT)));
    CHECK(!exists(in(dir, "lock")));
}

/* `geul train` writes the model that it starts from before anything else: not into a directory that is in use, and not
 * into one that holds an older run. */
TEST(train_leaves_another_runs_model_alone)
{
    char dir[600], model[600], kept[600];
    snprintf(dir, sizeof dir, "%s", test_scratch("run"));
    snprintf(kept, sizeof kept, "%s", test_scratch("kept/"));
    snprintf(model, sizeof model, "%s", fixture_model());
    struct words w = {.n = 0};
    WORDS(&w, "train", "--tokenizer", model, "--layers", "1", "--width", "32", "--heads", "2", "-c", "32", "-b", "1",
          "-t", "1", "--train-file", finetune_rows("rows.jsonl", 40, 3), "--template", "koalpaca", "--sample-every",
          "0", "--eval-every", "0", "--save-every", "1", "-o", dir, "--steps", "1000000", "-s");
    struct words first = w, second = w;
    WORDS(&first, "1");
    WORDS(&second, "2"); /* other weights */
    pid_t pid = finetune_start(&first, test_scratch("first.txt"));
    REQUIRE(pid > 0);
    size_t size;
    for (int ended = 0; ended < 2 && wait_for_step(dir, 2); ended++) {
        char *before = test_slurp(in(dir, "initial.gguf"), &size);
        REQUIRE(before && test_spill(in(kept, "initial.gguf"), before, size));
        free(before);
        struct test_run r = finetune(&second);
        CHECK_INT(r.status, 1);
        CHECK_MSG(strstr(r.err, ended ? "exists already" : "is in use"), "%s", r.err);
        test_run_free(&r);
        check_same_file(dir, kept, "initial.gguf");
        if (!ended)
            end(pid, SIGKILL);
    }
}

/* A run that comes to nothing leaves no directory. */
TEST(finetune_leaves_no_empty_directory)
{
    char dir[600];
    snprintf(dir, sizeof dir, "%s", test_scratch("run"));
    struct words w = long_run(dir);
    w.items[4] = test_scratch("none.jsonl");
    REQUIRE(strcmp(w.items[3], "--train-file") == 0);
    check_stops("no data", finetune(&w), 1, "none.jsonl");
    CHECK(!exists(dir));
}

/* finetune_fixture.h: what the tests of `geul finetune` share: rows to learn, and runs that are killed. */
#ifndef GEUL_TESTS_FINETUNE_FIXTURE_H
#define GEUL_TESTS_FINETUNE_FIXTURE_H

#include "tests/command/command_fixture.h"

#include <sys/types.h>

/* Arguments of one run; add() takes NULL for none. */
struct words {
    const char *items[64];
    int n;
};
void words_add(struct words *w, const char *const *more);
#define WORDS(w, ...) words_add(w, (const char *const[]){__VA_ARGS__, NULL})

/* A file of n questions and answers; its path lives as long as the test. */
const char *finetune_rows(const char *name, int n, uint64_t seed);
/* What most runs begin with: finetune -m model --train-file rows -t 1 and small batches, no samples. */
struct words finetune_words(const char *model, const char *rows);

/* Runs it to its end. */
struct test_run finetune(const struct words *w);
/* Starts it, with its output in a file; the caller waits for it. */
pid_t finetune_start(const struct words *w, const char *output);
/* Runs it until dir/log.csv has a step >= `step`, waits `more` microseconds and sends SIGKILL. Returns the last step of
 * the log then; -1: the run ended before, with a failed check unless it went well. */
long finetune_killed(const struct words *w, const char *dir, long step, unsigned more);
/* The last step in dir/log.csv, 0: none. */
long finetune_last_step(const char *dir);

/* dir/name; static storage, eight in turn. */
const char *in(const char *dir, const char *name);
bool exists(const char *path);
/* Checks that both files hold the same bytes. */
void check_same_file(const char *dir, const char *other, const char *name);
/* The same for log.csv and log.jsonl, but for what comes from the clock and for what tells of resuming. */
void check_same_logs(const char *dir, const char *other);
/* Checks the exit code, and that the last line on stderr begins with "geul finetune: " and holds `holds`; frees r. */
void check_stops(const char *what, struct test_run r, int status, const char *holds);

#endif

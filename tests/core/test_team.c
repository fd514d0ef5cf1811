/* test_team.c: teams of threads, and what becomes of them where the system refuses threads. Each test is a process of
 * its own, so limits that it sets end with it. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* setresuid */
#endif
#include "core/os.h"
#include "core/team.h"
#include "tests/harness.h"

#include <pthread.h>
#include <stdatomic.h>
#include <sys/resource.h>
#include <unistd.h>

enum { MOST = 64, ITEMS = 1000 };
#ifdef __clang__
enum { REGAINED = 2 }; /* libomp does not end the threads that a team gives up: they count against the limit */
#else
enum { REGAINED = 4 };
#endif

struct seen {
    atomic_int times[MOST]; /* per thread */
    atomic_int n_threads;
};

static void look(void *user, int thread, int n_threads)
{
    struct seen *s = user;
    s->times[thread]++;
    s->n_threads = n_threads;
}

/* Runs a region that should have n threads; returns how many it had. */
static int region(int n)
{
    struct seen s = {.n_threads = 0};
    geul_team_run(n, look, &s);
    int had = s.n_threads;
    CHECK(had >= 1 && (n == 0 || had <= n));
    for (int i = 0; i < MOST; i++)
        CHECK_INT(s.times[i], i < had);
    return had;
}

TEST(team_has_the_threads_it_is_asked_for)
{
    const int sizes[] = {1, 2, 7, 3, 64, 2, 1, 64, 5};
    for (int round = 0; round < 3; round++)
        for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
            CHECK_INT(region(sizes[i]), sizes[i]);
    CHECK(region(0) >= 1);
}

struct items {
    atomic_int times[ITEMS];
    atomic_int most;
};

static void count_item(void *user, int64_t i, int thread)
{
    struct items *s = user;
    s->times[i]++;
    if (thread > s->most)
        s->most = thread;
}

TEST(team_loop_does_every_item_once)
{
    static struct items s;
    for (int n = 1; n <= 9; n += 4) {
        memset(&s, 0, sizeof s);
        geul_team_loop(n, ITEMS, count_item, &s);
        for (int i = 0; i < ITEMS; i++)
            CHECK_INT(s.times[i], 1);
        CHECK(s.most < n);
    }
    geul_team_loop(4, 0, count_item, &s);
}

/* A limit of memory that leaves room for a few stacks of 8 MiB. libgomp would end the process. */
TEST(team_is_smaller_when_memory_is_short)
{
    if (test_sanitized()) {
        test_skip("sanitizers reserve more memory than any limit");
        return;
    }
    unsigned long long pages = 0;
    FILE *f = fopen("/proc/self/statm", "r");
    REQUIRE(f && fscanf(f, "%llu", &pages) == 1);
    fclose(f);
    struct rlimit limit;
    REQUIRE(getrlimit(RLIMIT_AS, &limit) == 0);
    limit.rlim_cur = (rlim_t)pages * (rlim_t)sysconf(_SC_PAGESIZE) + ((rlim_t)100 << 20);
    const rlim_t wanted = limit.rlim_cur;
    REQUIRE(setrlimit(RLIMIT_AS, &limit) == 0 && getrlimit(RLIMIT_AS, &limit) == 0);
    if (limit.rlim_cur != wanted) {
        test_skip("limits of memory do not hold here (qemu ignores them)");
        return;
    }
    int had = region(MOST);
    printf("%d threads\n", had);
    CHECK(had < MOST);
    CHECK_INT(region(MOST), had); /* not tried again at once */
    CHECK_INT(region(2), 2);
    /* Nothing at all to spare. */
    limit.rlim_cur = 1 << 20;
    REQUIRE(setrlimit(RLIMIT_AS, &limit) == 0);
    CHECK(region(2) <= 2 && region(MOST) < MOST && region(3) <= 3);
}

/* Sets the limit of processes of a user who has none yet: other than root. false: not here. */
static bool limit_processes(rlim_t n)
{
    struct rlimit limit = {n, n};
    const uid_t nobody = 64999; /* nobody else runs anything as this one */
    return setrlimit(RLIMIT_NPROC, &limit) == 0 && setresuid(nobody, nobody, nobody) == 0;
}

TEST(team_is_smaller_at_the_limit_of_processes)
{
    if (test_sanitized() || !limit_processes(4)) {
        test_skip("only root can become a user without processes, and sanitizers have threads of their own");
        return;
    }
    CHECK_INT(region(3), 3);
    CHECK_INT(region(MOST), 4);
    CHECK_INT(region(2), 2);
    CHECK(region(5) >= 2); /* the two that were given up may still be ending */
    usleep(1200000);       /* after a second it is tried again */
    CHECK_INT(region(5), REGAINED);
    CHECK_INT(region(MOST), REGAINED);
}

static void *regions(void *user)
{
    for (int i = 0; i < 20; i++)
        *(int *)user += region(1 + i % 6);
    return NULL;
}

/* Callers that make their teams at the same time do not count on the same threads. */
TEST(teams_share_the_last_threads)
{
    if (!limit_processes(7)) {
        test_skip("only root can become a user without processes");
        return;
    }
    pthread_t callers[3];
    int sums[3] = {0};
    for (int i = 0; i < 3; i++)
        REQUIRE(pthread_create(&callers[i], NULL, regions, &sums[i]) == 0);
    for (int i = 0; i < 3; i++) {
        pthread_join(callers[i], NULL);
        CHECK(sums[i] >= 20);
    }
}

static void nest(void *user, int thread, int n_threads)
{
    atomic_int *inner = user;
    (void)thread, (void)n_threads;
    *inner += region(4);
}

TEST(team_inside_a_region_is_its_one_thread)
{
    atomic_int inner = 0;
    geul_team_run(3, nest, &inner);
    CHECK_INT(inner, 3);
}

/* team.c: see team.h. OpenMP makes the threads, and keeps them for the next region of the same calling thread.
 *
 * OpenMP's runtimes end the process when they cannot make a thread or a table of threads. So nothing is asked of them
 * that has not just been tried: before a calling thread's team grows or changes its size, as many threads as it will
 * need, with the same stacks, and memory for the runtime's tables are taken, all at once, and given back. Then an empty
 * region makes the team. One calling thread at a time does both, or two would count on the same last threads. Later
 * regions of that size ask for nothing: they find their threads waiting.
 *
 *     geul_team_run(4)   try 3 threads: 3   empty region of 4   region of 4   made 4
 *     geul_team_run(4)                                          region of 4
 *     geul_team_run(9)   try 5 threads: 2   empty region of 6   region of 6   made 6, tried again after a second
 *
 * What stays open is another process of the same user that takes the last threads in the moment between. */
#include "core/team.h"

#include "core/os.h"

#include <omp.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

#define HEAP_BYTES      ((size_t)64 << 10) /* for the runtime's tables: a few KiB in libgomp, more in libomp */
#define HEAP_PER_THREAD ((size_t)64 << 10)
#define LEAST_STACK     ((size_t)256 << 10) /* kernels have tiles on their stacks */
#define RETRY_SECONDS   1.0

/* The team that OpenMP keeps for this thread. */
static _Thread_local struct {
    int asked, made; /* threads; 0 before the first region */
    double retry_at; /* when made < asked: the time of the next attempt */
} mine;

static pthread_mutex_t making = PTHREAD_MUTEX_INITIALIZER;
static atomic_int computing; /* threads in regions */

/* A region as its threads see it. ready and left order what the calling thread writes before the region before what the
 * others read in it, and the other way at its end. OpenMP does too, but that is hidden from tools that check it. */
struct region {
    geul_team_body *body;
    void *user;
    atomic_int ready, left;
};

/* The bytes that an OMP_STACKSIZE asks for: a number with B, K (without any), M, G or T behind it. 0: not a size. */
static size_t parse_stack(const char *text)
{
    static const char units[] = "bkmgt";
    char *end;
    if (!text)
        return 0;
    unsigned long long value = strtoull(text, &end, 10);
    int shift = 10;
    end += *end == ' ';
    for (int i = 0; *end && units[i]; i++)
        if ((*end | 0x20) == units[i])
            shift = 10 * i;
    return value > (SIZE_MAX >> 1 >> shift) ? SIZE_MAX >> 1 : (size_t)value << shift;
}

/* Bytes of stack to try threads with, no fewer than the runtime's threads have; *least: those have at least. */
static size_t stack_bytes(size_t *least)
{
    static const char *const names[] = {"OMP_STACKSIZE", "GOMP_STACKSIZE", "KMP_STACKSIZE"};
    size_t most = *least = geul_os_thread_stack();
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        size_t bytes = parse_stack(geul_os_env(names[i]));
        most = bytes > most ? bytes : most;
        *least = bytes > 0 && bytes < *least ? bytes : *least;
    }
    /* A little more: libomp adds some per thread, and glibc, which keeps the stacks of ended threads, must find them
     * large enough for the next ones. Otherwise those it keeps would take up the memory that was just found free. */
    return most < SIZE_MAX / 2 ? most + most / 8 + ((size_t)128 << 10) : most;
}

/* Makes this thread's team one of n threads, or of as many as can be had. */
static void make_team(int n)
{
    size_t least, stack = stack_bytes(&least);
    int had = mine.made > 0 ? mine.made : 1, more = n > had ? n - had : 0;
    pthread_mutex_lock(&making);
    int got = least < LEAST_STACK ? -1 : geul_os_try_threads(more, stack, HEAP_BYTES + (size_t)n * HEAP_PER_THREAD);
    int possible = got < 0 ? 1 : n - more + got;
    mine.asked = n;
    mine.made = 1;
    if (possible > 1) {
#pragma omp parallel num_threads(possible)
        {
#pragma omp master
            mine.made = omp_get_num_threads();
        }
    }
    pthread_mutex_unlock(&making);
    mine.retry_at = geul_os_seconds() + RETRY_SECONDS;
}

/* The number of threads for a region that should have n. */
static int team_size(int n)
{
    if (n == 0)
        n = geul_os_cores();
    if (n == 1 || omp_in_parallel())
        return 1;
    if (mine.asked != n || (mine.made < n && geul_os_seconds() >= mine.retry_at))
        make_team(n);
    return mine.made;
}

void geul_team_run(int n_threads, geul_team_body *body, void *user)
{
    int n = team_size(n_threads);
    atomic_fetch_add_explicit(&computing, n, memory_order_relaxed);
    if (n == 1) {
        body(user, 0, 1);
    } else {
        struct region region = {.body = body, .user = user}, *r = &region;
        atomic_store_explicit(&r->ready, 1, memory_order_release);
#pragma omp parallel num_threads(n) firstprivate(r)
        {
            (void)atomic_load_explicit(&r->ready, memory_order_acquire);
            r->body(r->user, omp_get_thread_num(), omp_get_num_threads());
            atomic_fetch_add_explicit(&r->left, 1, memory_order_release);
        }
        (void)atomic_load_explicit(&r->left, memory_order_acquire);
    }
    atomic_fetch_sub_explicit(&computing, n, memory_order_relaxed);
}

struct loop {
    geul_team_item *item;
    void *user;
    int64_t n;
    _Atomic int64_t next;
};

static void take_items(void *user, int thread, int n_threads)
{
    struct loop *l = user;
    (void)n_threads;
    for (int64_t i; (i = atomic_fetch_add_explicit(&l->next, 1, memory_order_relaxed)) < l->n;)
        l->item(l->user, i, thread);
}

void geul_team_loop(int n_threads, int64_t n, geul_team_item *item, void *user)
{
    struct loop loop = {.item = item, .user = user, .n = n};
    geul_team_run(n_threads, take_items, &loop);
}

bool geul_team_crowded(void)
{
    static atomic_int cores; /* asking the system takes too long for a waiting loop */
    int known = atomic_load_explicit(&cores, memory_order_relaxed);
    if (known == 0) {
        known = geul_os_cores();
        atomic_store_explicit(&cores, known, memory_order_relaxed);
    }
    return atomic_load_explicit(&computing, memory_order_relaxed) > known;
}

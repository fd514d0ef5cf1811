/* cuda_rig.c: launches, the order of threads, collectives, shared memory, asynchronous copies. What the collectives
 * compute is in cuda_rig_math.c.
 *
 * A segment of a warp is what its 32 lanes do up to their next collective, or up to their end; each runs once in it. At
 * the end of a segment all lanes must stand at the same collective; it is completed, and the schedule chooses the warp
 * whose next segment runs. A fiber that comes to the end of a thread begins the next one itself: where a kernel has no
 * collectives, one fiber runs all threads of a block without a switch. */
#include "tests/cuda_host/cuda_rig.h"

#include "tests/cuda_host/fibers.h"

#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define WITH_ASAN 1
#endif
#endif
#if defined(__SANITIZE_ADDRESS__)
#define WITH_ASAN 1
#endif
#ifdef WITH_ASAN
#include <sanitizer/asan_interface.h>
#define POISON(p, bytes)   __asan_poison_memory_region(p, bytes)
#define UNPOISON(p, bytes) __asan_unpoison_memory_region(p, bytes)
#else
#define POISON(p, bytes)   (void)0
#define UNPOISON(p, bytes) (void)0
#endif

enum {
    LANES = 32,
    MOST_WARPS = 32,
    MOST_ARRAYS = 16,
    MOST_GRID_YZ = 65535,
    GAP = 512,                     /* bytes of canaries on each side of an array */
    MOST_SHARED = 227 * 1024,      /* of a block, on any card */
    MOST_STATIC_SHARED = 48 * 1024 /* of the arrays that SHARED() declares: CUDA's limit */
};

/* ------------------------------------------------------------------------------------- state -- */

struct copy {
    void *to;
    uint8_t bytes[16];
    long group;
};

/* A thread of the block. Its asynchronous copies: those that are under way, and the group that the next one is in. */
struct lane {
    struct fiber *fiber; /* NULL: not begun */
    bool ended;
    const struct cuda_host_collective *what; /* where it waits */
    struct cuda_host_site site;
    void *args;
    struct copy *copies;
    int n_copies, most_copies;
    long group;
};

enum warp_state { READY, AT_BARRIER, ENDED };
struct warp {
    enum warp_state state;
    struct lane lanes[LANES];
    int n_run;       /* lanes that have run in this segment; lane number i of it is start + i * step */
    int start, step; /* step is odd */
};

/* An array of the block's shared memory. */
struct placed {
    const char *name;
    uint8_t *at;
    size_t bytes;
};

struct cuda_host_place cuda_host_now;
int (*cuda_host_hook)(struct cuda_stream *, const struct cuda_host_launch *);

/* What runs; one launch at a time. */
static struct {
    pthread_mutex_t lock;
    enum cuda_host_schedule schedule;
    const struct cuda_host_launch *launch;
    int n_warps;
    struct warp warps[MOST_WARPS];
    int warp, lane; /* the one that runs */
    struct fiber main;
    struct fiber fibers[MOST_WARPS * LANES], *free[MOST_WARPS * LANES];
    int n_made, n_free;
    uint32_t random;
    struct placed arrays[MOST_ARRAYS];
    int n_arrays;
    size_t used, static_bytes; /* of memory; and of what SHARED() has placed */
    size_t shared_most;
    int error; /* of the launch */
    char failure[600];
} rig = {.lock = PTHREAD_MUTEX_INITIALIZER, .shared_most = 99 * 1024};

static _Alignas(128) uint8_t memory[MOST_SHARED + MOST_ARRAYS * (2 * GAP + 128)];

/* Canaries are NaN as float32 and float16: what reads beyond an array does not find a number. */
static const uint8_t canary[4] = {0x5a, 0xff, 0xff, 0xff};

/* ---------------------------------------------------------------------------------- failures -- */

/* Records a failure of the launch, unless an earlier one stands. */
static void record(int error, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void record(int error, const char *format, ...)
{
    rig.error = rig.error ? rig.error : error;
    if (rig.failure[0])
        return;
    const struct cuda_host_launch *l = rig.launch;
    const struct cuda_host_place *now = &cuda_host_now;
    int n = snprintf(rig.failure, sizeof rig.failure, "kernel %s launched at %s:%d, ", l->kernel, l->file, l->line);
    size_t at = n < 0 ? 0 : (size_t)n < sizeof rig.failure ? (size_t)n : sizeof rig.failure - 1;
    if (error == CUDA_HOST_LAUNCH_FAILURE) {
        n = snprintf(rig.failure + at, sizeof rig.failure - at, "block (%d, %d, %d), thread %d, %s: ", now->block[0],
                     now->block[1], now->block[2], now->thread, cuda_host_schedule_name((int)rig.schedule));
        at = n < 0 ? at : at + (size_t)n < sizeof rig.failure ? at + (size_t)n : sizeof rig.failure - 1;
    }
    va_list args;
    va_start(args, format);
    vsnprintf(rig.failure + at, sizeof rig.failure - at, format, args);
    va_end(args);
}

void cuda_host_fail(struct cuda_host_site site, const char *format, ...)
{
    char text[300];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    record(CUDA_HOST_LAUNCH_FAILURE, "%s:%d: %s", site.file, site.line, text);
    fiber_switch(rig.warps[rig.warp].lanes[rig.lane].fiber, &rig.main);
    abort(); /* not reached: nobody goes on in a fiber of a failed launch */
}

const char *cuda_host_failure(void)
{
    return rig.failure;
}

void cuda_host_forget(void)
{
    rig.failure[0] = '\0';
}

/* --------------------------------------------------------------------------------- schedules -- */

void cuda_host_schedule(enum cuda_host_schedule schedule)
{
    rig.schedule = schedule;
}

bool cuda_host_use(int schedule)
{
    bool there = schedule < CUDA_HOST_SCHEDULES;
    rig.schedule = there ? (enum cuda_host_schedule)schedule : CUDA_HOST_LOCK_STEP;
    return there;
}

const char *cuda_host_schedule_name(int schedule)
{
    static const char *const names[CUDA_HOST_SCHEDULES] = {"in lock step", "in lock step from the end",
                                                           "first warp ahead", "last warp ahead", "in random order"};
    return schedule >= 0 && schedule < CUDA_HOST_SCHEDULES ? names[schedule] : "?";
}

/* Whether warps, lanes and blocks go from the last to the first. */
static bool falling(void)
{
    return rig.schedule == CUDA_HOST_LOCK_STEP_BACK || rig.schedule == CUDA_HOST_LAST_AHEAD;
}

static uint32_t draw(void)
{
    rig.random = rig.random * 1664525u + 1013904223u;
    return rig.random >> 8;
}

/* Begins the next segment of a warp: settles the order of its lanes. */
static void begin_segment(int warp)
{
    struct warp *w = &rig.warps[warp];
    rig.warp = warp;
    w->n_run = 0;
    w->start = falling() ? LANES - 1 : 0;
    w->step = falling() ? -1 : 1;
    if (rig.schedule == CUDA_HOST_RANDOM) {
        w->start = (int)(draw() % LANES);
        w->step = (int)(draw() % LANES) | 1;
    }
}

/* The first READY warp from `from` on, going round in steps of 1 or -1; -1: none. */
static int ready_from(int from, int step)
{
    for (int i = 0; i < rig.n_warps; i++) {
        int warp = (from + i * step + rig.n_warps) % rig.n_warps;
        if (rig.warps[warp].state == READY)
            return warp;
    }
    return -1;
}

/* The warp whose next segment runs, among those that are READY, after one of warp number `last`; -1: none. */
static int choose_warp(int last)
{
    switch (rig.schedule) {
    case CUDA_HOST_LOCK_STEP:
        return ready_from(last + 1, 1);
    case CUDA_HOST_LOCK_STEP_BACK:
        return ready_from(last - 1 + rig.n_warps, -1);
    case CUDA_HOST_FIRST_AHEAD:
        return ready_from(0, 1);
    case CUDA_HOST_LAST_AHEAD:
        return ready_from(rig.n_warps - 1, -1);
    default:
        return ready_from((int)(draw() % (uint32_t)rig.n_warps), 1);
    }
}

/* ------------------------------------------------------------------------------------- order -- */

/* "returned" or "at barrier(), file:line". */
static const char *whereabouts(const struct lane *l, char *text, size_t size)
{
    if (l->ended)
        snprintf(text, size, "has returned");
    else
        snprintf(text, size, "is at %s(), %s:%d", l->what->name, l->site.file, l->site.line);
    return text;
}

/* Whether two threads of the block stand at the same collective, or have both ended. */
static bool together(const struct lane *a, const struct lane *b)
{
    if (a->ended || b->ended)
        return a->ended == b->ended;
    return a->what == b->what && a->site.line == b->site.line &&
           (a->site.file == b->site.file || strcmp(a->site.file, b->site.file) == 0);
}

/* Records that two threads of the block do not stand together. */
static void part(int a, int b)
{
    char text_a[200], text_b[200];
    const struct lane *la = &rig.warps[a / LANES].lanes[a % LANES], *lb = &rig.warps[b / LANES].lanes[b % LANES];
    record(CUDA_HOST_LAUNCH_FAILURE, "thread %d %s, thread %d %s", a, whereabouts(la, text_a, sizeof text_a), b,
           whereabouts(lb, text_b, sizeof text_b));
}

/* All lanes of the running warp have come to the end of its segment: completes their collective. false: failed. */
static bool end_segment(void)
{
    struct warp *w = &rig.warps[rig.warp];
    for (int i = 1; i < LANES; i++)
        if (!together(&w->lanes[0], &w->lanes[i])) {
            part(rig.warp * LANES, rig.warp * LANES + i);
            return false;
        }
    if (w->lanes[0].ended) {
        w->state = ENDED;
    } else if (w->lanes[0].what->of_block) {
        w->state = AT_BARRIER;
    } else if (w->lanes[0].what->complete) {
        void *args[LANES];
        for (int i = 0; i < LANES; i++)
            args[i] = w->lanes[i].args;
        w->lanes[0].what->complete(args);
    }
    return true;
}

/* No warp is READY: either the block has ended, or all its threads are at the same barrier, and go on. Returns whether
 * they do. */
static bool end_phase(void)
{
    for (int warp = 1; warp < rig.n_warps; warp++)
        if (!together(&rig.warps[0].lanes[0], &rig.warps[warp].lanes[0])) {
            part(0, warp * LANES);
            return false;
        }
    if (rig.warps[0].state == ENDED)
        return false;
    for (int warp = 0; warp < rig.n_warps; warp++)
        rig.warps[warp].state = READY;
    return true;
}

/* The thread after the running one has come to a collective or its end; it becomes the running one. NULL: the block has
 * ended or failed. */
static struct lane *advance(void)
{
    struct warp *w = &rig.warps[rig.warp];
    if (w->n_run == LANES) {
        if (!end_segment())
            return NULL;
        int next = choose_warp(rig.warp);
        if (next < 0) {
            if (!end_phase())
                return NULL;
            /* From a barrier on all schedules begin anew. */
            next = choose_warp(falling() ? 0 : rig.n_warps - 1);
        }
        begin_segment(next);
        w = &rig.warps[next];
    }
    rig.lane = (w->start + w->n_run++ * w->step) & (LANES - 1);
    cuda_host_now.thread = rig.warp * LANES + rig.lane;
    return &w->lanes[rig.lane];
}

/* What every fiber does: runs the thread that is the running one and has not begun; then the next, and so on. */
static void run_threads(void)
{
    fiber_begun();
    for (;;) {
        struct lane *l = &rig.warps[rig.warp].lanes[rig.lane];
        rig.launch->call(rig.launch->args);
        struct fiber *self = l->fiber;
        l->ended = true;
        struct lane *next = advance();
        if (next && !next->fiber) {
            next->fiber = self;
        } else {
            rig.free[rig.n_free++] = self;
            fiber_switch(self, next ? next->fiber : &rig.main);
        }
    }
}

/* A fiber for a thread that begins. NULL: no memory (recorded). */
static struct fiber *take_fiber(void)
{
    if (rig.n_free > 0)
        return rig.free[--rig.n_free];
    struct fiber *f = &rig.fibers[rig.n_made];
    if (!fiber_make(f, run_threads, rig.n_made)) {
        record(CUDA_HOST_NO_MEMORY, "no memory for the stack of a thread");
        return NULL;
    }
    rig.n_made++;
    return f;
}

void cuda_host_collect(const struct cuda_host_collective *what, void *args, struct cuda_host_site site)
{
    struct lane *l = &rig.warps[rig.warp].lanes[rig.lane];
    l->what = what;
    l->site = site;
    l->args = args;
    struct lane *next = advance();
    if (next && !next->fiber)
        next->fiber = take_fiber();
    if (next != l)
        fiber_switch(l->fiber, next && next->fiber ? next->fiber : &rig.main);
}

/* ----------------------------------------------------------------------------- shared memory -- */

static void set_canary(uint8_t *p)
{
    for (int i = 0; i < GAP; i++)
        p[i] = canary[i % 4];
    POISON(p, GAP);
}

/* The number of bytes of a canary that were written, and the first of them. */
static int broken(uint8_t *p, int *first)
{
    int n = 0;
    UNPOISON(p, GAP);
    for (int i = GAP - 1; i >= 0; i--)
        if (p[i] != canary[i % 4]) {
            n++;
            *first = i;
        }
    return n;
}

/* Places an array of the block's shared memory. NULL: too much (recorded). */
static void *place(const char *name, size_t bytes)
{
    size_t whole = (bytes + 127) / 128 * 128;
    if (rig.n_arrays == MOST_ARRAYS || rig.used + whole + 2 * GAP > sizeof memory) {
        record(CUDA_HOST_LAUNCH_FAILURE, "too many arrays of shared memory");
        return NULL;
    }
    uint8_t *at = memory + rig.used + GAP;
    UNPOISON(at - GAP, whole + 2 * GAP);
    set_canary(at - GAP);
    memset(at, 0xff, bytes);
    set_canary(at + bytes);
    rig.used += whole + 2 * GAP;
    rig.arrays[rig.n_arrays++] = (struct placed){name, at, bytes};
    return at;
}

void *cuda_host_shared(struct cuda_host_array *array)
{
    struct cuda_host_site here = {rig.launch->file, rig.launch->line};
    rig.static_bytes += (array->bytes + 15) / 16 * 16;
    if (rig.static_bytes > MOST_STATIC_SHARED)
        cuda_host_fail(here, "%zu bytes of arrays in shared memory, CUDA takes %d: ask for them in LAUNCH()",
                       rig.static_bytes, (int)MOST_STATIC_SHARED);
    if (rig.static_bytes + rig.launch->shared > rig.shared_most)
        cuda_host_fail(here, "%zu bytes of shared memory in arrays and %zu in LAUNCH(), the card has %zu",
                       rig.static_bytes, rig.launch->shared, rig.shared_most);
    array->at = place(array->name, array->bytes);
    if (!array->at)
        cuda_host_fail(here, "%s does not fit", array->name);
    array->serial = cuda_host_now.serial;
    return array->at;
}

void *cuda_host_shared_dynamic(void)
{
    return rig.arrays[0].at;
}

bool cuda_host_is_shared(const void *p, size_t bytes)
{
    uintptr_t at = (uintptr_t)p;
    if (at - (uintptr_t)memory >= sizeof memory)
        return false;
    for (int i = 0; i < rig.n_arrays; i++) {
        uintptr_t offset = at - (uintptr_t)rig.arrays[i].at;
        if (offset <= rig.arrays[i].bytes && bytes <= rig.arrays[i].bytes - offset)
            return true;
    }
    return false;
}

/* After a block: whether what lies round its arrays is whole. Its memory is free for the next. */
static void check_shared(void)
{
    for (int i = 0; i < rig.n_arrays; i++) {
        const struct placed *a = &rig.arrays[i];
        int first = 0, n = broken(a->at - GAP, &first);
        if (n)
            record(CUDA_HOST_LAUNCH_FAILURE, "writes %d bytes before %s, an array of shared memory, first %d before", n,
                   a->name, GAP - first);
        n = broken(a->at + a->bytes, &first);
        if (n)
            record(CUDA_HOST_LAUNCH_FAILURE, "writes %d bytes behind %s, %zu bytes of shared memory, first at byte %zu",
                   n, a->name, a->bytes, a->bytes + (size_t)first);
    }
}

/* ----------------------------------------------------------------------- asynchronous copies -- */

static struct lane *running(void)
{
    return &rig.warps[rig.warp].lanes[rig.lane];
}

void cuda_host_copy16(void *shared, const void *global, bool valid, struct cuda_host_site site)
{
    struct lane *l = running();
    if ((uintptr_t)shared % 16 || !cuda_host_is_shared(shared, 16))
        cuda_host_fail(site, "copy16_async() to %p: not 16 aligned bytes of shared memory", shared);
    if ((uintptr_t)global % 16 || cuda_host_is_shared(global, 1))
        cuda_host_fail(site, "copy16_async() from %p: not 16 aligned bytes of device memory", global);
    if (l->n_copies == l->most_copies) {
        int most = l->most_copies * 2 + 16;
        struct copy *copies = realloc(l->copies, (size_t)most * sizeof *copies);
        if (!copies)
            cuda_host_fail(site, "no memory for asynchronous copies");
        l->copies = copies;
        l->most_copies = most;
    }
    struct copy *c = &l->copies[l->n_copies++];
    *c = (struct copy){.to = shared, .group = l->group};
    if (valid)
        memcpy(c->bytes, global, 16);
    memset(shared, 0xff, 16);
}

void cuda_host_copies_commit(void)
{
    running()->group++;
}

void cuda_host_copies_wait(int newest)
{
    struct lane *l = running();
    int kept = 0;
    for (int i = 0; i < l->n_copies; i++) {
        struct copy *c = &l->copies[i];
        if (c->group >= l->group - newest) /* groups up to group - 1 have been committed */
            l->copies[kept++] = *c;
        else
            memcpy(c->to, c->bytes, 16);
    }
    l->n_copies = kept;
}

/* ---------------------------------------------------------------------------------- launches -- */

/* Nothing of a failed launch goes on: all fibers begin anew. */
static void abandon_fibers(void)
{
    for (int i = 0; i < rig.n_made; i++)
        fiber_make(&rig.fibers[i], run_threads, i);
    rig.n_free = 0;
    for (int i = rig.n_made - 1; i >= 0; i--)
        rig.free[rig.n_free++] = &rig.fibers[i];
}

static void run_block(int64_t number)
{
    struct cuda_host_place *now = &cuda_host_now;
    now->serial++;
    now->block[0] = (int)(number % now->grid[0]);
    now->block[1] = (int)(number / now->grid[0] % now->grid[1]);
    now->block[2] = (int)(number / now->grid[0] / now->grid[1]);
    rig.n_arrays = 0;
    rig.used = rig.static_bytes = 0;
    if (!place("its dynamic shared memory", rig.launch->shared))
        return;
    for (int warp = 0; warp < rig.n_warps; warp++) {
        rig.warps[warp].state = READY;
        for (int i = 0; i < LANES; i++) {
            struct lane *l = &rig.warps[warp].lanes[i];
            l->fiber = NULL;
            l->ended = false;
            l->n_copies = 0;
            l->group = 0;
        }
    }
    begin_segment(choose_warp(falling() ? 0 : rig.n_warps - 1));
    struct lane *first = advance();
    first->fiber = take_fiber();
    if (first->fiber)
        fiber_switch(&rig.main, first->fiber);
    check_shared();
}

/* Whether CUDA would take the launch; what it would not is recorded. */
static bool can_launch(const struct cuda_host_launch *l)
{
    if (l->n_threads < 1 || l->n_threads > MOST_WARPS * LANES || l->n_threads % LANES)
        record(CUDA_HOST_INVALID_CONFIGURATION, "%d threads: a block has whole warps, at most %d threads", l->n_threads,
               MOST_WARPS * LANES);
    else if (l->grid[0] > INT32_MAX || l->grid[1] > MOST_GRID_YZ || l->grid[2] > MOST_GRID_YZ)
        record(CUDA_HOST_INVALID_CONFIGURATION, "grid %lld x %lld x %lld: CUDA takes 2^31 - 1, 65535, 65535",
               (long long)l->grid[0], (long long)l->grid[1], (long long)l->grid[2]);
    else if (l->shared > rig.shared_most)
        record(CUDA_HOST_INVALID_VALUE, "%zu bytes of shared memory, the card has %zu", l->shared, rig.shared_most);
    return !rig.error;
}

int cuda_host_run(const struct cuda_host_launch *launch)
{
    if (launch->grid[0] <= 0 || launch->grid[1] <= 0 || launch->grid[2] <= 0)
        return 0;
    pthread_mutex_lock(&rig.lock);
    rig.launch = launch;
    rig.error = 0;
    rig.random = 1;
    rig.n_warps = launch->n_threads / LANES;
    memset(&rig.main, 0, sizeof rig.main);
    cuda_host_now.threads = launch->n_threads;
    if (can_launch(launch)) {
        for (int i = 0; i < 3; i++)
            cuda_host_now.grid[i] = (int)launch->grid[i];
        int64_t n = launch->grid[0] * launch->grid[1] * launch->grid[2];
        for (int64_t i = 0; i < n && !rig.error; i++)
            run_block(falling() ? n - 1 - i : i);
        if (rig.error)
            abandon_fibers();
    }
    int error = rig.error;
    pthread_mutex_unlock(&rig.lock);
    return error;
}

int cuda_host_submit(struct cuda_stream *stream, const struct cuda_host_launch *launch)
{
    if (launch->grid[0] <= 0 || launch->grid[1] <= 0 || launch->grid[2] <= 0)
        return 0;
    stream->launches++;
    return cuda_host_hook ? cuda_host_hook(stream, launch) : cuda_host_run(launch);
}

void cuda_host_shared_most(size_t bytes)
{
    rig.shared_most = bytes < MOST_SHARED ? bytes : MOST_SHARED;
}

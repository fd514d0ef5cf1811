/* host_gpu.c: see host_gpu.h. One lock for everything; the thread that waits for a stream does the stream's work. */
#include "tests/cuda_host/host_gpu.h"

#include "tests/cuda_host/cuda_rig.h"

#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { MOST_CARDS = 8, CANARY = 256, INVALID_VALUE = 1, INVALID_CARD = 101, INVALID_HANDLE = 400, CAPTURING = 900 };

/* A kind of card. */
struct row {
    const char *name;
    int major, minor, n_sm;
    size_t shared_most, memory;
};
static const struct row rows[] = {
    {"sm_61", 6, 1, 4, 48 << 10, 256 << 20},  {"sm_75", 7, 5, 4, 64 << 10, 256 << 20},
    {"sm_80", 8, 0, 4, 163 << 10, 256 << 20}, {"sm_86", 8, 6, 4, 99 << 10, 256 << 20},
    {"sm_90", 9, 0, 4, 227 << 10, 256 << 20}, {"sm_120", 12, 0, 4, 99 << 10, 256 << 20},
    {"small", 9, 0, 4, 227 << 10, 1 << 20},
};

/* Memory that was allocated: of a card, or pinned (card -1). */
struct block {
    struct block *next;
    uint8_t *whole, *base;
    size_t bytes;
    int card;
};

struct event;
struct stream;

/* Something that a stream has to do. */
struct op {
    struct op *next;
    enum { COPY, SET, LAUNCH, AFTER, STAMP } kind;
    uint8_t *to;
    const uint8_t *from; /* NULL: bytes of data */
    size_t bytes;
    int byte;
    struct cuda_host_launch launch; /* its args are data */
    struct stream *other;           /* AFTER: up to its op number position */
    uint64_t position;
    struct event *event;
    _Alignas(16) uint8_t data[];
};
struct list {
    struct op *first, **end;
};

struct graph {
    struct list ops;
    int card;
};

struct stream {
    struct stream *next;
    int card;
    bool freed;
    struct list ops;
    uint64_t given, done;
    struct graph *capturing;
    int capture_error;
};

struct event {
    struct event *next;
    int card;
    bool timed;
    struct stream *stream; /* NULL: not recorded */
    uint64_t position;
    double seconds;
};

struct card {
    const struct row *row;
    int lost; /* the error number */
    bool reaches[MOST_CARDS];
    struct stream plain; /* what calls without a stream have put off */
};

static struct {
    pthread_mutex_t lock;
    bool made;
    struct card cards[MOST_CARDS];
    int n_cards, driver, count_error;
    struct block *blocks;
    struct stream *streams;
    struct event *events;
    long graphs;
    size_t allocated;
    long calls[HOST_GPU_COUNT];
    enum host_gpu_call fail_call;
    long fail_at;
    int fail_error;
    char misuse[300];
} host = {.lock = PTHREAD_MUTEX_INITIALIZER};

static _Thread_local int used;                /* the card of this thread */
static _Thread_local struct stream *captured; /* that this thread captures */

static const char *const call_names[HOST_GPU_COUNT] = {"any",
#define CALL(name) #name,
                                                       HOST_GPU_CALLS(CALL)
#undef CALL
};

/* ------------------------------------------------------------------------------------- calls -- */

static void misuse(const char *format, ...) __attribute__((format(printf, 1, 2)));
static void misuse(const char *format, ...)
{
    if (host.misuse[0])
        return;
    va_list args;
    va_start(args, format);
    vsnprintf(host.misuse, sizeof host.misuse, format, args);
    va_end(args);
}

/* Errors that end a context. */
static bool is_fatal(int error)
{
    return error == 214 || (error >= 700 && error != CUDA_PEERS_ALREADY && error < 900) || error == 999;
}

static void make_machine(const char *cards);

/* At the head of every call, with the lock: counts it, lets it fail if that is wanted. */
static int begin(enum host_gpu_call call)
{
    pthread_mutex_lock(&host.lock);
    if (!host.made) {
        const char *cards = getenv("GEUL_HOST_GPU"), *fail = getenv("GEUL_HOST_GPU_FAIL");
        make_machine(cards ? cards : "sm_90");
        char name[32];
        if (fail && sscanf(fail, "%31s %ld %d", name, &host.fail_at, &host.fail_error) == 3)
            for (int i = 0; i < HOST_GPU_COUNT; i++)
                if (strcmp(name, call_names[i]) == 0)
                    host.fail_call = (enum host_gpu_call)i;
    }
    host.calls[HOST_GPU_any]++;
    host.calls[call]++;
    bool of_kind = host.fail_call == HOST_GPU_any || host.fail_call == call, fails = false;
    if (of_kind && host.fail_at > 0)
        fails = --host.fail_at == 0;
    else if (of_kind && host.fail_at < 0)
        fails = host.fail_at++ < 0;
    if (fails) {
        if (is_fatal(host.fail_error) && used < host.n_cards)
            host.cards[used].lost = host.fail_error;
        return host.fail_error;
    }
    return 0;
}

/* The same for calls about the used card: fails when that is lost. May it be called while a graph is captured? */
static int begin_on_card(enum host_gpu_call call, bool while_captured)
{
    int error = begin(call);
    if (!error && used >= host.n_cards)
        error = INVALID_CARD;
    if (!error && host.cards[used].lost)
        error = host.cards[used].lost;
    if (!error && captured && !while_captured) {
        captured->capture_error = error = CAPTURING;
        misuse("%s() while a graph is captured", call_names[call]);
    }
    return error;
}

static int end(int error)
{
    pthread_mutex_unlock(&host.lock);
    return error;
}

/* ------------------------------------------------------------------------------------ memory -- */

static struct block *find_block(const void *p, size_t bytes)
{
    for (struct block *b = host.blocks; b; b = b->next) {
        uintptr_t offset = (uintptr_t)p - (uintptr_t)b->base;
        if (offset <= b->bytes && bytes <= b->bytes - offset)
            return b;
    }
    return NULL;
}

/* Whether memory lies on that card; -1: pinned. */
static bool lies_on(int card, const void *p, size_t bytes, const char *what)
{
    const struct block *b = find_block(p, bytes);
    if (b && b->card == card)
        return true;
    misuse("%s: %zu bytes at %p are not in %s", what, bytes, p, card < 0 ? "pinned memory" : "one block of the card");
    return false;
}

/* Frees a block; whether its canaries live. */
static void free_block(struct block **link)
{
    struct block *b = *link;
    for (int i = 0; i < CANARY; i++)
        if (b->whole[i] != 0xff || b->base[b->bytes + (size_t)i] != 0xff) {
            misuse("byte %d beside a block of %zu bytes was written", i, b->bytes);
            break;
        }
    *link = b->next;
    free(b->whole);
    free(b);
}

static size_t bytes_on(int card)
{
    size_t sum = 0;
    for (const struct block *b = host.blocks; b; b = b->next)
        sum += b->card == card ? b->bytes : 0;
    return sum;
}

static int allocate_on(int card, void **out, size_t bytes)
{
    if (card >= 0 && bytes > host.cards[card].row->memory - bytes_on(card))
        return CUDA_NO_MEMORY;
    struct block *b = malloc(sizeof *b);
    uint8_t *whole = NULL;
    size_t size = (bytes + 2 * CANARY + 255) / 256 * 256;
    if (!b || posix_memalign((void **)&whole, 256, size)) {
        free(b);
        return CUDA_NO_MEMORY;
    }
    memset(whole, 0xff, size);
    *b = (struct block){host.blocks, whole, whole + CANARY, bytes, card};
    host.blocks = b;
    host.allocated += card >= 0 ? bytes : 0;
    *out = b->base;
    return 0;
}

/* --------------------------------------------------------------------------------------- work -- */

static void append(struct list *list, struct op *op)
{
    if (!list->first)
        list->end = &list->first;
    *list->end = op;
    list->end = &op->next;
}

static void free_list(struct list *list)
{
    for (struct op *op = list->first, *next; op; op = next) {
        next = op->next;
        free(op);
    }
    *list = (struct list){0};
}

/* Gives the stream a copy of op, with bytes of data behind it; into its graph while one is captured. */
static int give(struct stream *s, struct op op, const void *data, size_t data_bytes)
{
    struct op *own = malloc(sizeof *own + data_bytes);
    if (!own)
        return CUDA_NO_MEMORY;
    op.next = NULL;
    *own = op;
    if (data_bytes > 0)
        memcpy(own->data, data, data_bytes);
    if (s->capturing) {
        append(&s->capturing->ops, own);
        return 0;
    }
    append(&s->ops, own);
    s->given++;
    return 0;
}

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void run_until(struct stream *s, uint64_t position);

static void execute(struct stream *s, struct op *op)
{
    struct card *card = &host.cards[s->card];
    if (op->kind == AFTER)
        run_until(op->other, op->position);
    else if (op->kind == STAMP)
        op->event->seconds = now();
    else if (card->lost)
        return;
    else if (op->kind == COPY)
        memcpy(op->to, op->from ? op->from : op->data, op->bytes);
    else if (op->kind == SET)
        memset(op->to, op->byte, op->bytes);
    else {
        op->launch.args = op->data;
        cuda_host_shared_most(card->row->shared_most);
        int error = cuda_host_run(&op->launch);
        if (error) /* found when somebody waits: too late to go on */
            card->lost = CUDA_HOST_LAUNCH_FAILURE;
    }
}

static void run_until(struct stream *s, uint64_t position)
{
    while (s->done < position) {
        struct op *op = s->ops.first;
        s->ops.first = op->next;
        s->done++;
        execute(s, op);
        free(op);
    }
}

static void run_card(int card)
{
    run_until(&host.cards[card].plain, host.cards[card].plain.given);
    for (struct stream *s = host.streams; s; s = s->next)
        if (s->card == card)
            run_until(s, s->given);
}

/* Whether a stream that was handed in is one, and of the used card. */
static bool is_stream(const void *handle, bool of_used)
{
    for (const struct stream *s = host.streams; s; s = s->next)
        if (s == handle && !s->freed && (!of_used || s->card == used))
            return true;
    misuse("a stream that is none, or of another card");
    return false;
}

static bool is_event(const void *handle, bool of_used)
{
    for (const struct event *e = host.events; e; e = e->next)
        if (e == handle && (!of_used || e->card == used))
            return true;
    misuse("an event that is none, or of another card");
    return false;
}

/* ------------------------------------------------------------------------------------- cards -- */

static int host_driver_version(int *version)
{
    int error = begin(HOST_GPU_driver_version);
    *version = host.driver;
    return end(error);
}

static int host_count(int *n)
{
    int error = begin(HOST_GPU_count);
    error = error ? error : host.count_error ? host.count_error : host.n_cards ? 0 : CUDA_NO_CARD;
    *n = error ? 0 : host.n_cards;
    return end(error);
}

static int host_capability(int device, int *major, int *minor)
{
    int error = begin(HOST_GPU_capability);
    error = error ? error : device < 0 || device >= host.n_cards ? INVALID_CARD : 0;
    if (!error) {
        *major = host.cards[device].row->major;
        *minor = host.cards[device].row->minor;
    }
    return end(error);
}

static int host_describe(int device, struct cuda_card *out)
{
    int error = begin(HOST_GPU_describe);
    error = error ? error : device < 0 || device >= host.n_cards ? INVALID_CARD : 0;
    if (!error) {
        const struct row *r = host.cards[device].row;
        snprintf(out->name, sizeof out->name, "CPU as %s", r->name);
        out->major = r->major;
        out->minor = r->minor;
        out->n_sm = r->n_sm;
        out->shared_most = r->shared_most;
        out->l2_bytes = 1 << 20;
    }
    return end(error);
}

static int host_use(int device)
{
    int error = begin(HOST_GPU_use);
    error = error ? error : device < 0 || device >= host.n_cards ? INVALID_CARD : 0;
    if (!error)
        used = device;
    return end(error);
}

/* All that is on a card goes. */
static void clear_card(int card)
{
    for (struct stream *s = host.streams; s; s = s->next)
        if (s->card == card) {
            free_list(&s->ops);
            s->done = s->given;
            s->freed = true;
        }
    free_list(&host.cards[card].plain.ops);
    host.cards[card].plain.done = host.cards[card].plain.given;
    for (struct block **link = &host.blocks; *link;) {
        if ((*link)->card == card)
            free_block(link);
        else
            link = &(*link)->next;
    }
    for (struct event **link = &host.events, *e; (e = *link) != NULL;) {
        if (e->card == card) {
            *link = e->next;
            free(e);
        } else {
            link = &e->next;
        }
    }
    memset(host.cards[card].reaches, 0, sizeof host.cards[card].reaches);
    host.cards[card].lost = 0;
}

static int host_reset(void)
{
    int error = begin(HOST_GPU_reset);
    if (!error)
        clear_card(used);
    return end(error);
}

/* As CUDA does it: fails while any thread captures a graph on the card, whose capture fails too. */
static int host_wait(void)
{
    int error = begin_on_card(HOST_GPU_wait, false);
    for (struct stream *s = host.streams; s && !error; s = s->next)
        if (s->capturing && s->card == used)
            s->capture_error = error = CAPTURING;
    if (!error) {
        run_card(used);
        error = host.cards[used].lost;
    }
    return end(error);
}

static int host_memory(size_t *free_bytes, size_t *total_bytes)
{
    int error = begin_on_card(HOST_GPU_memory, true);
    if (!error) {
        *total_bytes = host.cards[used].row->memory;
        *free_bytes = *total_bytes - bytes_on(used);
    }
    return end(error);
}

/* ----------------------------------------------------------------------------------- buffers -- */

static int host_allocate(void **out, size_t bytes)
{
    int error = begin_on_card(HOST_GPU_allocate, false);
    return end(error ? error : allocate_on(used, out, bytes));
}

static int release_block(enum host_gpu_call call, void *p, bool pinned)
{
    int error = begin_on_card(call, false);
    struct block **link = &host.blocks;
    while (*link && ((*link)->base != p || ((*link)->card < 0) != pinned))
        link = &(*link)->next;
    if (!error && !*link) {
        misuse("%s() of %p, which was not allocated", call_names[call], p);
        error = INVALID_VALUE;
    }
    if (!error && !pinned)
        run_card((*link)->card);
    for (struct stream *s = host.streams; !error && pinned && s; s = s->next)
        for (const struct op *op = s->ops.first; op; op = op->next)
            if (op->kind == COPY && (find_block(op->to, 0) == *link || (op->from && find_block(op->from, 0) == *link)))
                misuse("pinned memory is freed before a copy is done");
    /* On a lost card nothing can be freed; the host's memory can. */
    if (*link && (!error || pinned))
        free_block(link);
    return end(error);
}

static int host_release(void *p)
{
    return release_block(HOST_GPU_release, p, false);
}

static int host_host_allocate(void **out, size_t bytes)
{
    int error = begin_on_card(HOST_GPU_host_allocate, false);
    return end(error ? error : allocate_on(-1, out, bytes));
}

static int host_host_release(void *p)
{
    return release_block(HOST_GPU_host_release, p, true);
}

/* ------------------------------------------------------------------------------------ copies -- */

static int host_copy(void *to, const void *from, size_t bytes, enum cuda_direction direction)
{
    int error = begin_on_card(HOST_GPU_copy, false);
    if (!error && direction != CUDA_DOWN && !lies_on(used, to, bytes, "copy()"))
        error = INVALID_VALUE;
    if (!error && direction != CUDA_UP && !lies_on(used, from, bytes, "copy()"))
        error = INVALID_VALUE;
    if (error)
        return end(error);
    struct stream *plain = &host.cards[used].plain;
    /* The host's bytes are taken over now, and arrive later. */
    if (direction == CUDA_UP)
        return end(give(plain, (struct op){.kind = COPY, .to = to, .bytes = bytes}, from, bytes));
    run_until(plain, plain->given);
    memcpy(to, from, bytes);
    return end(0);
}

static int host_copy_async(void *to, const void *from, size_t bytes, enum cuda_direction direction, void *stream)
{
    int error = begin_on_card(HOST_GPU_copy_async, true);
    if (!error &&
        (!is_stream(stream, true) || !lies_on(direction == CUDA_DOWN ? -1 : used, to, bytes, "copy_async()") ||
         !lies_on(direction == CUDA_UP ? -1 : used, from, bytes, "copy_async()")))
        error = INVALID_VALUE;
    if (!error)
        error = give(stream, (struct op){.kind = COPY, .to = to, .from = from, .bytes = bytes}, NULL, 0);
    return end(error);
}

static int host_copy_peer(void *to, int to_device, const void *from, int from_device, size_t bytes, void *stream)
{
    int error = begin_on_card(HOST_GPU_copy_peer, true);
    if (!error && (!is_stream(stream, true) || !lies_on(to_device, to, bytes, "copy_peer()") ||
                   !lies_on(from_device, from, bytes, "copy_peer()")))
        error = INVALID_VALUE;
    if (!error)
        error = give(stream, (struct op){.kind = COPY, .to = to, .from = from, .bytes = bytes}, NULL, 0);
    return end(error);
}

static int host_set_async(void *p, int byte, size_t bytes, void *stream)
{
    int error = begin_on_card(HOST_GPU_set_async, true);
    if (!error && (!is_stream(stream, true) || !lies_on(used, p, bytes, "set_async()")))
        error = INVALID_VALUE;
    if (!error)
        error = give(stream, (struct op){.kind = SET, .to = p, .byte = byte, .bytes = bytes}, NULL, 0);
    return end(error);
}

static int host_can_reach(int device, int other, int *can)
{
    int error = begin(HOST_GPU_can_reach);
    *can = device != other;
    return end(error);
}

static int host_reach(int other)
{
    int error = begin_on_card(HOST_GPU_reach, false);
    if (!error && host.cards[used].reaches[other])
        error = CUDA_PEERS_ALREADY;
    if (!error)
        host.cards[used].reaches[other] = true;
    return end(error);
}

/* ------------------------------------------------------------------------- streams and events -- */

/* Where LAUNCH() goes. Streams that are not of this file are those of tests that launch by themselves. */
static int take_launch(struct cuda_stream *stream, const struct cuda_host_launch *launch)
{
    struct stream *s = host.streams;
    while (s && s != stream->handle)
        s = s->next;
    if (!s)
        return cuda_host_run(launch);
    int error = begin_on_card(HOST_GPU_launch, true);
    if (!error && !is_stream(s, true))
        error = INVALID_HANDLE;
    if (!error)
        error = give(s, (struct op){.kind = LAUNCH, .launch = *launch}, launch->args, launch->args_bytes);
    return end(error);
}

static int host_stream_new(void **out)
{
    int error = begin_on_card(HOST_GPU_stream_new, false);
    struct stream *s = error ? NULL : calloc(1, sizeof *s);
    if (!s)
        return end(error ? error : CUDA_NO_MEMORY);
    cuda_host_hook = take_launch;
    s->card = used;
    s->next = host.streams;
    host.streams = s;
    *out = s;
    return end(0);
}

static int host_stream_free(void *stream)
{
    int error = begin_on_card(HOST_GPU_stream_free, false);
    if (!error && !is_stream(stream, false))
        error = INVALID_HANDLE;
    struct stream *s = stream;
    if (!error) {
        run_until(s, s->given);
        s->freed = true; /* events may still point to it */
    }
    return end(error);
}

static int host_stream_wait(void *stream)
{
    int error = begin_on_card(HOST_GPU_stream_wait, false);
    if (!error && !is_stream(stream, false))
        error = INVALID_HANDLE;
    struct stream *s = stream;
    if (!error) {
        run_until(s, s->given);
        error = host.cards[s->card].lost;
    }
    return end(error);
}

static int host_stream_after(void *stream, void *event)
{
    int error = begin_on_card(HOST_GPU_stream_after, true);
    if (!error && (!is_stream(stream, true) || !is_event(event, false)))
        error = INVALID_HANDLE;
    const struct event *e = event;
    if (!error && e->stream)
        error = give(stream, (struct op){.kind = AFTER, .other = e->stream, .position = e->position}, NULL, 0);
    return end(error);
}

static int host_event_new(void **out, bool timed)
{
    int error = begin_on_card(HOST_GPU_event_new, true);
    struct event *e = error ? NULL : calloc(1, sizeof *e);
    if (!e)
        return end(error ? error : CUDA_NO_MEMORY);
    *e = (struct event){.next = host.events, .card = used, .timed = timed};
    host.events = e;
    *out = e;
    return end(0);
}

static int host_event_free(void *event)
{
    int error = begin_on_card(HOST_GPU_event_free, true);
    if (!error && !is_event(event, false))
        error = INVALID_HANDLE;
    if (error)
        return end(error);
    struct event *e = event;
    if (e->timed && e->stream)
        run_until(e->stream, e->position);
    struct event **link = &host.events;
    while (*link != e)
        link = &(*link)->next;
    *link = e->next;
    free(e);
    return end(0);
}

static int host_event_record(void *event, void *stream)
{
    int error = begin_on_card(HOST_GPU_event_record, true);
    if (!error && (!is_event(event, true) || !is_stream(stream, true)))
        error = INVALID_HANDLE;
    struct event *e = event;
    struct stream *s = stream;
    if (!error && s->capturing)
        misuse("an event is recorded while a graph is captured");
    if (!error && e->timed)
        error = give(s, (struct op){.kind = STAMP, .event = e}, NULL, 0);
    if (!error) {
        e->stream = s;
        e->position = s->given;
    }
    return end(error);
}

static int host_event_wait(void *event)
{
    int error = begin_on_card(HOST_GPU_event_wait, false);
    if (!error && !is_event(event, false))
        error = INVALID_HANDLE;
    const struct event *e = event;
    if (!error && e->stream) {
        run_until(e->stream, e->position);
        error = host.cards[e->card].lost;
    }
    return end(error);
}

static int host_event_seconds(void *from, void *to, double *seconds)
{
    int error = begin_on_card(HOST_GPU_event_seconds, true);
    if (!error && (!is_event(from, false) || !is_event(to, false)))
        error = INVALID_HANDLE;
    if (!error)
        *seconds = ((struct event *)to)->seconds - ((struct event *)from)->seconds;
    return end(error);
}

/* ------------------------------------------------------------------------------------ graphs -- */

static int host_capture_begin(void *stream)
{
    int error = begin_on_card(HOST_GPU_capture_begin, false);
    struct stream *s = stream;
    struct graph *g = error ? NULL : calloc(1, sizeof *g);
    if (!error && !is_stream(stream, true))
        error = INVALID_HANDLE;
    if (error || !g) {
        free(g);
        return end(error ? error : CUDA_NO_MEMORY);
    }
    g->card = s->card;
    s->capturing = g;
    s->capture_error = 0;
    captured = s;
    return end(0);
}

static int host_capture_end(void *stream, void **graph)
{
    int error = begin_on_card(HOST_GPU_capture_end, true);
    struct stream *s = stream;
    if (captured != s || !s->capturing) {
        misuse("capture_end() of a stream that this thread does not capture");
        return end(error ? error : INVALID_VALUE);
    }
    error = error ? error : s->capture_error;
    if (error) {
        free_list(&s->capturing->ops);
        free(s->capturing);
    } else {
        *graph = s->capturing;
        host.graphs++;
    }
    s->capturing = NULL;
    captured = NULL;
    return end(error);
}

static int host_graph_launch(void *graph, void *stream)
{
    int error = begin_on_card(HOST_GPU_graph_launch, false);
    const struct graph *g = graph;
    if (!error && (!is_stream(stream, true) || g->card != used))
        error = INVALID_HANDLE;
    for (const struct op *op = g->ops.first; op && !error; op = op->next)
        error = give(stream, *op, op->data, op->kind == LAUNCH ? op->launch.args_bytes : 0);
    return end(error);
}

static int host_graph_free(void *graph)
{
    int error = begin(HOST_GPU_graph_free); /* on a lost card, too */
    struct graph *g = graph;
    free_list(&g->ops);
    free(g);
    host.graphs--;
    return end(error);
}

/* ------------------------------------------------------------------------------------ errors -- */

static int host_last_error(void)
{
    return end(begin(HOST_GPU_last_error));
}

static const char *host_text(int error)
{
    static const struct {
        int error;
        const char *text;
    } texts[] = {{INVALID_VALUE, "invalid argument"},
                 {CUDA_NO_MEMORY, "out of memory"},
                 {CUDA_OLD_DRIVER, "CUDA driver version is insufficient for CUDA runtime version"},
                 {CUDA_NO_CARD, "no CUDA-capable device is detected"},
                 {INVALID_CARD, "invalid device ordinal"},
                 {700, "an illegal memory access was encountered"},
                 {CUDA_HOST_LAUNCH_FAILURE, "unspecified launch failure"},
                 {CAPTURING, "operation not permitted when stream is capturing"},
                 {999, "unknown error"}};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        if (texts[i].error == error)
            return texts[i].text;
    return "some error";
}

static const char *blas_names[2];

const struct cuda_gpu *geul_cuda_gpu(void)
{
    static const struct cuda_gpu table = {
        .driver_needed = 13000,
        .long_run = 1e9, /* here all are long */
        .blas = blas_names,
#define CALL(name) .name = host_##name,
        HOST_GPU_FUNCTIONS(CALL)
#undef CALL
            .text = host_text,
    };
    return &table;
}

/* --------------------------------------------------------------------------------- for tests -- */

static void make_machine(const char *cards)
{
    for (int i = 0; i < host.n_cards; i++)
        clear_card(i);
    while (host.blocks)
        free_block(&host.blocks);
    host.n_cards = 0;
    while (*cards && host.n_cards < MOST_CARDS) {
        size_t length = strcspn(cards, ",");
        for (size_t r = 0; r < sizeof rows / sizeof *rows; r++)
            if (strlen(rows[r].name) == length && strncmp(cards, rows[r].name, length) == 0)
                host.cards[host.n_cards] = (struct card){.row = &rows[r], .plain = {.card = host.n_cards}},
                host.n_cards++;
        cards += length + (cards[length] == ',');
    }
    host.made = true;
    host.driver = 13000;
    host.count_error = 0;
    host.fail_at = 0;
    host.allocated = 0;
    host.misuse[0] = '\0';
    memset(host.calls, 0, sizeof host.calls);
}

void host_gpu_machine(const char *cards)
{
    pthread_mutex_lock(&host.lock);
    make_machine(cards);
    end(0);
}

void host_gpu_driver(int version, int error)
{
    pthread_mutex_lock(&host.lock);
    host.driver = version;
    host.count_error = error;
    end(0);
}

void host_gpu_blas(const char *path)
{
    blas_names[0] = path;
}

void host_gpu_fail(enum host_gpu_call call, long n, int error)
{
    pthread_mutex_lock(&host.lock);
    host.fail_call = call;
    host.fail_at = n;
    host.fail_error = error;
    end(0);
}

long host_gpu_calls(enum host_gpu_call call)
{
    return host.calls[call];
}

void host_gpu_count_anew(void)
{
    pthread_mutex_lock(&host.lock);
    memset(host.calls, 0, sizeof host.calls);
    host.allocated = 0;
    end(0);
}

struct host_gpu_use host_gpu_in_use(void)
{
    struct host_gpu_use use = {.allocated = host.allocated, .graphs = host.graphs};
    pthread_mutex_lock(&host.lock);
    for (const struct block *b = host.blocks; b; b = b->next) {
        use.bytes += b->card >= 0 ? b->bytes : 0;
        use.blocks += b->card >= 0;
        use.pinned += b->card < 0;
    }
    for (const struct stream *s = host.streams; s; s = s->next)
        use.streams += !s->freed;
    for (const struct event *e = host.events; e; e = e->next)
        use.events++;
    end(0);
    return use;
}

const char *host_gpu_misuse(void)
{
    return host.misuse;
}

void host_gpu_peek(const void *address, void *out, size_t bytes)
{
    pthread_mutex_lock(&host.lock);
    for (int i = 0; i < host.n_cards; i++)
        run_card(i);
    if (lies_on(find_block(address, bytes) ? find_block(address, bytes)->card : 0, address, bytes, "peek"))
        memcpy(out, address, bytes);
    end(0);
}

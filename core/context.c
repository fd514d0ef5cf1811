/* context.c: the memory, the arena, the first failure and the log of a geul_context.
 *
 * The arena is a list of chunks, filled from the front. A reset keeps them all and starts over:
 *
 *   chunks -> [ used     ] -> [ used    ] -> [ used | free ] -> [      free      ] -> NULL
 *                                            current            (from before a reset)
 *
 * Nothing in it is freed alone, and a pointer into it is valid until the reset. A chunk before the current one may have
 * room left, which is not used before the next reset; one after it is empty.
 */
#include "core/context.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ALIGNMENT     64
#define FIRST_CHUNK   ((size_t)64 << 10)
#define LARGEST_CHUNK ((size_t)4 << 20)

/* A piece of the arena; the bytes follow the header. */
struct chunk {
    struct chunk *next;
    size_t size, used;
    char pad[ALIGNMENT - sizeof(void *) - 2 * sizeof(size_t)];
};
_Static_assert(sizeof(struct chunk) == ALIGNMENT, "arena bytes must start aligned");

struct geul_context {
    struct geul_context_options options;
    struct chunk *chunks;  /* all chunks, in order of use */
    struct chunk *current; /* the one that is being filled */
    enum geul_status status;
    char message[1024];
    atomic_bool cancelled; /* set from any thread and from signal handlers */
    struct geul_inputs inputs;
    struct geul_outset outset;
    struct geul_tensor *last_tensor; /* head of the list of tensors in creation order, see tensor.c */
};

const size_t geul_context_bytes = sizeof(struct geul_context);

/* Sits right before every block that geul_alloc() returns, since the allocator gets back raw and its size:
 *
 *   raw ... | struct block | size bytes, from a multiple of 64 on ... | to raw + raw_size
 */
struct block {
    void *raw;
    size_t raw_size, size;
};
_Static_assert(sizeof(struct block) <= ALIGNMENT, "the block header must fit before the aligned bytes");

static void *default_allocate(void *user, void *ptr, size_t old_size, size_t size)
{
    (void)user;
    (void)old_size;
    if (size == 0) {
        free(ptr);
        return NULL;
    }
    return ptr ? realloc(ptr, size) : malloc(size);
}

/* size zeroed bytes from the context's allocator, not yet aligned. The C library's calloc gives large blocks as
 * untouched pages, so a big cache costs memory only where it is used. */
static void *raw_zeroed(const struct geul_context_options *o, size_t size)
{
    if (o->allocate == default_allocate)
        return calloc(1, size);
    void *raw = o->allocate(o->allocate_user, NULL, 0, size);
    if (raw)
        memset(raw, 0, size);
    return raw;
}

struct geul_context *geul_context_new(const struct geul_context_options *options)
{
    struct geul_context_options o = options ? *options : (struct geul_context_options){0};
    if (!o.allocate)
        o.allocate = default_allocate;
    struct geul_context *ctx = raw_zeroed(&o, sizeof *ctx);
    if (ctx)
        ctx->options = o;
    return ctx;
}

struct geul_context *geul_context_new_like(const struct geul_context *parent)
{
    return geul_context_new(parent ? &parent->options : NULL);
}

void geul_context_free(struct geul_context *ctx)
{
    if (!ctx)
        return;
    for (struct chunk *c = ctx->chunks, *next; c; c = next) {
        next = c->next;
        geul_free(ctx, c);
    }
    geul_context_drop_inputs(ctx);
    struct geul_context_options o = ctx->options;
    o.allocate(o.allocate_user, ctx, sizeof *ctx, 0);
}

void geul_context_reset(struct geul_context *ctx)
{
    for (struct chunk *c = ctx->chunks; c; c = c->next)
        c->used = 0;
    ctx->current = ctx->chunks;
    ctx->last_tensor = NULL;
    geul_error_clear(ctx);
}

const char *geul_error(const struct geul_context *ctx)
{
    return ctx ? ctx->message : "";
}

enum geul_status geul_error_status(const struct geul_context *ctx)
{
    return ctx ? ctx->status : GEUL_OK;
}

void geul_error_clear(struct geul_context *ctx)
{
    if (ctx) {
        ctx->status = GEUL_OK;
        ctx->message[0] = '\0';
    }
}

/* A signal handler may only touch atomics that need no lock. */
_Static_assert(ATOMIC_BOOL_LOCK_FREE == 2, "a cancel comes from signal handlers");

void geul_context_cancel(struct geul_context *ctx)
{
    atomic_store(&ctx->cancelled, true);
}

void geul_context_uncancel(struct geul_context *ctx)
{
    atomic_store(&ctx->cancelled, false);
}

bool geul_context_take_cancel(struct geul_context *ctx)
{
    return atomic_exchange(&ctx->cancelled, false);
}

const atomic_bool *geul_context_cancel_flag(const struct geul_context *ctx)
{
    return &ctx->cancelled;
}

enum geul_status geul_fail(struct geul_context *ctx, enum geul_status status, const char *format, ...)
{
    if (!ctx || ctx->status != GEUL_OK) /* the first failure is the cause; later ones follow from it */
        return status;
    ctx->status = status;
    va_list args;
    va_start(args, format);
    vsnprintf(ctx->message, sizeof ctx->message, format, args);
    va_end(args);
    geul_printable(ctx->message, ctx->message, sizeof ctx->message); /* messages name what hostile files hold */
    return status;
}

void *geul_fail_memory(struct geul_context *ctx, size_t size)
{
    geul_fail(ctx, GEUL_ERROR_MEMORY, "out of memory: %zu more bytes (%.1f MiB) could not be allocated", size,
              (double)size / (1 << 20));
    return NULL;
}

enum geul_status geul_fail_from(struct geul_context *ctx, const struct geul_context *from)
{
    if (ctx == from)
        return from->status;
    if (from->status == GEUL_OK)
        return GEUL_OK;
    return geul_fail(ctx, from->status, "%s", from->message);
}

/* The character at the beginning of s, of which size bytes are there, and through *length its bytes; UINT32_MAX with a
 * length of 1 for what is not UTF-8. *cut: the text ends within a character that was right so far. */
static uint32_t next_character(const unsigned char *s, size_t size, size_t *length, bool *cut)
{
    static const uint32_t least[] = {0, 0, 0x80, 0x800,
                                     0x10000}; /* by length: shorter forms of a number are not UTF-8 */
    size_t n = s[0] < 0x80 ? 1 : s[0] >= 0xc2 && s[0] < 0xe0 ? 2 : s[0] >= 0xe0 && s[0] < 0xf0 ? 3 : 4;
    uint32_t c = n == 1 ? s[0] : s[0] & (0xffu >> (n + 1));
    *length = 1;
    *cut = false;
    if (s[0] >= 0x80 && (s[0] < 0xc2 || s[0] > 0xf4))
        return UINT32_MAX;
    for (size_t i = 1; i < n; i++) {
        *cut = i == size;
        if (*cut || (s[i] & 0xc0) != 0x80)
            return UINT32_MAX;
        c = c << 6 | (s[i] & 0x3f);
    }
    if (c < least[n] || c > 0x10ffff || (c >= 0xd800 && c < 0xe000))
        return UINT32_MAX;
    *length = n;
    return c;
}

/* Whether a terminal does more with the character than show it: the control characters of ASCII and of Latin 1 (a
 * terminal may take U+009B for ESC [), separators of lines, and what turns the direction of writing around. */
static bool is_control(uint32_t c)
{
    static const struct {
        uint32_t first, last;
    } controls[] = {{0, 0x1f},        {0x7f, 0x9f},     {0x61c, 0x61c},          {0x200e, 0x200f},
                    {0x2028, 0x202e}, {0x2066, 0x2069}, {UINT32_MAX, UINT32_MAX}};
    for (size_t i = 0; i < sizeof controls / sizeof *controls; i++)
        if (c >= controls[i].first && c <= controls[i].last)
            return true;
    return false;
}

size_t geul_printable_length(const char *s, size_t size)
{
    size_t length;
    bool cut;
    return size > 0 && !is_control(next_character((const unsigned char *)s, size, &length, &cut)) ? length : 0;
}

const char *geul_printable(const char *s, char *out, size_t size)
{
    const unsigned char *from = (const unsigned char *)s, *end = from + strlen(s);
    size_t n = 0, length;
    bool cut;
    for (; from < end && n + 1 < size; from += length) {
        uint32_t c = next_character(from, (size_t)(end - from), &length, &cut);
        if (cut || n + length >= size) /* a character is shown whole or not at all */
            break;
        if (is_control(c))
            out[n++] = '?';
        else
            for (size_t i = 0; i < length; i++)
                out[n++] = (char)from[i];
    }
    out[n] = '\0';
    return out;
}

void geul_log(const struct geul_context *ctx, enum geul_log_level level, const char *format, ...)
{
    if (!ctx || !ctx->options.log)
        return;
    char text[1024];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    geul_printable(text, text, sizeof text);
    ctx->options.log(ctx->options.log_user, level, text);
}

static struct block *block_of(void *ptr)
{
    return (struct block *)(void *)((char *)ptr - sizeof(struct block));
}

void *geul_alloc(struct geul_context *ctx, size_t count, size_t size)
{
    size_t bytes, raw_size;
    if (!geul_mul_size(count, size, &bytes) || !geul_add_size(bytes, 2 * ALIGNMENT, &raw_size))
        return geul_fail_memory(ctx, SIZE_MAX);
    char *raw = raw_zeroed(&ctx->options, raw_size);
    if (!raw)
        return geul_fail_memory(ctx, bytes);
    char *ptr = raw + ALIGNMENT; /* room for the header; rounding up takes less than ALIGNMENT more */
    ptr += (ALIGNMENT - (uintptr_t)ptr % ALIGNMENT) % ALIGNMENT;
    *block_of(ptr) = (struct block){raw, raw_size, bytes};
    return ptr;
}

void *geul_realloc(struct geul_context *ctx, void *ptr, size_t count, size_t size)
{
    /* The allocator's own reallocation would not keep the alignment. */
    void *grown = geul_alloc(ctx, count, size);
    if (!grown || !ptr)
        return grown;
    size_t old_bytes = block_of(ptr)->size, new_bytes = block_of(grown)->size;
    memcpy(grown, ptr, old_bytes < new_bytes ? old_bytes : new_bytes);
    geul_free(ctx, ptr);
    return grown;
}

bool geul_reserve(struct geul_context *ctx, void *items, size_t *capacity, size_t need, size_t size)
{
    void *now;
    memcpy(&now, items, sizeof now); /* items points to a pointer of any type */
    if (need <= *capacity && now)
        return true;
    size_t more;
    if (!geul_add_size(need, need / 2 + 16, &more))
        more = need;
    void *grown = geul_realloc(ctx, now, more, size);
    if (!grown)
        return false;
    memcpy(items, &grown, sizeof grown);
    *capacity = more;
    return true;
}

void geul_free(struct geul_context *ctx, void *ptr)
{
    if (!ptr)
        return;
    struct block *b = block_of(ptr);
    ctx->options.allocate(ctx->options.allocate_user, b->raw, b->raw_size, 0);
}

char *geul_strndup(struct geul_context *ctx, const char *s, size_t n)
{
    size_t size;
    if (!geul_add_size(n, 1, &size))
        return geul_fail_memory(ctx, n);
    char *copy = geul_alloc(ctx, size, 1);
    if (copy && n)
        memcpy(copy, s, n);
    return copy;
}

/* A chunk with room for bytes becomes the current one: the next empty one that is large enough, or a new one at the end
 * of the list. Empty ones that are too small are skipped until the next reset. */
static bool next_chunk(struct geul_context *ctx, size_t bytes)
{
    struct chunk **link = ctx->current ? &ctx->current->next : &ctx->chunks;
    while (*link && (*link)->size < bytes)
        link = &(*link)->next;
    if (!*link) { /* twice the size of the last, up to LARGEST_CHUNK, but never less than the request */
        size_t size = ctx->current ? ctx->current->size * 2 : FIRST_CHUNK;
        size = size > LARGEST_CHUNK ? LARGEST_CHUNK : size;
        size = size < bytes ? bytes : size;
        size_t total;
        if (!geul_add_size(size, sizeof(struct chunk), &total))
            return geul_fail_memory(ctx, bytes);
        struct chunk *c = geul_alloc(ctx, total, 1);
        if (!c)
            return false;
        c->size = size;
        *link = c;
    }
    ctx->current = *link;
    return true;
}

void *geul_arena(struct geul_context *ctx, size_t count, size_t size)
{
    size_t bytes;
    if (!geul_mul_size(count, size, &bytes) || bytes > SIZE_MAX - 16)
        return geul_fail_memory(ctx, SIZE_MAX);
    bytes = (bytes + 15) / 16 * 16;
    struct chunk *c = ctx->current;
    if (!c || c->size - c->used < bytes) {
        if (!next_chunk(ctx, bytes))
            return NULL;
        c = ctx->current;
    }
    char *ptr = (char *)(c + 1) + c->used;
    c->used += bytes;
    return memset(ptr, 0, bytes); /* after a reset it holds what it held before */
}

struct geul_tensor **geul_context_last_tensor(struct geul_context *ctx)
{
    return &ctx->last_tensor;
}

struct geul_inputs *geul_context_inputs(struct geul_context *ctx)
{
    return &ctx->inputs;
}

void geul_context_drop_inputs(struct geul_context *ctx)
{
    struct geul_inputs *set = &ctx->inputs;
    for (size_t i = 0; i < set->n; i++)
        geul_free(ctx, set->items[i].name);
    geul_free(ctx, set->items);
    set->items = NULL;
    set->n = set->capacity = 0;
}

struct geul_outset *geul_context_outset(struct geul_context *ctx)
{
    return &ctx->outset;
}

/* -------------------------------------------------------- structs that begin with their size -- */

static size_t size_of_struct(const void *s)
{
    size_t size;
    memcpy(&size, s, sizeof size);
    return size;
}

enum geul_status geul_check_struct(struct geul_context *ctx, const void *caller, const char *what)
{
    enum { MOST = 1 << 16 }; /* more than any struct will ever have: what lies there is not a size */
    size_t theirs = caller ? size_of_struct(caller) : sizeof(size_t);
    if (theirs >= sizeof(size_t) && theirs <= MOST)
        return GEUL_OK;
    return geul_fail(ctx, GEUL_ERROR_ARGUMENT, "struct %s: its size is not set; begin with {.size = sizeof ...}", what);
}

enum geul_status geul_take_struct(struct geul_context *ctx, void *out, size_t size, const void *given, const char *what)
{
    memset(out, 0, size);
    if (geul_check_struct(ctx, given, what) != GEUL_OK)
        return GEUL_ERROR_ARGUMENT;
    /* Fields are only ever appended: a shorter struct is from an older header, a longer one from a newer. */
    size_t theirs = given ? size_of_struct(given) : 0;
    for (size_t i = size; i < theirs; i++)
        if (((const unsigned char *)given)[i])
            return geul_fail(ctx, GEUL_ERROR_ARGUMENT, "struct %s sets fields that this version of geul does not have",
                             what);
    if (given)
        memcpy(out, given, theirs < size ? theirs : size);
    memcpy(out, &size, sizeof size);
    return GEUL_OK;
}

void geul_give_struct(void *caller, const void *ours, size_t size)
{
    size_t theirs = size_of_struct(caller);
    memcpy(caller, ours, theirs < size ? theirs : size);
    memcpy(caller, &theirs, sizeof theirs);
}

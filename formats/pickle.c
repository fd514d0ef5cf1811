/* pickle.c: see pickle.h. A stack machine over plain values; instructions and allowed names are tables.
 *
 * Why nothing of a hostile file runs:
 *   - An instruction that is not in the table `instructions` ends the reading. None of them jumps: each takes at least
 *     one byte of the program, so the machine halts after at most LARGEST_PROGRAM of them.
 *   - A name pushes a number out of enum global, never a function; REDUCE knows a few of these numbers, and all that
 *     they make is a dictionary, a tensor's description, or their own argument again.
 *   - A persistent id names a piece of this file. Nothing opens a file, and data of tensors is only pointed to.
 *   - Lists and dictionaries are shared by reference and may hold themselves, as in Python. That is harmless:
 *     nothing descends into them. Readers look at two levels at most, and at the kind of each value first.
 *
 * Values live in an arena that goes away with the machine; strings stay where they are in the file.
 *
 * The two forms of a checkpoint:
 *
 *   ZIP archive, since PyTorch 1.6    a/data.pkl, a/data/KEY for each storage, a/byteorder
 *   before, "legacy"                  five pickles, one behind the other: a magic number, the version 1001, facts about
 *                                     the machine, the dictionary, the list of storages' keys;
 *                                     then for each key: i64 number of elements, the elements
 */
#include "formats/pickle.h"

#include "formats/zip.h"
#include "core/file_kind.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The program of a 12.8B model takes 60 KB; values take at most about 100 bytes for each byte of the program. */
#define LARGEST_PROGRAM ((size_t)16 << 20)

/* A mark is a value on the same stack as the others. pop() and push_sequence() refuse it; where APPEND or SETITEM put
 * one into a list or a dictionary, it is an item that no reader of these accepts. */
enum kind { K_NONE, K_MARK, K_BOOL, K_INT, K_FLOAT, K_STRING, K_TUPLE, K_LIST, K_DICT, K_GLOBAL, K_STORAGE, K_TENSOR };

static const char *const kind_names[] = {"None",    "a mark", "a bool",       "an int", "a float",   "a string",
                                         "a tuple", "a list", "a dictionary", "a name", "a storage", "a tensor"};

enum global {
    G_ORDERED_DICT,
    G_REBUILD_TENSOR,
    G_REBUILD_TENSOR_V3,
    G_REBUILD_PARAMETER,
    G_REBUILD_FROM_TYPE,
    G_CLASS,   /* of a tensor */
    G_STORAGE, /* + enum geul_dtype; COUNT: one of bytes, whose tensors name their type */
    G_DTYPE = G_STORAGE + GEUL_DTYPE_COUNT + 1 /* + enum geul_dtype */
};

struct value;

/* Items of a tuple or list; of a dictionary keys and values in turn, in the order in which they were set (a key that
 * comes twice is there twice). */
struct sequence {
    struct value *items;
    size_t count, capacity;
};

struct storage {
    enum geul_dtype dtype; /* COUNT: bytes */
    const uint8_t *data;   /* NULL in the legacy form until the program has run */
    size_t elements;
    const char *key; /* legacy form: */
    size_t key_length;
    size_t first, whole; /* it begins at this element of the storage of that key, which has `whole` elements */
};

struct tensor {
    struct geul_source_tensor t; /* without name and data */
    const struct storage *storage;
    size_t offset; /* of its first element, in elements */
};

struct value {
    enum kind kind;
    size_t length; /* of a string */
    union {
        int64_t integer;
        const char *string; /* in the file */
        struct sequence *sequence;
        enum global global;
        struct storage *storage;
        struct tensor *tensor;
    } as;
};

struct machine {
    struct geul_context *ctx;   /* for failures */
    struct geul_context *arena; /* for values */
    const char *file;
    const struct geul_zip *zip; /* NULL: legacy form */
    const char *folder;         /* of the archive, with its slash */
    size_t folder_length;
    const uint8_t *program;
    size_t pc, end;
    struct sequence storages; /* legacy form: all that were named */
    struct value *stack;
    size_t depth, capacity;
    struct value *memo; /* values by number, for GET; filled from 0 on without gaps */
    size_t memo_count, memo_capacity;
    bool stopped;
};

/* ----------------------------------------------------------------------------------- machine -- */

static bool broken(struct machine *m, const char *what)
{
    geul_fail(m->ctx, GEUL_ERROR_FORMAT, "%s: %s, at byte %zu%s; it is damaged or not a checkpoint", m->file, what,
              m->pc, m->zip ? " of its data.pkl" : "");
    return false;
}

static bool no_memory(struct machine *m)
{
    geul_fail_from(m->ctx, m->arena);
    return false;
}

/* The next n bytes of the program; NULL (recorded) at its end. */
static const uint8_t *take(struct machine *m, size_t n)
{
    if (m->end - m->pc < n) {
        broken(m, "the pickle ends too early");
        return NULL;
    }
    m->pc += n;
    return m->program + m->pc - n;
}

/* An unsigned little-endian argument of n bytes. */
static bool take_number(struct machine *m, size_t n, uint64_t *out)
{
    const uint8_t *p = take(m, n);
    *out = 0;
    for (size_t i = 0; p && i < n; i++)
        *out |= (uint64_t)p[i] << (8 * i);
    return p != NULL;
}

/* Grows an array of the arena to hold one more. Old arrays stay in the arena, together no larger than the new one. */
static bool grow(struct machine *m, struct value **items, size_t count, size_t *capacity)
{
    if (count < *capacity)
        return true;
    size_t larger = *capacity ? 2 * *capacity : 8;
    struct value *grown = geul_arena(m->arena, larger, sizeof *grown);
    if (!grown)
        return no_memory(m);
    if (count)
        memcpy(grown, *items, count * sizeof *grown);
    *items = grown;
    *capacity = larger;
    return true;
}

static bool push(struct machine *m, struct value v)
{
    if (!grow(m, &m->stack, m->depth, &m->capacity))
        return false;
    m->stack[m->depth++] = v;
    return true;
}

/* Pops the top value, which must not be a mark. */
static bool pop(struct machine *m, struct value *v)
{
    if (m->depth == 0 || m->stack[m->depth - 1].kind == K_MARK)
        return broken(m, "the pickle takes a value that is not there");
    *v = m->stack[--m->depth];
    return true;
}

/* Depth of the topmost mark. */
static bool find_mark(struct machine *m, size_t *at)
{
    for (size_t i = m->depth; i-- > 0;)
        if (m->stack[i].kind == K_MARK) {
            *at = i;
            return true;
        }
    return broken(m, "the pickle has no mark where one is needed");
}

static bool append(struct machine *m, struct sequence *s, struct value v)
{
    if (!grow(m, &s->items, s->count, &s->capacity))
        return false;
    s->items[s->count++] = v;
    return true;
}

/* Pushes a sequence of the n topmost values, which leave the stack. */
static bool push_sequence(struct machine *m, enum kind kind, size_t n)
{
    struct sequence *s = geul_arena(m->arena, 1, sizeof *s);
    if (!s)
        return no_memory(m);
    if (n > m->depth)
        return broken(m, "the pickle takes values that are not there");
    for (size_t i = m->depth - n; i < m->depth; i++)
        if (m->stack[i].kind == K_MARK)
            return broken(m, "the pickle takes values that are not there");
        else if (!append(m, s, m->stack[i]))
            return false;
    m->depth -= n;
    return push(m, (struct value){.kind = kind, .as.sequence = s});
}

/* The sequence of that kind on top of the stack, NULL (recorded) when there is none. */
static struct sequence *top_sequence(struct machine *m, enum kind kind)
{
    if (m->depth > 0 && m->stack[m->depth - 1].kind == kind)
        return m->stack[m->depth - 1].as.sequence;
    broken(m, kind == K_DICT ? "the pickle fills a dictionary that is not there" : "the pickle fills a missing list");
    return NULL;
}

/* ------------------------------------------------------------------------- tensors and names -- */

static bool is_int(const struct value *v)
{
    return v->kind == K_INT;
}

static size_t element_bytes(enum geul_dtype dtype)
{
    return dtype == GEUL_DTYPE_COUNT ? 1 : geul_dtype_info(dtype)->bytes;
}

/* Finds the archive's member data/<key> for s. */
static bool find_member(struct machine *m, struct storage *s)
{
    /* the key is part of a member's name and nothing else: "../x" finds no member */
    char member[256];
    size_t n = m->folder_length;
    if (n > sizeof member - 80)
        return broken(m, "the archive's folder has too long a name");
    memcpy(member, m->folder, n);
    memcpy(member + n, "data/", 5);
    memcpy(member + n + 5, s->key, s->key_length);
    n += 5 + s->key_length;
    member[n] = '\0';
    const struct geul_zip_entry *e = geul_zip_find(m->zip, member, n);
    /* the elements that are claimed lie within the member: from here on a storage's size can be trusted */
    if (!e || s->elements > e->size / element_bytes(s->dtype)) {
        char text[100];
        geul_fail(m->ctx, GEUL_ERROR_FORMAT, "%s: storage %s %s", m->file, geul_printable(member, text, sizeof text),
                  e ? "is smaller than the checkpoint says" : "is missing in the archive");
        return false;
    }
    s->data = e->data;
    return true;
}

/* Legacy form: a storage may be a view (key, first element, elements) of a larger one, or None. Its data comes behind
 * the program: it is found in place_storages(), which holds the claim against the file. */
static bool note_storage(struct machine *m, struct storage *s, const struct value *view)
{
    s->whole = s->elements;
    if (view && view->kind == K_TUPLE) {
        const struct value *v = view->as.sequence->items;
        if (view->as.sequence->count != 3 || !is_int(&v[1]) || !is_int(&v[2]) || v[1].as.integer < 0 ||
            v[2].as.integer < 0 || (uint64_t)v[1].as.integer > s->whole ||
            (uint64_t)v[2].as.integer > s->whole - (size_t)v[1].as.integer)
            return broken(m, "a view of a storage lies outside of it");
        s->first = (size_t)v[1].as.integer;
        s->elements = (size_t)v[2].as.integer;
    } else if (view && view->kind != K_NONE) {
        return broken(m, "a storage is not described as torch.save() does");
    }
    return append(m, &m->storages, (struct value){.kind = K_STORAGE, .as.storage = s});
}

/* persistent id ("storage", class, key, device, elements), in the legacy form with a view behind. The device is
 * ignored. */
static bool make_storage(struct machine *m, const struct sequence *id)
{
    const struct value *v = id->items;
    if (id->count < 5 || v[0].kind != K_STRING || v[0].length != 7 || memcmp(v[0].as.string, "storage", 7) != 0 ||
        v[1].kind != K_GLOBAL || v[1].as.global < G_STORAGE || v[1].as.global >= G_DTYPE || v[2].kind != K_STRING ||
        !is_int(&v[4]) || v[4].as.integer < 0 || v[2].length > 64)
        return broken(m, "a storage is not described as torch.save() does");
    struct storage *s = geul_arena(m->arena, 1, sizeof *s);
    if (!s)
        return no_memory(m);
    *s = (struct storage){.dtype = (enum geul_dtype)(v[1].as.global - G_STORAGE),
                          .elements = (size_t)v[4].as.integer,
                          .key = v[2].as.string,
                          .key_length = v[2].length};
    bool ok = m->zip ? find_member(m, s) : note_storage(m, s, id->count > 5 ? &v[5] : NULL);
    return ok && push(m, (struct value){.kind = K_STORAGE, .as.storage = s});
}

/* Fills t's shape from the sizes, and its strides where they are not those of a contiguous tensor. *last: the place of
 * the last element behind the first, in elements; -1 when there is none. */
static bool read_layout(struct machine *m, const struct sequence *sizes, const struct sequence *strides,
                        struct geul_source_tensor *t, int64_t *last)
{
    if (sizes->count != strides->count || sizes->count > GEUL_SOURCE_DIMS)
        return broken(m, "a tensor has sizes and strides that do not fit");
    t->n_dims = (int)sizes->count;
    int64_t expected = 1, reach;
    bool empty = false;
    *last = 0;
    for (size_t i = sizes->count; i-- > 0;) {
        int64_t size = sizes->items[i].as.integer, stride = strides->items[i].as.integer;
        if (!is_int(&sizes->items[i]) || !is_int(&strides->items[i]) || size < 0 || stride < 0)
            return broken(m, "a tensor has a size that is not a number");
        t->shape[i] = size;
        t->stride[i] = stride;
        t->strided |= size > 1 && stride != expected; /* a dimension of 1 may have any stride */
        empty |= size == 0;
        if (__builtin_mul_overflow(expected, size > 0 ? size : 1, &expected) ||
            __builtin_mul_overflow(size > 0 ? size - 1 : 0, stride, &reach) ||
            __builtin_add_overflow(*last, reach, last))
            return broken(m, "a tensor is impossibly large");
    }
    if (empty)
        *last = -1;
    return true;
}

/* torch._utils._rebuild_tensor_v2(storage, offset, sizes, strides, requires_grad, hooks); of _v3, over a storage of
 * bytes, the seventh argument is the type. Several tensors may lie in one storage, over each other too: that is how
 * tied weights are saved. */
static bool rebuild_tensor(struct machine *m, const struct sequence *args, bool v3)
{
    const struct value *v = args->items;
    if (args->count < (v3 ? 7 : 4) || v[0].kind != K_STORAGE || !is_int(&v[1]) || v[2].kind != K_TUPLE ||
        v[3].kind != K_TUPLE || (v[0].as.storage->dtype == GEUL_DTYPE_COUNT) != v3 ||
        (v3 && (v[6].kind != K_GLOBAL || v[6].as.global < G_DTYPE)))
        return broken(m, "a tensor is not described as torch.save() does");
    struct tensor *t = geul_arena(m->arena, 1, sizeof *t);
    if (!t)
        return no_memory(m);
    const struct storage *s = v[0].as.storage;
    int64_t offset = v[1].as.integer, last;
    *t = (struct tensor){.storage = s};
    t->t.dtype = v3 ? (enum geul_dtype)(v[6].as.global - G_DTYPE) : s->dtype;
    size_t each = geul_dtype_info(t->t.dtype)->bytes, elements = v3 ? s->elements / each : s->elements;
    if (!read_layout(m, v[2].as.sequence, v[3].as.sequence, &t->t, &last))
        return false;
    if (!geul_source_bytes(t->t.dtype, t->t.n_dims, t->t.shape, &t->t.bytes) || offset < 0 ||
        (uint64_t)offset > elements || (last >= 0 && (uint64_t)last >= elements - (size_t)offset))
        return broken(m, "a tensor lies outside its storage");
    /* expand() repeats elements without end: what is read has to be there, or a small file becomes a large one */
    if (t->t.bytes / each > elements - (size_t)offset)
        return broken(m, "a tensor has more elements than its storage");
    t->offset = (size_t)offset;
    return push(m, (struct value){.kind = K_TENSOR, .as.tensor = t});
}

static const struct {
    const char *module, *name;
    enum global global;
} globals[] = {
    {"collections", "OrderedDict", G_ORDERED_DICT},
    {"torch._utils", "_rebuild_tensor", G_REBUILD_TENSOR}, /* before PyTorch 0.4 */
    {"torch._utils", "_rebuild_tensor_v2", G_REBUILD_TENSOR},
    {"torch._utils", "_rebuild_tensor_v3", G_REBUILD_TENSOR_V3},
    {"torch._utils", "_rebuild_parameter", G_REBUILD_PARAMETER},
    {"torch._utils", "_rebuild_parameter_with_state", G_REBUILD_PARAMETER},
    {"torch._tensor", "_rebuild_from_type_v2", G_REBUILD_FROM_TYPE},
    {"torch", "Tensor", G_CLASS},
    {"torch.nn.parameter", "Parameter", G_CLASS},
    {"torch.storage", "UntypedStorage", G_STORAGE + GEUL_DTYPE_COUNT},
};

/* The rest of the line without its newline; NULL (recorded) when none ends. */
static const char *take_line(struct machine *m, size_t *length)
{
    const char *start = (const char *)m->program + m->pc;
    const char *end = memchr(start, '\n', m->end - m->pc);
    if (!end) {
        broken(m, "the pickle ends inside a name");
        return NULL;
    }
    *length = (size_t)(end - start);
    m->pc += *length + 1;
    return start;
}

static bool same(const char *s, size_t length, const char *word)
{
    return strlen(word) == length && memcmp(s, word, length) == 0;
}

/* The number that the name module.name stands for: one of globals or, of torch and torch.cuda, a storage class or a
 * type; -1: the name is not allowed. */
static int find_global(const char *module, size_t module_length, const char *name, size_t name_length)
{
    for (size_t i = 0; i < sizeof globals / sizeof *globals; i++)
        if (same(module, module_length, globals[i].module) && same(name, name_length, globals[i].name))
            return (int)globals[i].global;
    bool torch = same(module, module_length, "torch"), other = same(module, module_length, "torch.cuda");
    for (int d = 0; d < GEUL_DTYPE_COUNT && (torch || other); d++) {
        const struct geul_dtype_info *info = geul_dtype_info((enum geul_dtype)d);
        if (same(name, name_length, info->storage))
            return (int)G_STORAGE + d;
        if (torch && same(name, name_length, info->torch))
            return (int)G_DTYPE + d;
    }
    return -1;
}

/* Pushes what a name stands for, if it is one of the few that are allowed. */
static bool op_global(struct machine *m)
{
    size_t module_length, name_length;
    const char *module = take_line(m, &module_length);
    const char *name = module ? take_line(m, &name_length) : NULL;
    if (!name)
        return false;
    int known = find_global(module, module_length, name, name_length);
    if (known >= 0)
        return push(m, (struct value){.kind = K_GLOBAL, .as.global = (enum global)known});
    char full[128], text[128];
    snprintf(full, sizeof full, "%.*s.%.*s", module_length < 60 ? (int)module_length : 60, module,
             name_length < 60 ? (int)name_length : 60, name);
    geul_fail(m->ctx, GEUL_ERROR_FORMAT,
              "%s: wants to call %s, which a checkpoint does not need; geul executes nothing. The file may be hostile: "
              "look for a safetensors version of the model",
              m->file, geul_printable(full, text, sizeof text));
    return false;
}

/* OrderedDict() or, as Python 2 writes it, OrderedDict([[key, value], ...]). */
static bool make_dict(struct machine *m, const struct sequence *args)
{
    const struct sequence *pairs =
        args->count == 1 && args->items[0].kind == K_LIST ? args->items[0].as.sequence : NULL;
    if (args->count > 0 && !pairs)
        return broken(m, "an OrderedDict is not made as torch.save() does");
    struct sequence *s = geul_arena(m->arena, 1, sizeof *s);
    if (!s)
        return no_memory(m);
    for (size_t i = 0; pairs && i < pairs->count; i++) {
        const struct value *pair = &pairs->items[i];
        if ((pair->kind != K_LIST && pair->kind != K_TUPLE) || pair->as.sequence->count != 2)
            return broken(m, "an OrderedDict is not made as torch.save() does");
        if (!append(m, s, pair->as.sequence->items[0]) || !append(m, s, pair->as.sequence->items[1]))
            return false;
    }
    return push(m, (struct value){.kind = K_DICT, .as.sequence = s});
}

/* Pushes callee(*args). */
static bool call(struct machine *m, enum global callee, const struct sequence *a)
{
    switch (callee) {
    case G_REBUILD_TENSOR:
    case G_REBUILD_TENSOR_V3:
        return rebuild_tensor(m, a, callee == G_REBUILD_TENSOR_V3);
    case G_REBUILD_PARAMETER:
        /* its argument is the tensor; whether it has a gradient or attributes does not matter here */
        return a->count >= 1 && a->items[0].kind == K_TENSOR ? push(m, a->items[0])
                                                             : broken(m, "a parameter is not a tensor");
    case G_ORDERED_DICT:
        return make_dict(m, a);
    default:
        return broken(m, "the pickle calls what is not a function");
    }
}

static bool op_reduce(struct machine *m)
{
    struct value args, callee;
    if (!pop(m, &args) || !pop(m, &callee))
        return false;
    if (callee.kind != K_GLOBAL || args.kind != K_TUPLE)
        return broken(m, "the pickle calls what is not a function");
    const struct sequence *a = args.as.sequence;
    if (callee.as.global != G_REBUILD_FROM_TYPE)
        return call(m, callee.as.global, a);
    /* a tensor with attributes: (function, class, its arguments, attributes); call() does not come here again */
    if (a->count < 3 || a->items[0].kind != K_GLOBAL || a->items[1].kind != K_GLOBAL ||
        a->items[1].as.global != G_CLASS || a->items[2].kind != K_TUPLE)
        return broken(m, "a tensor is not described as torch.save() does");
    return call(m, a->items[0].as.global, a->items[2].as.sequence);
}

/* Pushes the storage that the tuple on top describes. */
static bool op_persistent(struct machine *m)
{
    struct value id;
    if (!pop(m, &id))
        return false;
    return id.kind == K_TUPLE ? make_storage(m, id.as.sequence) : broken(m, "a storage is not described by a tuple");
}

/* ------------------------------------------------------------------------------ instructions -- */

static bool op_protocol(struct machine *m)
{
    uint64_t version;
    return take_number(m, 1, &version);
}

static bool op_mark(struct machine *m)
{
    return push(m, (struct value){.kind = K_MARK});
}

static bool op_stop(struct machine *m)
{
    m->stopped = true;
    return true;
}

static bool op_none(struct machine *m)
{
    return push(m, (struct value){.kind = K_NONE});
}

static bool op_true(struct machine *m)
{
    return push(m, (struct value){.kind = K_BOOL, .as.integer = 1});
}

static bool op_false(struct machine *m)
{
    return push(m, (struct value){.kind = K_BOOL});
}

/* Pushes the whole number in the next 0 to 8 bytes; 0 bytes are 0. */
static bool push_int(struct machine *m, size_t bytes, bool is_signed)
{
    uint64_t v;
    if (!take_number(m, bytes, &v))
        return false;
    if (is_signed && bytes > 0 && bytes < 8 && v >> (8 * bytes - 1))
        v |= UINT64_MAX << (8 * bytes);
    return push(m, (struct value){.kind = K_INT, .as.integer = (int64_t)v});
}

static bool op_int1(struct machine *m)
{
    return push_int(m, 1, false);
}

static bool op_int2(struct machine *m)
{
    return push_int(m, 2, false);
}

static bool op_int4(struct machine *m)
{
    return push_int(m, 4, true);
}

static bool op_long1(struct machine *m)
{
    uint64_t bytes;
    if (!take_number(m, 1, &bytes))
        return false;
    return bytes <= 8 ? push_int(m, (size_t)bytes, true) : broken(m, "a number has more than 64 bits");
}

static bool op_float(struct machine *m)
{
    return take(m, 8) && push(m, (struct value){.kind = K_FLOAT});
}

/* Pushes the string behind its length, a number of that many bytes. */
static bool push_string(struct machine *m, size_t bytes)
{
    uint64_t length;
    if (!take_number(m, bytes, &length))
        return false;
    const uint8_t *s = take(m, (size_t)length);
    return s && push(m, (struct value){.kind = K_STRING, .length = (size_t)length, .as.string = (const char *)s});
}

static bool op_string(struct machine *m)
{
    return push_string(m, 4);
}

static bool op_short_string(struct machine *m)
{
    return push_string(m, 1);
}

static bool op_tuple0(struct machine *m)
{
    return push_sequence(m, K_TUPLE, 0);
}

static bool op_tuple1(struct machine *m)
{
    return push_sequence(m, K_TUPLE, 1);
}

static bool op_tuple2(struct machine *m)
{
    return push_sequence(m, K_TUPLE, 2);
}

static bool op_tuple3(struct machine *m)
{
    return push_sequence(m, K_TUPLE, 3);
}

static bool op_list(struct machine *m)
{
    return push_sequence(m, K_LIST, 0);
}

static bool op_dict(struct machine *m)
{
    return push_sequence(m, K_DICT, 0);
}

/* Replaces the topmost mark and what lies above it by a tuple. */
static bool op_tuple(struct machine *m)
{
    size_t mark;
    if (!find_mark(m, &mark) || !push_sequence(m, K_TUPLE, m->depth - mark - 1))
        return false;
    m->stack[mark] = m->stack[m->depth - 1]; /* the tuple, which was pushed above the mark */
    m->depth = mark + 1;
    return true;
}

/* Moves the values from depth `from` on into the sequence of that kind below them, and below mark_cells marks:
 *
 *   MARK'ed:  ... list mark a b c      mark_cells 1, from at a
 *   single:   ... list a               mark_cells 0
 */
static bool move_into(struct machine *m, enum kind kind, size_t from, size_t mark_cells)
{
    if (kind == K_DICT && (m->depth - from) % 2 != 0)
        return broken(m, "a dictionary has a key without a value");
    size_t first = from, last = m->depth;
    m->depth = from - mark_cells;
    struct sequence *s = top_sequence(m, kind);
    bool ok = s != NULL;
    for (size_t i = first; ok && i < last; i++) /* above the depth, but untouched: appending pushes nothing */
        ok = append(m, s, m->stack[i]);
    return ok;
}

static bool fill_marked(struct machine *m, enum kind kind)
{
    size_t mark;
    return find_mark(m, &mark) && move_into(m, kind, mark + 1, 1);
}

static bool fill_top(struct machine *m, enum kind kind, size_t n)
{
    return m->depth > n ? move_into(m, kind, m->depth - n, 0) : broken(m, "the pickle takes values that are not there");
}

static bool op_append(struct machine *m)
{
    return fill_top(m, K_LIST, 1);
}

static bool op_appends(struct machine *m)
{
    return fill_marked(m, K_LIST);
}

static bool op_set_item(struct machine *m)
{
    return fill_top(m, K_DICT, 2);
}

static bool op_set_items(struct machine *m)
{
    return fill_marked(m, K_DICT);
}

/* Sets attributes of a dictionary (a state_dict's _metadata), which are ignored; the dictionary stays on top. */
static bool op_build(struct machine *m)
{
    struct value state;
    return pop(m, &state) && top_sequence(m, K_DICT) != NULL;
}

/* Stores the top value under the next number, or again under an earlier one: the pickler numbers from 0 upwards. A
 * number beyond the next is refused, so a file of a few bytes cannot ask for a large memo. */
static bool memo_put(struct machine *m, size_t bytes)
{
    uint64_t i;
    if (!take_number(m, bytes, &i))
        return false;
    if (i > m->memo_count || m->depth == 0)
        return broken(m, "the pickle stores a value out of range");
    if (i == m->memo_count && !grow(m, &m->memo, m->memo_count++, &m->memo_capacity))
        return false;
    m->memo[i] = m->stack[m->depth - 1];
    return true;
}

static bool memo_get(struct machine *m, size_t bytes)
{
    uint64_t i;
    if (!take_number(m, bytes, &i))
        return false;
    if (i >= m->memo_count)
        return broken(m, "the pickle fetches a value that was not stored");
    return push(m, m->memo[i]);
}

static bool op_put1(struct machine *m)
{
    return memo_put(m, 1);
}

static bool op_put4(struct machine *m)
{
    return memo_put(m, 4);
}

static bool op_get1(struct machine *m)
{
    return memo_get(m, 1);
}

static bool op_get4(struct machine *m)
{
    return memo_get(m, 4);
}

/* What torch.save() writes: protocol 2. T and U are the strings of Python 2. */
static bool (*const instructions[256])(struct machine *) = {
    [0x80] = op_protocol, ['('] = op_mark,     ['.'] = op_stop,         ['N'] = op_none,    [0x88] = op_true,
    [0x89] = op_false,    ['K'] = op_int1,     ['M'] = op_int2,         ['J'] = op_int4,    [0x8a] = op_long1,
    ['G'] = op_float,     ['X'] = op_string,   [')'] = op_tuple0,       [0x85] = op_tuple1, [0x86] = op_tuple2,
    [0x87] = op_tuple3,   ['t'] = op_tuple,    [']'] = op_list,         ['}'] = op_dict,    ['a'] = op_append,
    ['e'] = op_appends,   ['s'] = op_set_item, ['u'] = op_set_items,    ['b'] = op_build,   ['q'] = op_put1,
    ['r'] = op_put4,      ['h'] = op_get1,     ['j'] = op_get4,         ['c'] = op_global,  ['Q'] = op_persistent,
    ['R'] = op_reduce,    ['T'] = op_string,   ['U'] = op_short_string,
};

/* Runs the program from pc on; on success its result is the only value on the stack. */
static bool run(struct machine *m)
{
    m->depth = m->memo_count = 0;
    m->stopped = false;
    while (!m->stopped) {
        const uint8_t *code = take(m, 1);
        if (!code)
            return false;
        if (!instructions[*code]) {
            char text[64];
            snprintf(text, sizeof text, "instruction 0x%02x is not one that torch.save() writes", *code);
            return broken(m, text);
        }
        if (!instructions[*code](m))
            return false;
    }
    return m->depth == 1 || broken(m, "the pickle leaves more or less than one value");
}

/* -------------------------------------------------------------------------------- checkpoint -- */

/* Appends the tensors of the dictionary to list; other entries are skipped. A name that comes twice is refused when the
 * list is sorted. */
static bool list_tensors(struct machine *m, const struct sequence *dict, struct geul_source_list *list)
{
    size_t found = 0;
    for (size_t i = 0; i + 1 < dict->count; i += 2) {
        const struct value *key = &dict->items[i], *v = &dict->items[i + 1];
        if (key->kind != K_STRING || v->kind != K_TENSOR || memchr(key->as.string, 0, key->length)) {
            geul_log(m->ctx, GEUL_LOG_DEBUG, "%s: entry %zu is %s, not a tensor; left out", m->file, i / 2,
                     kind_names[v->kind]);
            continue;
        }
        /* out of the arena: the list outlives the machine, of which only pointers into the file are left */
        char *name = geul_strndup(m->ctx, key->as.string, key->length);
        if (!name)
            return false;
        struct geul_source_tensor t = v->as.tensor->t;
        t.name = name;
        t.data = v->as.tensor->storage->data + v->as.tensor->offset * geul_dtype_info(t.dtype)->bytes;
        enum geul_status status = geul_source_append(m->ctx, list, &t);
        geul_free(m->ctx, name);
        if (status != GEUL_OK)
            return false;
        found++;
    }
    if (found == 0)
        geul_fail(m->ctx, GEUL_ERROR_FORMAT,
                  "%s: holds no tensors at its top level; geul reads state dictionaries (name to tensor)", m->file);
    return found > 0;
}

/* The member <folder>/data.pkl. */
static const struct geul_zip_entry *find_program(const struct geul_zip *zip, size_t *prefix)
{
    static const char tail[] = "data.pkl";
    size_t n = sizeof tail - 1;
    for (size_t i = 0; i < zip->count; i++) {
        const struct geul_zip_entry *e = &zip->entries[i];
        if (e->name_length >= n && memcmp(e->name + e->name_length - n, tail, n) == 0) {
            *prefix = e->name_length - n;
            return e;
        }
    }
    return NULL;
}

/* Whether the archive says that its numbers are big-endian. */
static bool is_big_endian(const struct geul_zip *zip)
{
    static const char tail[] = "byteorder";
    size_t n = sizeof tail - 1;
    for (size_t i = 0; i < zip->count; i++) {
        const struct geul_zip_entry *e = &zip->entries[i];
        if (e->name_length >= n && memcmp(e->name + e->name_length - n, tail, n) == 0)
            return !same((const char *)e->data, e->size, "little");
    }
    return false;
}

static bool no_arena(struct geul_context *ctx, const char *name)
{
    geul_fail(ctx, GEUL_ERROR_MEMORY, "%s: out of memory", name);
    return false;
}

static bool is_dict(struct machine *m, const struct value *v)
{
    return v->kind == K_DICT || broken(m, "the result is not a dictionary of tensors");
}

static enum geul_status read_archive(struct geul_context *ctx, const char *name, const struct geul_zip *zip,
                                     struct geul_source_list *list)
{
    struct machine m = {.ctx = ctx, .file = name, .zip = zip};
    const struct geul_zip_entry *program = find_program(zip, &m.folder_length);
    if (!program || program->size > LARGEST_PROGRAM)
        return geul_fail(ctx, GEUL_ERROR_FORMAT,
                         "%s: the archive has no data.pkl of at most %zu bytes; it is not a PyTorch checkpoint", name,
                         LARGEST_PROGRAM);
    if (is_big_endian(zip))
        return geul_fail(ctx, GEUL_ERROR_UNSUPPORTED, "%s: was written on a big-endian machine", name);
    m.folder = program->name;
    m.program = program->data;
    m.end = program->size;
    /* values have their own context, so that one call frees them all, whatever the program did */
    m.arena = geul_context_new_like(ctx);
    bool ok = m.arena ? run(&m) : no_arena(ctx, name);
    ok = ok && is_dict(&m, &m.stack[0]) && list_tensors(&m, m.stack[0].as.sequence, list);
    geul_context_free(m.arena);
    return ok ? GEUL_OK : geul_error_status(ctx);
}

/* ------------------------------------------------------------------------------- legacy form -- */

/* The pickle of torch's magic number, which is longer than 64 bits. */
static const uint8_t legacy_magic[] = {0x80, 2,    0x8a, 10,   0x6c, 0xfc, 0x9c, 0x46,
                                       0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19, '.'};

enum { LEGACY_VERSION = 1001 };

/* Orders storages by their keys. */
static int compare_keys(const struct storage *x, const char *key, size_t length)
{
    size_t n = x->key_length < length ? x->key_length : length;
    int order = n ? memcmp(x->key, key, n) : 0;
    return order ? order : (x->key_length > length) - (x->key_length < length);
}

static int by_key(const void *a, const void *b)
{
    const struct value *x = a, *y = b;
    return compare_keys(x->as.storage, y->as.storage->key, y->as.storage->key_length);
}

/* The first of the sorted storages that has the key; their number when none has. */
static size_t first_with_key(const struct sequence *storages, const struct value *key)
{
    size_t low = 0, high = storages->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (compare_keys(storages->items[middle].as.storage, key->as.string, key->length) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/* Takes the elements of one key from the file, for every storage of that key. They were described one by one, in the
 * program; the number of elements in front of the data has to be what each of them said. */
static bool place_key(struct machine *m, const struct value *key)
{
    size_t at = key->kind == K_STRING ? first_with_key(&m->storages, key) : m->storages.count, bytes;
    uint64_t elements;
    if (!take_number(m, 8, &elements))
        return false;
    const struct storage *first = at < m->storages.count ? m->storages.items[at].as.storage : NULL;
    if (!first || compare_keys(first, key->as.string, key->length) != 0 || first->data)
        return broken(m, "the list of storages does not fit the tensors");
    if (elements != first->whole || !geul_mul_size(first->whole, element_bytes(first->dtype), &bytes))
        return broken(m, "a storage has another size than its tensors say");
    const uint8_t *data = take(m, bytes);
    for (; data && at < m->storages.count; at++) {
        struct storage *s = m->storages.items[at].as.storage;
        if (compare_keys(s, key->as.string, key->length) != 0)
            break;
        if (s->dtype != first->dtype || s->whole != first->whole)
            return broken(m, "one storage is described in two ways");
        s->data = data + s->first * element_bytes(s->dtype);
    }
    return data != NULL;
}

/* Finds the data of all storages, which follows the programs in the order of keys. */
static bool place_storages(struct machine *m, const struct value *keys)
{
    if (keys->kind != K_LIST)
        return broken(m, "the list of storages is missing");
    if (m->storages.count > 1)
        qsort(m->storages.items, m->storages.count, sizeof *m->storages.items, by_key);
    for (size_t i = 0; i < keys->as.sequence->count; i++)
        if (!place_key(m, &keys->as.sequence->items[i]))
            return false;
    for (size_t i = 0; i < m->storages.count; i++)
        if (!m->storages.items[i].as.storage->data)
            return broken(m, "the data of a storage is missing");
    return true;
}

/* Whether the machine's facts say that numbers are big-endian. */
static bool says_big_endian(const struct sequence *facts)
{
    for (size_t i = 0; i + 1 < facts->count; i += 2)
        if (facts->items[i].kind == K_STRING &&
            same(facts->items[i].as.string, facts->items[i].length, "little_endian"))
            return facts->items[i + 1].kind == K_BOOL && !facts->items[i + 1].as.integer;
    return false;
}

/* Runs the next of the five programs, none of which may be larger than LARGEST_PROGRAM. */
static bool run_next(struct machine *m, size_t size)
{
    m->end = size - m->pc > LARGEST_PROGRAM ? m->pc + LARGEST_PROGRAM : size;
    return run(m);
}

static bool read_legacy(struct machine *m, size_t size, struct geul_source_list *list)
{
    m->pc = sizeof legacy_magic;
    if (!run_next(m, size))
        return false;
    if (m->stack[0].kind != K_INT || m->stack[0].as.integer != LEGACY_VERSION)
        return broken(m, "another version of the format than 1001");
    if (!run_next(m, size) || !is_dict(m, &m->stack[0]))
        return false;
    if (says_big_endian(m->stack[0].as.sequence)) {
        geul_fail(m->ctx, GEUL_ERROR_UNSUPPORTED, "%s: was written on a big-endian machine", m->file);
        return false;
    }
    if (!run_next(m, size) || !is_dict(m, &m->stack[0]))
        return false;
    const struct sequence *tensors = m->stack[0].as.sequence;
    if (!run_next(m, size))
        return false;
    m->end = size; /* the data: limited by the file alone */
    return place_storages(m, &m->stack[0]) && list_tensors(m, tensors, list);
}

enum geul_status geul_pickle_read(struct geul_context *ctx, const char *name, const uint8_t *data, size_t size,
                                  struct geul_source_list *list)
{
    if (size >= sizeof legacy_magic && memcmp(data, legacy_magic, sizeof legacy_magic) == 0) {
        struct machine m = {.ctx = ctx, .file = name, .program = data, .arena = geul_context_new_like(ctx)};
        bool ok = m.arena ? read_legacy(&m, size, list) : no_arena(ctx, name);
        geul_context_free(m.arena);
        return ok ? GEUL_OK : geul_error_status(ctx);
    }
    const struct geul_file_kind *kind = geul_file_kind_foreign(data, size, GEUL_FILE_TORCH);
    bool archive = size >= 4 && memcmp(data, "PK", 2) == 0;
    if (kind && !archive)
        return geul_fail_kind(ctx, name, "a PyTorch checkpoint", kind);
    if (!archive)
        return geul_fail(ctx, GEUL_ERROR_FORMAT, "%s: not a PyTorch checkpoint (%s)", name,
                         size > 1 && data[0] == 0x80 ? "a pickle that torch.save() did not write; geul executes nothing"
                                                     : "it begins neither as a ZIP archive nor as the older form");
    struct geul_zip zip;
    enum geul_status status = geul_zip_open(ctx, name, data, size, &zip);
    if (status == GEUL_OK)
        status = read_archive(ctx, name, &zip, list);
    geul_zip_free(ctx, &zip);
    return status;
}

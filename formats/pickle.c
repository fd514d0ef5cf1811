/* pickle.c: see pickle.h. A stack machine over plain values; instructions and allowed names are tables.
 *
 * Why nothing of a hostile file runs:
 *   - An instruction that is not in the table `instructions` ends the reading. None of them jumps: each takes at least
 *     one byte of the program, so the machine halts after at most LARGEST_PROGRAM of them.
 *   - A name pushes a number out of enum global, never a function; REDUCE knows three of these numbers, and all that
 *     they make is an empty dictionary, a tensor's description, or their own argument again.
 *   - A persistent id names a member of this archive. Nothing opens a file, and data of tensors is only pointed to.
 *   - Lists and dictionaries are shared by reference and may hold themselves, as in Python. That is harmless:
 *     nothing descends into them. Readers look at two levels at most, and at the kind of each value first.
 *
 * Values live in an arena that goes away with the machine; strings stay where they are in the file. */
#include "formats/pickle.h"

#include "formats/zip.h"

#include <stdio.h>
#include <string.h>

/* The program of a 12.8B model takes 60 KB; values take at most about 100 bytes for each byte of the program. */
#define LARGEST_PROGRAM ((size_t)16 << 20)

/* A mark is a value on the same stack as the others. pop() and push_sequence() refuse it; where APPEND or SETITEM put
 * one into a list or a dictionary, it is an item that no reader of these accepts. */
enum kind { K_NONE, K_MARK, K_BOOL, K_INT, K_FLOAT, K_STRING, K_TUPLE, K_LIST, K_DICT, K_GLOBAL, K_STORAGE, K_TENSOR };

static const char *const kind_names[] = {"None",    "a mark", "a bool",       "an int", "a float",   "a string",
                                         "a tuple", "a list", "a dictionary", "a name", "a storage", "a tensor"};

enum global { G_ORDERED_DICT, G_REBUILD_TENSOR, G_REBUILD_PARAMETER, G_STORAGE /* + enum geul_dtype */ };

struct value;

/* Items of a tuple or list; of a dictionary keys and values in turn, in the order in which they were set (a key that
 * comes twice is there twice). */
struct sequence {
    struct value *items;
    size_t count, capacity;
};

struct storage {
    enum geul_dtype dtype;
    const uint8_t *data;
    size_t elements;
};

struct tensor {
    struct geul_source_tensor t; /* without a name */
    bool strided;                /* not contiguous */
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
    const struct geul_zip *zip;
    const struct geul_zip_entry *program;
    size_t prefix; /* length of the archive's folder in program->name */
    size_t pc;
    struct value *stack;
    size_t depth, capacity;
    struct value *memo; /* values by number, for GET; filled from 0 on without gaps */
    size_t memo_count, memo_capacity;
    bool stopped;
};

/* ----------------------------------------------------------------------------------- machine -- */

static bool broken(struct machine *m, const char *what)
{
    geul_fail(m->ctx, GEUL_ERROR_FORMAT, "%s: %s, at byte %zu of its data.pkl; it is damaged or not a checkpoint",
              m->file, what, m->pc);
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
    if (m->program->size - m->pc < n) {
        broken(m, "the pickle ends too early");
        return NULL;
    }
    m->pc += n;
    return m->program->data + m->pc - n;
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

/* persistent id ("storage", class, key, device, elements): finds the archive member data/<key>. The device is
 * ignored. */
static bool make_storage(struct machine *m, const struct sequence *id)
{
    const struct value *v = id->items;
    if (id->count < 5 || v[0].kind != K_STRING || v[0].length != 7 || memcmp(v[0].as.string, "storage", 7) != 0 ||
        v[1].kind != K_GLOBAL || v[1].as.global < G_STORAGE || v[2].kind != K_STRING || !is_int(&v[4]) ||
        v[2].length > 64)
        return broken(m, "a storage is not described as torch.save() does");
    /* the key is part of a member's name and nothing else: "../x" finds no member */
    char member[256];
    size_t n = m->prefix;
    if (n > sizeof member - 80)
        return broken(m, "the archive's folder has too long a name");
    memcpy(member, m->program->name, n);
    memcpy(member + n, "data/", 5);
    memcpy(member + n + 5, v[2].as.string, v[2].length);
    n += 5 + v[2].length;
    member[n] = '\0';
    const struct geul_zip_entry *e = geul_zip_find(m->zip, member, n);
    struct storage *s = geul_arena(m->arena, 1, sizeof *s);
    if (!s)
        return no_memory(m);
    s->dtype = (enum geul_dtype)(v[1].as.global - G_STORAGE);
    size_t bytes = geul_dtype_info(s->dtype)->bytes;
    int64_t elements = v[4].as.integer;
    /* the elements that are claimed lie within the member: from here on a storage's size can be trusted */
    if (!e || elements < 0 || (uint64_t)elements > e->size / bytes) {
        char text[100];
        geul_fail(m->ctx, GEUL_ERROR_FORMAT, "%s: storage %s %s", m->file, geul_printable(member, text, sizeof text),
                  e ? "is smaller than the checkpoint says" : "is missing in the archive");
        return false;
    }
    s->data = e->data;
    s->elements = (size_t)elements;
    return push(m, (struct value){.kind = K_STORAGE, .as.storage = s});
}

/* Fills t's shape from the sizes; sets strided unless the strides are those of a contiguous tensor. */
static bool read_layout(struct machine *m, const struct sequence *sizes, const struct sequence *strides,
                        struct tensor *t)
{
    if (sizes->count != strides->count || sizes->count > GEUL_SOURCE_DIMS)
        return broken(m, "a tensor has sizes and strides that do not fit");
    t->t.n_dims = (int)sizes->count;
    int64_t expected = 1;
    for (size_t i = sizes->count; i-- > 0;) {
        int64_t size = sizes->items[i].as.integer;
        if (!is_int(&sizes->items[i]) || !is_int(&strides->items[i]) || size < 0)
            return broken(m, "a tensor has a size that is not a number");
        t->t.shape[i] = size;
        t->strided |= size > 1 && strides->items[i].as.integer != expected; /* a dimension of 1 may have any stride */
        if (__builtin_mul_overflow(expected, size > 0 ? size : 1, &expected))
            return broken(m, "a tensor is impossibly large");
    }
    return true;
}

/* torch._utils._rebuild_tensor_v2(storage, offset, sizes, strides, requires_grad, hooks). Several tensors may lie in
 * one storage, over each other too: that is how tied weights are saved. */
static bool rebuild_tensor(struct machine *m, const struct sequence *args)
{
    const struct value *v = args->items;
    if (args->count < 4 || v[0].kind != K_STORAGE || !is_int(&v[1]) || v[2].kind != K_TUPLE || v[3].kind != K_TUPLE)
        return broken(m, "a tensor is not described as torch.save() does");
    struct tensor *t = geul_arena(m->arena, 1, sizeof *t);
    if (!t)
        return no_memory(m);
    const struct storage *s = v[0].as.storage;
    int64_t offset = v[1].as.integer;
    size_t each = geul_dtype_info(s->dtype)->bytes;
    t->t.dtype = s->dtype;
    if (!read_layout(m, v[2].as.sequence, v[3].as.sequence, t))
        return false;
    /* bytes count a contiguous tensor; those of a strided one may lie elsewhere, but it is never read (list_tensors) */
    if (!geul_source_bytes(s->dtype, t->t.n_dims, t->t.shape, &t->t.bytes) || offset < 0 ||
        (uint64_t)offset > s->elements || t->t.bytes / each > s->elements - (size_t)offset)
        return broken(m, "a tensor lies outside its storage");
    t->t.data = s->data + (size_t)offset * each;
    return push(m, (struct value){.kind = K_TENSOR, .as.tensor = t});
}

static const struct {
    const char *module, *name;
    enum global global;
} globals[] = {
    {"collections", "OrderedDict", G_ORDERED_DICT},
    {"torch._utils", "_rebuild_tensor_v2", G_REBUILD_TENSOR},
    {"torch._utils", "_rebuild_parameter", G_REBUILD_PARAMETER},
};

/* The rest of the line without its newline; NULL (recorded) when none ends. */
static const char *take_line(struct machine *m, size_t *length)
{
    const char *start = (const char *)m->program->data + m->pc;
    const char *end = memchr(start, '\n', m->program->size - m->pc);
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

/* Pushes what the name module.name stands for, if it is one of the few that are allowed: globals and, of torch and
 * torch.cuda, the storage classes. */
static bool op_global(struct machine *m)
{
    size_t module_length, name_length;
    const char *module = take_line(m, &module_length);
    const char *name = module ? take_line(m, &name_length) : NULL;
    if (!name)
        return false;
    for (size_t i = 0; i < sizeof globals / sizeof *globals; i++)
        if (same(module, module_length, globals[i].module) && same(name, name_length, globals[i].name))
            return push(m, (struct value){.kind = K_GLOBAL, .as.global = globals[i].global});
    for (int d = 0;
         d < GEUL_DTYPE_COUNT && (same(module, module_length, "torch") || same(module, module_length, "torch.cuda"));
         d++)
        if (same(name, name_length, geul_dtype_info((enum geul_dtype)d)->storage))
            return push(m, (struct value){.kind = K_GLOBAL, .as.global = (enum global)(G_STORAGE + d)});
    char full[128], text[128];
    snprintf(full, sizeof full, "%.*s.%.*s", module_length < 60 ? (int)module_length : 60, module,
             name_length < 60 ? (int)name_length : 60, name);
    geul_fail(m->ctx, GEUL_ERROR_FORMAT,
              "%s: wants to call %s, which a checkpoint does not need; geul executes nothing. The file may be hostile: "
              "look for a safetensors version of the model",
              m->file, geul_printable(full, text, sizeof text));
    return false;
}

/* callee(*args), where callee is one of globals. */
static bool op_reduce(struct machine *m)
{
    struct value args, callee;
    if (!pop(m, &args) || !pop(m, &callee))
        return false;
    if (callee.kind != K_GLOBAL || callee.as.global >= G_STORAGE || args.kind != K_TUPLE)
        return broken(m, "the pickle calls what is not a function");
    const struct sequence *a = args.as.sequence;
    switch (callee.as.global) {
    case G_REBUILD_TENSOR:
        return rebuild_tensor(m, a);
    case G_REBUILD_PARAMETER:
        /* its argument is the tensor; whether it has a gradient does not matter here */
        return a->count >= 1 && a->items[0].kind == K_TENSOR ? push(m, a->items[0])
                                                             : broken(m, "a parameter is not a tensor");
    default:
        return a->count == 0 ? push_sequence(m, K_DICT, 0)
                             : broken(m, "an OrderedDict is not made as torch.save() does");
    }
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

static bool op_string(struct machine *m)
{
    uint64_t length;
    if (!take_number(m, 4, &length))
        return false;
    const uint8_t *s = take(m, (size_t)length);
    return s && push(m, (struct value){.kind = K_STRING, .length = (size_t)length, .as.string = (const char *)s});
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

/* What torch.save() writes: protocol 2. */
static bool (*const instructions[256])(struct machine *) = {
    [0x80] = op_protocol, ['('] = op_mark,     ['.'] = op_stop,      ['N'] = op_none,    [0x88] = op_true,
    [0x89] = op_false,    ['K'] = op_int1,     ['M'] = op_int2,      ['J'] = op_int4,    [0x8a] = op_long1,
    ['G'] = op_float,     ['X'] = op_string,   [')'] = op_tuple0,    [0x85] = op_tuple1, [0x86] = op_tuple2,
    [0x87] = op_tuple3,   ['t'] = op_tuple,    [']'] = op_list,      ['}'] = op_dict,    ['a'] = op_append,
    ['e'] = op_appends,   ['s'] = op_set_item, ['u'] = op_set_items, ['b'] = op_build,   ['q'] = op_put1,
    ['r'] = op_put4,      ['h'] = op_get1,     ['j'] = op_get4,      ['c'] = op_global,  ['Q'] = op_persistent,
    ['R'] = op_reduce,
};

/* Runs the program; on success its result is the only value on the stack. */
static bool run(struct machine *m)
{
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
        char text[100];
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
        enum geul_status status =
            v->as.tensor->strided
                ? geul_fail(m->ctx, GEUL_ERROR_UNSUPPORTED,
                            "%s: tensor %s is transposed or strided; load the checkpoint with torch and save it again "
                            "with .contiguous() tensors, or as safetensors",
                            m->file, geul_printable(name, text, sizeof text))
                : geul_source_append(m->ctx, list, &t);
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

static enum geul_status read_archive(struct geul_context *ctx, const char *name, const struct geul_zip *zip,
                                     struct geul_source_list *list)
{
    struct machine m = {.ctx = ctx, .file = name, .zip = zip};
    m.program = find_program(zip, &m.prefix);
    if (!m.program || m.program->size > LARGEST_PROGRAM)
        return geul_fail(ctx, GEUL_ERROR_FORMAT,
                         "%s: the archive has no data.pkl of at most %zu bytes; it is not a PyTorch checkpoint", name,
                         LARGEST_PROGRAM);
    if (is_big_endian(zip))
        return geul_fail(ctx, GEUL_ERROR_UNSUPPORTED, "%s: was written on a big-endian machine", name);
    /* values have their own context, so that one call frees them all, whatever the program did */
    m.arena = geul_context_new_like(ctx);
    if (!m.arena)
        return geul_fail(ctx, GEUL_ERROR_MEMORY, "%s: out of memory", name);
    bool ok = run(&m);
    if (ok && m.stack[0].kind != K_DICT)
        ok = broken(&m, "the result is not a dictionary of tensors");
    ok = ok && list_tensors(&m, m.stack[0].as.sequence, list);
    geul_context_free(m.arena);
    return ok ? GEUL_OK : geul_error_status(ctx);
}

enum geul_status geul_pickle_read(struct geul_context *ctx, const char *name, const uint8_t *data, size_t size,
                                  struct geul_source_list *list)
{
    if (size < 4 || memcmp(data, "PK", 2) != 0) {
        bool legacy = size > 2 && data[0] == 0x80;
        return geul_fail(ctx, legacy ? GEUL_ERROR_UNSUPPORTED : GEUL_ERROR_FORMAT,
                         legacy ? "%s: written by PyTorch older than 1.6, not a ZIP archive; rewrite it once with: "
                                  "python -c \"import torch; f = 'FILE'; torch.save(torch.load(f, map_location='cpu', "
                                  "weights_only=True), f)\""
                                : "%s: not a PyTorch checkpoint (it does not begin as a ZIP archive does)",
                         name);
    }
    struct geul_zip zip;
    enum geul_status status = geul_zip_open(ctx, name, data, size, &zip);
    if (status == GEUL_OK)
        status = read_archive(ctx, name, &zip, list);
    geul_zip_free(ctx, &zip);
    return status;
}

/* test_pickle.c: PyTorch archives, honest and hostile. Programs are written as torch.save() writes them: protocol 2. */
#include "formats/pickle.h"
#include "tests/harness.h"
#include "tests/hostile.h"

/* ---------------------------------------------------------------------------------- archives -- */

struct member {
    const char *name;
    const void *data;
    size_t size;
};

/* What is wrong with an archive. */
enum lie {
    HONEST,
    COMPRESSED,
    ENCRYPTED,
    PACKED_SIZE,
    LOCAL_OFFSET,
    MEMBER_SIZE,
    OTHER_NAME,
    ENTRY_COUNT,
    DIRECTORY_OFFSET,
    NAME_TWICE,
    ZIP64,
    ZIP64_LIE
};

static void local_header(struct bytes *b, const struct member *m, enum lie lie)
{
    bytes_text(b, "PK\3\4");
    bytes_zeros(b, 22);
    bytes_number(b, strlen(m->name), 2);
    bytes_number(b, 0, 2);
    bytes_text(b, m->name);
    if (lie == OTHER_NAME)
        b->data[b->size - 1] ^= 1;
    bytes_put(b, m->data, m->size);
}

static void directory_entry(struct bytes *b, const struct member *m, uint64_t offset, enum lie lie)
{
    uint64_t size = m->size + (lie == MEMBER_SIZE ? 1000 : 0), packed = size - (lie == PACKED_SIZE);
    bool wide = lie == ZIP64 || lie == ZIP64_LIE;
    bytes_text(b, "PK\1\2");
    bytes_number(b, 0, 4);
    bytes_number(b, lie == ENCRYPTED, 2);
    bytes_number(b, lie == COMPRESSED ? 8 : 0, 2);
    bytes_zeros(b, 8);
    bytes_number(b, wide ? UINT32_MAX : packed, 4);
    bytes_number(b, wide ? UINT32_MAX : size, 4);
    bytes_number(b, strlen(m->name), 2);
    bytes_number(b, wide ? 28 : 0, 2);
    bytes_zeros(b, 10);
    bytes_number(b, wide ? UINT32_MAX : offset + (lie == LOCAL_OFFSET ? 7 : 0), 4);
    bytes_text(b, m->name);
    if (!wide)
        return;
    bytes_number(b, 1, 2);
    bytes_number(b, lie == ZIP64_LIE ? 300 : 24, 2);
    bytes_number(b, size, 8);
    bytes_number(b, size, 8);
    bytes_number(b, offset, 8);
}

/* An archive of the members; the lie is about the last one. */
static struct bytes make_zip(const struct member *members, size_t n, enum lie lie)
{
    struct bytes b = {0}, directory = {0};
    for (size_t i = 0; i < n; i++) {
        enum lie told = i + 1 == n || lie == ZIP64 ? lie : HONEST;
        for (int twice = 0; twice < (told == NAME_TWICE ? 2 : 1); twice++)
            directory_entry(&directory, &members[i], b.size, told);
        local_header(&b, &members[i], told);
    }
    uint64_t count = n + (lie == NAME_TWICE) + (lie == ENTRY_COUNT ? 3000 : 0), at = b.size;
    bytes_put(&b, directory.data, directory.size);
    if (lie == ZIP64) {
        uint64_t record = b.size;
        bytes_text(&b, "PK\6\6");
        bytes_zeros(&b, 28);
        bytes_number(&b, count, 8);
        bytes_number(&b, directory.size, 8);
        bytes_number(&b, at, 8);
        bytes_text(&b, "PK\6\7");
        bytes_number(&b, 0, 4);
        bytes_number(&b, record, 8);
        bytes_number(&b, 1, 4);
    }
    bytes_text(&b, "PK\5\6");
    bytes_zeros(&b, 6);
    bytes_number(&b, lie == ZIP64 ? UINT16_MAX : count, 2);
    bytes_number(&b, lie == ZIP64 ? UINT32_MAX : directory.size, 4);
    bytes_number(&b, lie == ZIP64 ? UINT32_MAX : at + (lie == DIRECTORY_OFFSET ? 4096 : 0), 4);
    bytes_number(&b, 0, 2);
    bytes_free(&directory);
    return b;
}

/* ---------------------------------------------------------------------------------- programs -- */

#define OP(b, ...) bytes_put((b), (const uint8_t[]){__VA_ARGS__}, sizeof((const uint8_t[]){__VA_ARGS__}))

static void text(struct bytes *b, const char *s)
{
    OP(b, 'X');
    bytes_number(b, strlen(s), 4);
    bytes_text(b, s);
}

static void global(struct bytes *b, const char *module, const char *name)
{
    OP(b, 'c');
    bytes_text(b, module);
    bytes_text(b, "\n");
    bytes_text(b, name);
    bytes_text(b, "\n");
}

/* Pushes _rebuild_tensor_v2(storage "0" of `elements` floats, offset, (2, 2), (stride, 1), False, OrderedDict()). */
static void tensor(struct bytes *b, uint8_t elements, uint8_t offset, uint8_t stride)
{
    global(b, "torch._utils", "_rebuild_tensor_v2");
    OP(b, '(', '(');
    text(b, "storage");
    global(b, "torch", "FloatStorage");
    text(b, "0");
    text(b, "cpu");
    OP(b, 'K', elements, 't', 'q', 0, 'Q', 'K', offset, 'K', 2, 'K', 2, 0x86, 'K', stride, 'K', 1, 0x86, 0x89);
    global(b, "collections", "OrderedDict");
    OP(b, ')', 'R', 't', 'R');
}

static void open_dict(struct bytes *b)
{
    OP(b, 0x80, 2, '}', '(');
    text(b, "w");
}

static void p_good(struct bytes *b)
{
    open_dict(b);
    tensor(b, 6, 1, 2);
    OP(b, 'u', '.');
}
static void p_parameter(struct bytes *b)
{
    OP(b, 0x80, 2);
    global(b, "collections", "OrderedDict");
    OP(b, ')', 'R', 'q', 0);
    text(b, "w");
    global(b, "torch._utils", "_rebuild_parameter");
    tensor(b, 6, 1, 2);
    OP(b, 0x88);
    global(b, "collections", "OrderedDict");
    OP(b, ')', 'R', 0x87, 'R', 's', '}');
    text(b, "_metadata");
    OP(b, 'N', 's', 'b', '.');
}
static void p_system(struct bytes *b)
{
    open_dict(b);
    global(b, "os", "system");
    text(b, "touch /tmp/geul-was-here");
    OP(b, 0x85, 'R', 'u', '.');
}
static void p_eval(struct bytes *b)
{
    open_dict(b);
    global(b, "builtins", "eval\x1b[2J");
    OP(b, '.');
}
static void p_storage_name(struct bytes *b)
{
    open_dict(b);
    global(b, "torch.FloatStorage", "__init__");
    OP(b, '.');
}
static void p_empty(struct bytes *b)
{
    (void)b;
}
static void p_unknown(struct bytes *b)
{
    OP(b, 0x80, 2, 'i', '.');
}
static void p_framed(struct bytes *b)
{
    OP(b, 0x80, 4, 0x95, 1, 0, 0, 0, 0, 0, 0, 0, '.');
}
static void p_underflow(struct bytes *b)
{
    OP(b, 0x80, 2, 'R', '.');
}
static void p_underflow_tuple(struct bytes *b)
{
    OP(b, 0x80, 2, 'N', 0x87, '.');
}
static void p_no_mark(struct bytes *b)
{
    OP(b, 0x80, 2, 'N', 't', '.');
}
static void p_reduce_mark(struct bytes *b)
{
    OP(b, 0x80, 2, '(', ')', 'R', '.');
}
static void p_call_int(struct bytes *b)
{
    OP(b, 0x80, 2, 'K', 1, ')', 'R', '.');
}
static void p_set_nothing(struct bytes *b)
{
    OP(b, 0x80, 2, '(', 'N', 'N', 'u', '.');
}
static void p_odd_items(struct bytes *b)
{
    OP(b, 0x80, 2, '}', '(', 'N', 'u', '.');
}
static void p_memo_far(struct bytes *b)
{
    OP(b, 0x80, 2, 'N', 'r', 0xff, 0xff, 0xff, 0x7f, '.');
}
static void p_memo_unset(struct bytes *b)
{
    OP(b, 0x80, 2, 'h', 0, '.');
}
static void p_memo_empty(struct bytes *b)
{
    OP(b, 0x80, 2, 'q', 0, '.');
}
static void p_long(struct bytes *b)
{
    OP(b, 0x80, 2, 0x8a, 255);
    bytes_zeros(b, 255);
    OP(b, '.');
}
static void p_string(struct bytes *b)
{
    OP(b, 0x80, 2, 'X', 0xff, 0xff, 0xff, 0xff, 'a', '.');
}
static void p_nothing_left(struct bytes *b)
{
    OP(b, 0x80, 2, '.');
}
static void p_int_result(struct bytes *b)
{
    OP(b, 0x80, 2, 'K', 1, '.');
}
static void p_no_tensors(struct bytes *b)
{
    open_dict(b);
    OP(b, 'K', 1, 'u', '.');
}
static void p_outside(struct bytes *b)
{
    open_dict(b);
    tensor(b, 6, 3, 2);
    OP(b, 'u', '.');
}
static void p_storage_size(struct bytes *b)
{
    open_dict(b);
    tensor(b, 7, 0, 2);
    OP(b, 'u', '.');
}
static void p_strided(struct bytes *b)
{
    open_dict(b);
    tensor(b, 6, 0, 3);
    OP(b, 'u', '.');
}
static void p_strided_outside(struct bytes *b)
{
    open_dict(b);
    tensor(b, 6, 0, 5);
    OP(b, 'u', '.');
}
static void p_strided_far(struct bytes *b)
{
    open_dict(b);
    tensor(b, 6, 0, 255);
    OP(b, 'u', '.');
}
/* expand(): four elements out of three. */
static void p_expanded(struct bytes *b)
{
    open_dict(b);
    tensor(b, 3, 0, 0);
    OP(b, 'u', '.');
}
/* The same four elements twice over would be read, but not these strides of 2^62. */
static void p_huge_stride(struct bytes *b)
{
    open_dict(b);
    global(b, "torch._utils", "_rebuild_tensor_v2");
    OP(b, '(', '(');
    text(b, "storage");
    global(b, "torch", "FloatStorage");
    text(b, "0");
    text(b, "cpu");
    OP(b, 'K', 6, 't', 'Q', 'K', 0, 'K', 3, 0x85, 0x8a, 8, 0, 0, 0, 0, 0, 0, 0, 0x40, 0x85, 0x89, 'N', 't', 'R', 'u',
       '.');
}
static void p_untyped(struct bytes *b)
{
    open_dict(b);
    global(b, "torch._utils", "_rebuild_tensor_v2");
    OP(b, '(', '(');
    text(b, "storage");
    global(b, "torch.storage", "UntypedStorage");
    text(b, "0");
    text(b, "cpu");
    OP(b, 'K', 6, 't', 'Q', 'K', 0, 'K', 3, 0x85, 'K', 1, 0x85, 0x89, 'N', 't', 'R', 'u', '.');
}
/* _rebuild_from_type_v2 of itself: no recursion. */
static void p_from_itself(struct bytes *b)
{
    open_dict(b);
    global(b, "torch._tensor", "_rebuild_from_type_v2");
    global(b, "torch._tensor", "_rebuild_from_type_v2");
    OP(b, 'q', 0);
    global(b, "torch", "Tensor");
    OP(b, ')', 0x87, 'R', 'u', '.');
}
static void p_odd_pairs(struct bytes *b)
{
    OP(b, 0x80, 2);
    global(b, "collections", "OrderedDict");
    OP(b, ']', ']', 'N', 'a', 'a', 0x85, 'R', '.');
}
static void p_persistent(struct bytes *b)
{
    open_dict(b);
    text(b, "0");
    OP(b, 'Q', 'u', '.');
}
static void p_missing_storage(struct bytes *b)
{
    open_dict(b);
    OP(b, '(');
    text(b, "storage");
    global(b, "torch", "HalfStorage");
    text(b, "../../../etc/passwd");
    text(b, "cpu");
    OP(b, 'K', 1, 't', 'Q', '.');
}
static void p_negative_sizes(struct bytes *b)
{
    open_dict(b);
    global(b, "torch._utils", "_rebuild_tensor_v2");
    OP(b, '(', '(');
    text(b, "storage");
    global(b, "torch", "FloatStorage");
    text(b, "0");
    text(b, "cpu");
    OP(b, 'K', 6, 't', 'Q', 'K', 0, 'J', 0xff, 0xff, 0xff, 0xff, 0x85, 'K', 1, 0x85, 0x89, 'N', 't', 'R', 'u', '.');
}

static const float values[6] = {0, 1, 2, 3, 4, 5};

/* data.pkl with that program, and storage "0" with six floats. */
static struct bytes make_checkpoint(void (*program)(struct bytes *), enum lie lie)
{
    struct bytes p = {0};
    program(&p);
    const struct member members[] = {
        {"archive/data.pkl", p.data, p.size},
        {"archive/data/0", values, sizeof values},
    };
    struct bytes b = make_zip(members, 2, lie);
    bytes_free(&p);
    return b;
}

static void refuse(const char *what, const char *message, const struct bytes *b)
{
    struct meter m;
    struct geul_context *ctx = meter_context(&m);
    struct geul_source_list list = {0};
    size_t held = m.now;
    CHECK_MSG(geul_pickle_read(ctx, "hostile.bin", b->data, b->size, &list) != GEUL_OK, "%s was read", what);
    geul_source_free(ctx, &list);
    check_failure(ctx, &m, held, what, message);
    geul_context_free(ctx);
}

/* The tensor w is (2, 2), and its first element is `first`, as values[] counts up. */
static void accept(const char *what, const struct bytes *b, float first, float stride)
{
    struct geul_context *ctx = geul_context_new(NULL);
    struct geul_source_list list = {0};
    CHECK_MSG(geul_pickle_read(ctx, "good.bin", b->data, b->size, &list) == GEUL_OK, "%s: %s", what, geul_error(ctx));
    if (CHECK(list.count == 1)) {
        const struct geul_source_tensor *t = &list.items[0];
        float x[4];
        geul_source_read(t, 0, 4, x);
        CHECK(strcmp(t->name, "w") == 0 && t->dtype == GEUL_DTYPE_F32 && t->n_dims == 2 && t->shape[0] == 2);
        CHECK(t->bytes == 16 && x[0] == first && x[1] == first + 1 && x[2] == first + stride);
        CHECK(t->strided == (stride != 2) && x[3] == first + stride + 1);
    }
    geul_source_free(ctx, &list);
    geul_context_free(ctx);
}

TEST(pickle_reads_what_torch_writes)
{
    struct bytes b = make_checkpoint(p_good, HONEST);
    accept("dictionary", &b, 1, 2);
    bytes_free(&b);
    b = make_checkpoint(p_good, ZIP64);
    accept("zip64", &b, 1, 2);
    bytes_free(&b);
    b = make_checkpoint(p_parameter, HONEST);
    accept("OrderedDict with a parameter and attributes", &b, 1, 2);
    bytes_free(&b);
    b = make_checkpoint(p_strided, HONEST);
    accept("strided tensor", &b, 0, 3);
    bytes_free(&b);
}

static const struct {
    const char *what, *message;
    void (*program)(struct bytes *);
} programs[] = {
    {"os.system", "os.system", p_system},
    {"eval, and an escape sequence", "builtins.eval?[2J", p_eval},
    {"a name inside a storage class", "torch.FloatStorage.__init__", p_storage_name},
    {"empty program", "ends too early", p_empty},
    {"INST", "instruction 0x69", p_unknown},
    {"protocol 4", "instruction 0x95", p_framed},
    {"stack underflow", "not there", p_underflow},
    {"tuple underflow", "not there", p_underflow_tuple},
    {"no mark", "no mark", p_no_mark},
    {"call of a mark", "not there", p_reduce_mark},
    {"call of a number", "calls what is not a function", p_call_int},
    {"items without a dictionary", "dictionary that is not there", p_set_nothing},
    {"key without value", "key without a value", p_odd_items},
    {"memo out of range", "out of range", p_memo_far},
    {"memo not set", "not stored", p_memo_unset},
    {"memo of nothing", "out of range", p_memo_empty},
    {"number of 2040 bits", "64 bits", p_long},
    {"string of 4 GB", "ends too early", p_string},
    {"nothing left", "one value", p_nothing_left},
    {"a number as result", "not a dictionary", p_int_result},
    {"no tensors", "holds no tensors", p_no_tensors},
    {"tensor outside its storage", "outside its storage", p_outside},
    {"storage larger than its member", "smaller than the checkpoint says", p_storage_size},
    {"strided tensor that ends outside", "outside its storage", p_strided_outside},
    {"strided tensor far outside", "outside its storage", p_strided_far},
    {"expanded tensor", "more elements than its storage", p_expanded},
    {"strides that overflow", "impossibly large", p_huge_stride},
    {"bytes without a type", "not described", p_untyped},
    {"a rebuilt rebuilder", "what is not a function", p_from_itself},
    {"pairs of one", "an OrderedDict is not made", p_odd_pairs},
    {"persistent id without a tuple", "not described", p_persistent},
    {"storage that escapes", "missing in the archive", p_missing_storage},
    {"negative size", "not a number", p_negative_sizes},
};

TEST(pickle_refuses_hostile_programs)
{
    remove("/tmp/geul-was-here");
    for (size_t i = 0; i < sizeof programs / sizeof *programs; i++) {
        struct bytes b = make_checkpoint(programs[i].program, HONEST);
        refuse(programs[i].what, programs[i].message, &b);
        bytes_free(&b);
    }
    FILE *f = fopen("/tmp/geul-was-here", "r");
    CHECK_MSG(f == NULL, "the pickle ran a command");
    if (f)
        fclose(f);
}

static const struct {
    const char *what, *message;
    enum lie lie;
} archives[] = {
    {"compressed member", "compressed or encrypted", COMPRESSED},
    {"encrypted member", "compressed or encrypted", ENCRYPTED},
    {"packed and real size differ", "compressed or encrypted", PACKED_SIZE},
    {"offset of a member", "not where the directory says", LOCAL_OFFSET},
    {"size of a member", "does not match its entry", MEMBER_SIZE},
    {"name of a member", "does not match its entry", OTHER_NAME},
    {"number of members", "more than the file holds", ENTRY_COUNT},
    {"offset of the directory", "more than the file holds", DIRECTORY_OFFSET},
    {"one name twice", "the same name", NAME_TWICE},
    {"zip64 field too long", "zip64 fields", ZIP64_LIE},
};

TEST(pickle_refuses_lying_archives)
{
    for (size_t i = 0; i < sizeof archives / sizeof *archives; i++) {
        struct bytes b = make_checkpoint(p_good, archives[i].lie);
        refuse(archives[i].what, archives[i].message, &b);
        bytes_free(&b);
    }
}

TEST(pickle_refuses_every_truncation)
{
    struct bytes whole = make_checkpoint(p_good, ZIP64);
    for (size_t n = 0; n < whole.size; n++) {
        struct bytes part = {.data = malloc(n + 1), .size = n};
        memcpy(part.data, whole.data, n);
        refuse("truncated", "hostile.bin", &part);
        free(part.data);
    }
    bytes_free(&whole);
    struct bytes program = {0};
    p_good(&program);
    for (size_t n = 0; n < program.size; n++) {
        const struct member members[] = {{"a/data.pkl", program.data, n}, {"a/data/0", values, sizeof values}};
        struct bytes b = make_zip(members, 2, HONEST);
        refuse("truncated program", "ends", &b);
        bytes_free(&b);
    }
    bytes_free(&program);
}

/* ------------------------------------------------------------------------------- legacy form -- */

#define LEGACY_MAGIC 0x80, 2, 0x8a, 10, 0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19, '.'

/* What is wrong with a file of the older form. */
enum old_lie {
    OLD_HONEST,
    OLD_VERSION,
    OLD_BIG_ENDIAN,
    OLD_SYSTEM,
    OLD_NO_KEYS,
    OLD_OTHER_KEY,
    OLD_KEY_TWICE,
    OLD_COUNT,
    OLD_HUGE,
    OLD_TWO_TYPES,
    OLD_VIEW_OUTSIDE,
    OLD_VIEW,
    OLD_KEYS_TUPLE,
    OLD_CUT
};

/* The description of storage "0" of six floats and its view. */
static void old_storage(struct bytes *b, enum old_lie lie, const char *type)
{
    OP(b, '(');
    text(b, "storage");
    global(b, "torch", type);
    text(b, "0");
    text(b, "cpu");
    if (lie == OLD_HUGE)
        OP(b, 0x8a, 8, 0, 0, 0, 0, 0, 0, 0, 0x40);
    else
        OP(b, 'K', 6);
    if (lie == OLD_VIEW || lie == OLD_VIEW_OUTSIDE) {
        text(b, "v");
        OP(b, 'K', 2, 'K', lie == OLD_VIEW ? 4 : 5, 0x87);
    } else {
        OP(b, 'N');
    }
    OP(b, 't', 'Q');
}

static struct bytes make_old(enum old_lie lie)
{
    struct bytes b = {0};
    OP(&b, LEGACY_MAGIC, 0x80, 2, 'M', 0xe9, lie == OLD_VERSION ? 4 : 3, '.');
    OP(&b, 0x80, 2, '}', '(');
    text(&b, "little_endian");
    OP(&b, lie == OLD_BIG_ENDIAN ? 0x89 : 0x88, 'u', '.');
    OP(&b, 0x80, 2, '}', '(');
    text(&b, "w");
    global(&b, "torch._utils", "_rebuild_tensor_v2");
    OP(&b, '(');
    old_storage(&b, lie, "FloatStorage");
    OP(&b, 'K', lie == OLD_VIEW ? 0 : 1, 'K', 2, 'K', 2, 0x86, 'K', 2, 'K', 1, 0x86, 0x89, 'N', 't', 'R');
    if (lie == OLD_SYSTEM) {
        text(&b, "x");
        global(&b, "posix", "system");
        text(&b, "touch /tmp/geul-was-here");
        OP(&b, 0x85, 'R');
    }
    if (lie == OLD_TWO_TYPES) {
        text(&b, "x");
        old_storage(&b, lie, "HalfStorage");
    }
    OP(&b, 'u', '.');
    OP(&b, 0x80, 2);
    if (lie != OLD_KEYS_TUPLE)
        OP(&b, ']');
    OP(&b, '(');
    for (int i = 0; i < (lie == OLD_NO_KEYS ? 0 : lie == OLD_KEY_TWICE ? 2 : 1); i++)
        text(&b, lie == OLD_OTHER_KEY ? "1" : "0");
    if (lie == OLD_KEYS_TUPLE)
        OP(&b, 't', '.');
    else
        OP(&b, 'e', '.');
    for (int i = 0; i < (lie == OLD_KEY_TWICE ? 2 : 1); i++) {
        bytes_number(&b, lie == OLD_COUNT ? 5 : lie == OLD_HUGE ? UINT64_C(1) << 62 : 6, 8);
        bytes_put(&b, values, sizeof values - (lie == OLD_CUT));
    }
    return b;
}

TEST(pickle_reads_the_older_form)
{
    struct bytes b = make_old(OLD_HONEST);
    accept("older form", &b, 1, 2);
    bytes_free(&b);
    b = make_old(OLD_VIEW);
    accept("a view of a storage", &b, 2, 2);
    bytes_free(&b);
}

TEST(pickle_refuses_lies_of_the_older_form)
{
    static const struct {
        const char *what, *message;
        enum old_lie lie;
    } files[] = {
        {"version", "than 1001", OLD_VERSION},
        {"big-endian", "big-endian", OLD_BIG_ENDIAN},
        {"os.system", "posix.system", OLD_SYSTEM},
        {"no keys", "data of a storage is missing", OLD_NO_KEYS},
        {"another key", "does not fit the tensors", OLD_OTHER_KEY},
        {"a key twice", "does not fit the tensors", OLD_KEY_TWICE},
        {"another number of elements", "another size", OLD_COUNT},
        {"2^62 elements", "another size", OLD_HUGE},
        {"two types", "described in two ways", OLD_TWO_TYPES},
        {"view outside", "outside of it", OLD_VIEW_OUTSIDE},
        {"keys as a tuple", "list of storages is missing", OLD_KEYS_TUPLE},
        {"one byte less", "ends too early", OLD_CUT},
    };
    remove("/tmp/geul-was-here");
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        struct bytes b = make_old(files[i].lie);
        refuse(files[i].what, files[i].message, &b);
        bytes_free(&b);
    }
    FILE *f = fopen("/tmp/geul-was-here", "r");
    CHECK_MSG(f == NULL, "the pickle ran a command");
    if (f)
        fclose(f);
    struct bytes whole = make_old(OLD_HONEST);
    for (size_t n = 0; n < whole.size; n++) {
        struct bytes part = {.data = malloc(n + 1), .size = n};
        memcpy(part.data, whole.data, n);
        refuse("truncated", "hostile.bin", &part);
        free(part.data);
    }
    bytes_free(&whole);
}

TEST(pickle_says_how_to_read_old_and_foreign_files)
{
    struct bytes b = {0};
    OP(&b, LEGACY_MAGIC);
    refuse("before PyTorch 1.6, its first pickle only", "ends too early", &b);
    bytes_free(&b);
    bytes_text(&b, "hello, world");
    refuse("text", "not a PyTorch checkpoint", &b);
    bytes_free(&b);
    b = make_zip(&(const struct member){"readme.txt", "x", 1}, 1, HONEST);
    refuse("another ZIP", "no data.pkl", &b);
    bytes_free(&b);
    struct bytes p = {0};
    p_good(&p);
    const struct member members[] = {
        {"a/data.pkl", p.data, p.size}, {"a/byteorder", "big", 3}, {"a/data/0", values, sizeof values}};
    b = make_zip(members, 3, HONEST);
    refuse("big-endian", "big-endian", &b);
    bytes_free(&b);
    bytes_free(&p);
}

/* test_sets.c: files that belong together, and a writer that is killed at every one of its renames. Whoever reads
 * afterwards gets the older set or the new one, or is told; never files of both, nor a part of either. */
#include "core/gguf.h"
#include "core/os.h"
#include "data/shard.h"
#include "data/shard_set.h"
#include "geul_tools.h"
#include "tests/harness.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum { KILLED = 99, MOST_RENAMES = 40 };

static int renames_left = -1; /* before this process is killed; -1: it is not */

/* The one that the library calls here, as it is linked into this program. */
int rename(const char *from, const char *to)
{
    if (renames_left == 0)
        _exit(KILLED);
    renames_left -= renames_left > 0;
    return renameat(AT_FDCWD, from, AT_FDCWD, to);
}

/* Everything runs in one thread: a team of threads would not survive the fork() below. */

/* The directory of the test, and two versions of what is written. */
struct bed {
    char dir[400], model[2][512], adapter[2][512], rows[2][512];
};

static bool copy_changed(const char *from, const char *to, size_t changed)
{
    size_t size;
    char *bytes = test_slurp(from, &size);
    for (size_t i = 0; bytes && i < changed && i < size / 2; i++)
        bytes[size - 1 - i * 4 - 1] ^= 1; /* of the last floats: still finite */
    bool ok = CHECK(bytes && test_spill(to, bytes, size));
    free(bytes);
    return ok;
}

static bool bed_open(struct bed *b, struct geul_context *ctx)
{
    static const char *const rows[] = {"{\"text\": \"안녕하세요. 반갑습니다. 오늘은 날씨가 좋습니다.\"}\n",
                                       "{\"text\": \"한국의 수도는 서울이고 부산은 항구이다. 강은 한강이다.\"}\n"};
    const struct geul_convert_options f32 = {.size = sizeof f32, .type = GEUL_TYPE_F32, .n_threads = 1};
    snprintf(b->dir, sizeof b->dir, "%s", test_scratch("bed"));
    bool ok = mkdir(b->dir, 0700) == 0;
    for (int v = 0; v < 2; v++) {
        snprintf(b->model[v], sizeof b->model[v], "%s/m%d.gguf", b->dir, v);
        snprintf(b->adapter[v], sizeof b->adapter[v], "%s/a%d.gguf", b->dir, v);
        snprintf(b->rows[v], sizeof b->rows[v], "%s/r%d.jsonl", b->dir, v);
        ok = ok && CHECK(test_spill(b->rows[v], rows[v], strlen(rows[v])));
    }
    ok = ok && geul_convert_hf(ctx, test_path("golden/full"), b->model[0], &f32) == GEUL_OK &&
         copy_changed(b->model[0], b->model[1], 15000);
    const struct geul_peft_options peft = {.size = sizeof peft, .base = b->model[0]};
    ok = ok && geul_convert_peft(ctx, test_path("golden/peft_plain"), b->adapter[0], &peft) == GEUL_OK &&
         copy_changed(b->adapter[0], b->adapter[1], 100);
    CHECK_MSG(ok, "%s", geul_error(ctx));
    return ok;
}

/* ------------------------------------------------------------------------------------- kinds -- */

/* Writes version v of a set to `to`; reads the set into a file or bytes that tell the versions apart. */
struct kind {
    const char *name, *to;
    enum geul_status (*write)(struct geul_context *ctx, const struct bed *b, int v, const char *to);
    enum geul_status (*read)(struct geul_context *ctx, const struct bed *b, const char *from, const char *out);
};

static enum geul_status write_hf(struct geul_context *ctx, const struct bed *b, int v, const char *to)
{
    const struct geul_export_options o = {
        .size = sizeof o, .max_shard_bytes = 200000, .dtype = v ? GEUL_EXPORT_F16 : GEUL_EXPORT_F32, .n_threads = 1};
    return geul_export_hf(ctx, b->model[v], to, &o);
}

static enum geul_status write_hf_whole(struct geul_context *ctx, const struct bed *b, int v, const char *to)
{
    const struct geul_export_options o = {.size = sizeof o, .n_threads = 1};
    return geul_export_hf(ctx, b->model[v], to, &o);
}

static enum geul_status read_hf(struct geul_context *ctx, const struct bed *b, const char *from, const char *out)
{
    const struct geul_convert_options f32 = {.size = sizeof f32, .type = GEUL_TYPE_F32, .n_threads = 1};
    (void)b;
    return geul_convert_hf(ctx, from, out, &f32);
}

static enum geul_status write_peft(struct geul_context *ctx, const struct bed *b, int v, const char *to)
{
    const struct geul_peft_options o = {.size = sizeof o, .base = b->model[0]};
    return geul_export_peft(ctx, b->adapter[v], to, &o);
}

static enum geul_status read_peft(struct geul_context *ctx, const struct bed *b, const char *from, const char *out)
{
    const struct geul_peft_options o = {.size = sizeof o, .base = b->model[0]};
    return geul_convert_peft(ctx, from, out, &o);
}

static enum geul_status quantize(struct geul_context *ctx, const char *from, const char *to, int64_t split)
{
    const struct geul_quantize_options o = {
        .size = sizeof o, .keep_types = true, .split_tensors = split, .n_threads = 1};
    struct geul_quantize *q = geul_quantize_new(ctx, from, &o);
    enum geul_status status = q ? geul_quantize_write(q, to) : geul_error_status(ctx);
    geul_quantize_free(q);
    return status;
}

static enum geul_status write_split(struct geul_context *ctx, const struct bed *b, int v, const char *to)
{
    return quantize(ctx, b->model[v], to, 13);
}

static enum geul_status read_split(struct geul_context *ctx, const struct bed *b, const char *from, const char *out)
{
    char first[600];
    (void)b;
    snprintf(first, sizeof first, "%.*s-00001-of-00003.gguf", (int)strlen(from) - 5, from);
    return quantize(ctx, first, out, 0);
}

static enum geul_status write_shards(struct geul_context *ctx, const struct bed *b, int v, const char *to)
{
    const struct geul_shards_options o = {.size = sizeof o, .shard_tokens = 8};
    struct geul_shards_report r = {.size = sizeof r};
    struct geul_tokenizer *tok = geul_tokenizer_load(ctx, test_mini_model(), geul_regex_pcre2());
    const char *paths[] = {b->rows[v]};
    enum geul_status status = tok ? geul_shards_write(ctx, tok, paths, 1, to, &o, &r) : geul_error_status(ctx);
    geul_tokenizer_free(tok);
    return status;
}

/* All shards that are there, as a user's shell names them. */
static enum geul_status read_shards(struct geul_context *ctx, const struct bed *b, const char *from, const char *out)
{
    int32_t ids[256];
    size_t n = 0;
    (void)b;
    for (int i = 0; i < 20; i++) {
        char name[600];
        snprintf(name, sizeof name, "%s-%05d.geulshard", from, i);
        if (!geul_os_exists(name))
            continue;
        struct geul_shard *s = geul_shard_open(ctx, name);
        if (!s)
            return geul_error_status(ctx);
        geul_shard_read(s, 0, (size_t)geul_shard_count(s), ids + n);
        n += (size_t)geul_shard_count(s);
        geul_shard_close(s);
    }
    if (n == 0)
        return geul_fail(ctx, GEUL_ERROR_IO, "%s has no shards", from);
    return test_spill(out, ids, n * sizeof *ids) ? GEUL_OK : GEUL_ERROR_IO;
}

static const struct kind kinds[] = {
    {"export in shards", "hf", write_hf, read_hf},           {"export", "hf-whole", write_hf_whole, read_hf},
    {"export of an adapter", "peft", write_peft, read_peft}, {"split model", "split.gguf", write_split, read_split},
    {"token shards", "corpus", write_shards, read_shards},
};

/* ------------------------------------------------------------------------------------- tests -- */

static bool same_bytes(const char *a, const char *b)
{
    size_t n[2];
    char *x = test_slurp(a, &n[0]), *y = test_slurp(b, &n[1]);
    bool same = x && y && n[0] == n[1] && memcmp(x, y, n[0]) == 0;
    free(x);
    free(y);
    return same;
}

/* Runs a writer of version v in a process that is killed before rename number `renames`. Returns its exit code. */
static int write_killed(const struct kind *k, const struct bed *b, int v, const char *to, int renames)
{
    int status = 0;
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0) {
        struct geul_context *ctx = geul_context_new(NULL);
        renames_left = renames;
        _exit(k->write(ctx, b, v, to) == GEUL_OK ? 0 : 1);
    }
    CHECK(pid > 0 && waitpid(pid, &status, 0) == pid && WIFEXITED(status));
    return WEXITSTATUS(status);
}

/* Names in the directory of the bed, and in `below` when that is one, with a temporary file's mark. */
static int count_temporary(const char *dir)
{
    int n = 0;
    DIR *d = opendir(dir);
    for (struct dirent *e; d && (e = readdir(d));)
        n += strstr(e->d_name, ".tmp") != NULL;
    if (d)
        closedir(d);
    return n;
}

/* fresh: there is no older set. */
static void kill_everywhere(const struct kind *k, const struct bed *b, bool fresh)
{
    char to[700], wanted[2][512], got[512];
    int code = KILLED, outcomes[3] = {0, 0, 0};
    struct geul_context *ctx = geul_context_new(NULL);
    snprintf(got, sizeof got, "%s/got", b->dir);
    for (int v = 0; v < 2; v++) { /* what each version reads as; the name of a directory is in what is made from it */
        snprintf(to, sizeof to, "%s/%d-%d-v%d", b->dir, (int)(k - kinds), fresh, v);
        mkdir(to, 0700);
        snprintf(to + strlen(to), sizeof to - strlen(to), "/%s", k->to);
        snprintf(wanted[v], sizeof wanted[v], "%s/wanted%d", b->dir, v);
        CHECK_MSG(k->write(ctx, b, v, to) == GEUL_OK && k->read(ctx, b, to, wanted[v]) == GEUL_OK, "%s: %s", k->name,
                  geul_error(ctx));
    }
    CHECK_MSG(!same_bytes(wanted[0], wanted[1]), "%s: the versions are alike", k->name);
    for (int n = 0; code == KILLED && n < MOST_RENAMES; n++) {
        char dir[512];
        snprintf(dir, sizeof dir, "%s/%d-%d-%d", b->dir, (int)(k - kinds), fresh, n);
        CHECK(mkdir(dir, 0700) == 0);
        snprintf(to, sizeof to, "%s/%s", dir, k->to);
        if (!fresh)
            CHECK(k->write(ctx, b, 0, to) == GEUL_OK);
        code = write_killed(k, b, 1, to, n);
        geul_error_clear(ctx);
        int outcome = k->read(ctx, b, to, got) != GEUL_OK ? 2 : same_bytes(got, wanted[0]) ? 0 : 1;
        outcomes[outcome]++;
        CHECK_MSG(outcome != 0 || !fresh, "%s, killed at rename %d: an older set where there was none", k->name, n);
        CHECK_MSG(outcome != 1 || same_bytes(got, wanted[1]), "%s, killed at rename %d: neither version", k->name, n);
        CHECK_MSG(outcome != 2 || strstr(geul_error(ctx), dir), "%s, killed at rename %d: %s", k->name, n,
                  geul_error(ctx));
        CHECK_MSG(code == KILLED || (code == 0 && outcome == 1), "%s: exit code %d, outcome %d", k->name, code,
                  outcome);
        CHECK_MSG(write_killed(k, b, 1, to, -1) == 0, "%s, killed at rename %d: cannot be repeated", k->name, n);
        CHECK_INT(count_temporary(dir) + count_temporary(to), 0); /* the dead run's are gone */
    }
    CHECK_MSG(code == 0 && outcomes[1] >= 1 && outcomes[0] + outcomes[2] >= 1, "%s: %d older, %d new, %d refused",
              k->name, outcomes[0], outcomes[1], outcomes[2]);
    printf("%s%s: %d older, %d new, %d refused\n", k->name, fresh ? ", fresh" : "", outcomes[0], outcomes[1],
           outcomes[2]);
    geul_context_free(ctx);
}

static void kill_all(bool fresh)
{
    struct bed b;
    struct geul_context *ctx = geul_context_new(NULL);
    REQUIRE(ctx && bed_open(&b, ctx));
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        kill_everywhere(&kinds[i], &b, fresh);
    geul_context_free(ctx);
}

TEST(sets_killed_while_they_replace_older_ones)
{
    kill_all(false);
}

TEST(sets_killed_while_they_are_new)
{
    kill_all(true);
}

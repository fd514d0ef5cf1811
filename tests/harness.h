/* harness.h: the tests' frame. A file of tests is a list of
 *
 *     TEST(plan_reuses_memory) { CHECK(x == y); }
 *
 * Each test runs in a separate process, so a crash fails one test only. Run `geul-tests [-v] [PART OF A NAME]...`.
 */
#ifndef GEUL_TESTS_HARNESS_H
#define GEUL_TESTS_HARNESS_H

#include <math.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct geul_context;

struct test {
    const char *name, *file;
    void (*run)(void);
    struct test *next;
};
void test_register(struct test *t);

#define TEST(id)                                                                                                       \
    static void case_##id(void);                                                                                       \
    __attribute__((constructor)) static void register_##id(void)                                                       \
    {                                                                                                                  \
        static struct test t = {#id, __FILE__, case_##id, NULL};                                                       \
        test_register(&t);                                                                                             \
    }                                                                                                                  \
    static void case_##id(void)

/* Each failing check is printed with its place; the test continues. CHECK returns the condition. */
bool test_check(bool ok, const char *file, int line, const char *format, ...) __attribute__((format(printf, 4, 5)));
#define CHECK(cond)          test_check((cond), __FILE__, __LINE__, "%s", #cond)
#define CHECK_MSG(cond, ...) test_check((cond), __FILE__, __LINE__, __VA_ARGS__)
#define CHECK_INT(a, b)                                                                                                \
    test_check((long long)(a) == (long long)(b), __FILE__, __LINE__, "%s = %lld, expected %lld", #a, (long long)(a),   \
               (long long)(b))
#define CHECK_STR(a, b) test_check_str((a), (b), __FILE__, __LINE__, #a)
bool test_check_str(const char *a, const char *b, const char *file, int line, const char *what);
/* Stops the test when the condition is false (a later line would crash). */
#define REQUIRE(cond)                                                                                                  \
    do {                                                                                                               \
        if (!test_check((cond), __FILE__, __LINE__, "%s", #cond))                                                      \
            return;                                                                                                    \
    } while (0)
/* Counts the test as skipped, with the reason; return afterwards. */
void test_skip(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* Whether this build carries the address or thread sanitizer: memory and time figures mean little then. */
bool test_sanitized(void);

/* Repeatable random numbers; the seed is printed with a failing test. */
uint64_t test_random(uint64_t *state);
double test_uniform(uint64_t *state, double low, double high);
float test_normal(uint64_t *state);

/* Path of a file below tests/ ("golden/full"), and of a fresh scratch file or directory, removed after the test.
 * Static storage, four of them in turn. */
const char *test_path(const char *relative);
const char *test_scratch(const char *name);

/* A path with its own storage, for a test that needs more than four at a time. */
struct test_kept {
    char text[1024];
};
struct test_kept test_keep(const char *path);
/* The small model that comes with geul; storage as test_path()'s. */
const char *test_mini_model(void);

/* A small NumPy file of float32 or int32; data is malloc()ed. false (and a failed check) when unreadable. */
struct test_npy {
    int n_dims;
    int64_t shape[4];
    int64_t count;
    float *f32; /* one of the two */
    int32_t *i32;
};
bool test_npy_read(const char *path, struct test_npy *out);
void test_npy_free(struct test_npy *npy);
/* The largest |a[i] - b[i]| of n values; NaN when one of them is. */
double test_difference(const float *a, const float *b, int64_t n);

/* Runs the geul command that was built with the tests (argv without "geul", NULL-terminated), feeds it input. */
struct test_run {
    int status;      /* exit code, 128 + signal when killed */
    char *out, *err; /* NUL-terminated, malloc()ed */
    size_t out_length, err_length;
    long peak_rss_kb;
};
struct test_run test_geul(const char *const *argv, const char *input, size_t input_length);
void test_run_free(struct test_run *r);
#define GEUL(...) test_geul((const char *const[]){__VA_ARGS__, NULL}, NULL, 0)

/* A whole file; malloc()ed, NUL appended; NULL (and a failed check) when unreadable. */
char *test_slurp(const char *path, size_t *size);
bool test_spill(const char *path, const void *data, size_t size);

/* An allocator that fails on call number fail_at (0: never) and counts what is outstanding; thread-safe. */
struct test_allocator {
    long calls, fail_at, outstanding;
};
void *test_allocate(void *user, void *ptr, size_t old_size, size_t size);

/* Runs a piece of a test once for each of its allocations, which then fails:
 *
 *     struct test_shortage s = {.most = 2000};
 *     while (test_shortage_next(&s)) {
 *         struct geul_gguf *g = geul_gguf_open(s.ctx, path);
 *         s.ok = g != NULL;
 *         geul_gguf_close(g);
 *     }
 *
 * In run n it is allocation n of ctx, which is new. A run that is not ok must have left GEUL_ERROR_MEMORY, and no run
 * may leave memory behind. The last run is one that is ok and came to no allocation that fails; when there is none
 * among `most` runs, a check fails. The piece may raise n to pass over allocations. */
struct test_shortage {
    long most, n;
    bool ok;
    struct geul_context *ctx;
    struct test_allocator allocator;
};
bool test_shortage_next(struct test_shortage *s);

#endif

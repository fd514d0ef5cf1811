/* harness.c: runs the tests, each in a separate process (see harness.h).
 *
 *     geul-tests [-v] [-l] [PART OF A NAME]...      -v shows the output of tests that pass, -l only lists names
 *
 * GEUL_TEST_SECONDS changes the time limit of each test, GEUL_TEST_ROOT the folder that has tests/ and share/. The last
 * line is "N passed, N failed, N skipped"; the exit code is 1 when one failed.
 */
#include "tests/harness.h"

#include "core/random.h"
#include "geul_tensor.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#if defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define SANITIZED 1
#endif
#endif
#if defined(__SANITIZE_ADDRESS__)
#define SANITIZED 1
#endif
#ifndef SANITIZED
#define SANITIZED 0
#endif

enum { SECONDS = 120, SECONDS_SANITIZED = 480, SHOWN_OUTPUT = 20000 };

/* What a test's process reports to its parent, in shared memory. */
struct outcome {
    long checks, failures;
    bool skipped, seeded;
    uint64_t seed;
    char reason[256];
};

static struct test *first_test, **next_test = &first_test;
static struct outcome *outcome;
static char scratch_dir[256];

/* ------------------------------------------------------------------------------------ checks -- */

/* Called before main() by every TEST; keeps the order of the files. */
void test_register(struct test *t)
{
    *next_test = t;
    next_test = &t->next;
}

/* Counts a check; a failed one is printed. Returns ok. */
bool test_check(bool ok, const char *file, int line, const char *format, ...)
{
    __atomic_add_fetch(&outcome->checks, 1, __ATOMIC_RELAXED);
    if (ok)
        return true;
    __atomic_add_fetch(&outcome->failures, 1, __ATOMIC_RELAXED);
    va_list args;
    va_start(args, format);
    printf("%s:%d: ", file, line);
    vprintf(format, args);
    printf("\n");
    fflush(stdout);
    va_end(args);
    return false;
}

/* Whether two strings are equal; NULL equals only NULL. */
bool test_check_str(const char *a, const char *b, const char *file, int line, const char *what)
{
    bool same = a && b ? strcmp(a, b) == 0 : a == b;
    return test_check(same, file, line, "%s is \"%s\", expected \"%s\"", what, a ? a : "(null)", b ? b : "(null)");
}

/* Marks the test as skipped. */
void test_skip(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    outcome->skipped = true;
    vsnprintf(outcome->reason, sizeof outcome->reason, format, args);
    va_end(args);
}

/* Whether this build carries the address or the thread sanitizer, which change memory and time figures. */
bool test_sanitized(void)
{
    return SANITIZED;
}

/* 64 random bits (splitmix64); the first state that a test uses is remembered as its seed. */
uint64_t test_random(uint64_t *state)
{
    if (!outcome->seeded) {
        outcome->seeded = true;
        outcome->seed = *state;
    }
    return geul_random_mix(*state += GEUL_RANDOM_STEP);
}

/* Uniform in [low, high). */
double test_uniform(uint64_t *state, double low, double high)
{
    return low + (high - low) * geul_random_real(test_random(state));
}

/* Normal with mean 0 and deviation 1 (Box and Muller). */
float test_normal(uint64_t *state)
{
    double radius = sqrt(-2.0 * log(1.0 - test_uniform(state, 0.0, 1.0)));
    return (float)(radius * cos(6.283185307179586 * test_uniform(state, 0.0, 1.0)));
}

/* ------------------------------------------------------------------------------------- files -- */

/* One of four static buffers in turn. */
static char *path_buffer(void)
{
    static char paths[4][1024];
    static int turn;
    turn = (turn + 1) % 4;
    return paths[turn];
}

/* Where tests/ and share/ are: in the sources, or where a copy of the test program lies on another machine. */
static const char *root_folder(void)
{
    const char *root = getenv("GEUL_TEST_ROOT");
    return root && root[0] ? root : GEUL_SOURCE_DIR;
}

const char *test_path(const char *relative)
{
    char *path = path_buffer();
    snprintf(path, sizeof(char[1024]), "%s/tests/%s", root_folder(), relative);
    return path;
}

/* A path in this test's scratch directory. A name that ends with "/" is made as a directory. */
const char *test_scratch(const char *name)
{
    char *path = path_buffer();
    int n = snprintf(path, sizeof(char[1024]), "%s/%s", scratch_dir, name);
    if (n > 0 && path[n - 1] == '/') {
        path[n - 1] = '\0';
        CHECK_MSG(mkdir(path, 0700) == 0 || errno == EEXIST, "cannot make %s: %s", path, strerror(errno));
    }
    return path;
}

struct test_kept test_keep(const char *path)
{
    struct test_kept kept;
    snprintf(kept.text, sizeof kept.text, "%s", path);
    return kept;
}

const char *test_mini_model(void)
{
    return test_path("../share/geul-mini.gguf");
}

char *test_slurp(const char *path, size_t *size)
{
    struct stat st;
    FILE *f = fopen(path, "rb");
    if (!f || fstat(fileno(f), &st) != 0 || !S_ISREG(st.st_mode)) {
        CHECK_MSG(false, "cannot read %s: %s", path, f ? "not a file" : strerror(errno));
        if (f)
            fclose(f);
        return NULL;
    }
    size_t n = (size_t)st.st_size;
    char *data = malloc(n + 1);
    bool ok = data && fread(data, 1, n, f) == n;
    fclose(f);
    if (!CHECK_MSG(ok, "cannot read all of %s", path)) {
        free(data);
        return NULL;
    }
    data[n] = '\0';
    if (size)
        *size = n;
    return data;
}

bool test_spill(const char *path, const void *data, size_t size)
{
    FILE *f = fopen(path, "wb");
    bool ok = f && (size == 0 || fwrite(data, 1, size, f) == size);
    if (f && fclose(f) != 0)
        ok = false;
    return CHECK_MSG(ok, "cannot write %s: %s", path, strerror(errno));
}

/* Reads "'shape': (2, 3), " from a NumPy header into npy. false when it is not understood. */
static bool npy_shape(const char *header, struct test_npy *npy)
{
    const char *p = strstr(header, "'shape': (");
    if (!p)
        return false;
    p += strlen("'shape': (");
    npy->count = 1;
    while (*p != ')') {
        char *end;
        long long n = strtoll(p, &end, 10);
        if (end == p || n < 0 || npy->n_dims == 4 || n > (1 << 30) || npy->count > (1 << 30))
            return false;
        npy->shape[npy->n_dims++] = n;
        npy->count *= n;
        p = end + strspn(end, ", ");
    }
    return true;
}

bool test_npy_read(const char *path, struct test_npy *out)
{
    memset(out, 0, sizeof *out);
    size_t size;
    char *file = test_slurp(path, &size);
    if (!file)
        return false;
    const unsigned char *b = (const unsigned char *)file;
    bool ok = size > 12 && memcmp(file, "\x93NUMPY", 6) == 0 && (b[6] == 1 || b[6] == 2);
    size_t start = ok && b[6] == 1 ? 10 : 12;
    size_t length = ok ? (size_t)b[8] + ((size_t)b[9] << 8) : 0;
    ok = ok && length <= size - start;
    char *header = ok ? strndup(file + start, length) : NULL;
    bool is_f32 = header && strstr(header, "'<f4'"), is_i32 = header && strstr(header, "'<i4'");
    ok = header && (is_f32 || is_i32) && strstr(header, "'fortran_order': False") && npy_shape(header, out) &&
         (size_t)out->count * 4 == size - start - length;
    free(header);
    if (CHECK_MSG(ok, "%s is not a NumPy file of float32 or int32", path)) {
        void *data = malloc((size_t)out->count * 4 + 1);
        memcpy(data, file + start + length, (size_t)out->count * 4);
        out->f32 = is_f32 ? data : NULL;
        out->i32 = is_i32 ? data : NULL;
    }
    free(file);
    return ok;
}

void test_npy_free(struct test_npy *npy)
{
    free(npy->f32);
    free(npy->i32);
    memset(npy, 0, sizeof *npy);
}

double test_difference(const float *a, const float *b, int64_t n)
{
    double worst = 0;
    for (int64_t i = 0; i < n && !isnan(worst); i++) {
        double d = fabs((double)a[i] - (double)b[i]);
        worst = d <= worst ? worst : d;
    }
    return worst;
}

/* ------------------------------------------------------------------------------- the command -- */

/* Bytes collected from a pipe. */
struct gathered {
    int fd;
    char *data;
    size_t length, capacity;
};

/* Takes what the pipe has; closes it and sets fd to -1 at its end. */
static void gather(struct gathered *g)
{
    if (g->capacity - g->length < 4097) {
        g->capacity = g->capacity * 2 + 65536;
        g->data = realloc(g->data, g->capacity);
    }
    ssize_t n = read(g->fd, g->data + g->length, g->capacity - g->length - 1);
    if (n > 0) {
        g->length += (size_t)n;
    } else if (n == 0 || errno != EINTR) {
        close(g->fd);
        g->fd = -1;
    }
    g->data[g->length] = '\0';
}

/* Gives the child its input and collects its output until both output pipes are closed. */
static void converse(int to, const char *input, size_t length, struct gathered *out, struct gathered *err)
{
    size_t sent = 0;
    while (out->fd >= 0 || err->fd >= 0) {
        if (to >= 0 && sent == length) {
            close(to);
            to = -1;
        }
        struct pollfd fds[3] = {
            {.fd = out->fd, .events = POLLIN}, {.fd = err->fd, .events = POLLIN}, {.fd = to, .events = POLLOUT}};
        if (poll(fds, 3, -1) < 0 && errno != EINTR)
            break;
        if (fds[0].revents)
            gather(out);
        if (fds[1].revents)
            gather(err);
        if (fds[2].revents) {
            size_t rest = length - sent;
            ssize_t n = write(to, input + sent, rest < 4096 ? rest : 4096);
            sent = n >= 0 ? sent + (size_t)n : length;
        }
    }
    if (to >= 0)
        close(to);
}

/* In the child: connects the three streams and becomes the command. */
static void become_geul(const char *const *argv, const int in[2], const int out[2], const int err[2])
{
    char *words[64] = {(char *)(uintptr_t) "geul"};
    for (int i = 0; argv[i] && i < 62; i++)
        words[i + 1] = (char *)(uintptr_t)argv[i];
    dup2(in[0], STDIN_FILENO);
    dup2(out[1], STDOUT_FILENO);
    dup2(err[1], STDERR_FILENO);
    const int all[6] = {in[0], in[1], out[0], out[1], err[0], err[1]};
    for (int i = 0; i < 6; i++)
        if (all[i] > STDERR_FILENO)
            close(all[i]);
    setenv("GEUL_DEVICE", "none", 0); /* no result depends on the cards of this machine unless a test names them */
    execv(GEUL_BINARY, words);
    fprintf(stderr, "cannot run %s: %s\n", GEUL_BINARY, strerror(errno));
    _exit(127);
}

/* Without input the command's stdin is /dev/null. peak_rss_kb is never less than this process had when it started the
 * command (Linux counts the memory before exec too). A sanitizer report of the command is a failed check. */
struct test_run test_geul(const char *const *argv, const char *input, size_t input_length)
{
    struct test_run r = {.status = -1};
    int in[2] = {-1, -1}, out[2], err[2];
    if (!CHECK(pipe(out) == 0) || !CHECK(pipe(err) == 0) || (input && !CHECK(pipe(in) == 0)))
        return r;
    if (!input)
        in[0] = open("/dev/null", O_RDONLY);
    fflush(NULL);
    signal(SIGPIPE, SIG_IGN);
    pid_t pid = fork();
    if (pid == 0)
        become_geul(argv, in, out, err);
    close(in[0]);
    close(out[1]);
    close(err[1]);
    struct gathered gathered_out = {.fd = out[0]}, gathered_err = {.fd = err[0]};
    converse(in[1], input, input_length, &gathered_out, &gathered_err);
    int status = 0;
    struct rusage usage = {0};
    while (pid > 0 && wait4(pid, &status, 0, &usage) < 0 && errno == EINTR)
        ;
    r.status = WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
    r.out = gathered_out.data;
    r.out_length = gathered_out.length;
    r.err = gathered_err.data;
    r.err_length = gathered_err.length;
    r.peak_rss_kb = usage.ru_maxrss;
    CHECK_MSG(pid > 0 && r.status != 127, "geul %s: did not start: %s", argv[0] ? argv[0] : "", r.err ? r.err : "");
    if (r.err)
        CHECK_MSG(!strstr(r.err, "Sanitizer") && !strstr(r.err, "runtime error:"), "geul %s: %s",
                  argv[0] ? argv[0] : "", r.err);
    return r;
}

void test_run_free(struct test_run *r)
{
    free(r->out);
    free(r->err);
    memset(r, 0, sizeof *r);
}

/* Lua's allocator contract over malloc(); see struct test_allocator. */
void *test_allocate(void *user, void *ptr, size_t old_size, size_t size)
{
    struct test_allocator *a = user;
    (void)old_size;
    if (size == 0) {
        if (ptr)
            __atomic_sub_fetch(&a->outstanding, 1, __ATOMIC_RELAXED);
        free(ptr);
        return NULL;
    }
    if (__atomic_add_fetch(&a->calls, 1, __ATOMIC_RELAXED) == a->fail_at)
        return NULL;
    void *p = realloc(ptr, size);
    if (p && !ptr)
        __atomic_add_fetch(&a->outstanding, 1, __ATOMIC_RELAXED);
    return p;
}

/* Judges the run that has ended and frees its context; whether it was the last. */
static bool shortage_is_over(struct test_shortage *s)
{
    const struct test_allocator *a = &s->allocator;
    CHECK_MSG(s->ok || geul_error_status(s->ctx) == GEUL_ERROR_MEMORY, "allocation %ld: %s", a->fail_at,
              geul_error(s->ctx));
    geul_context_free(s->ctx);
    s->ctx = NULL;
    CHECK_MSG(a->outstanding == 0, "allocation %ld: %ld pieces are left", a->fail_at, a->outstanding);
    return s->ok && a->calls < a->fail_at;
}

bool test_shortage_next(struct test_shortage *s)
{
    if (s->ctx && shortage_is_over(s))
        return false;
    while (!s->ctx) {
        if (!CHECK_MSG(s->n < s->most, "allocation %ld: still not enough memory", s->n))
            return false;
        s->ok = false;
        s->allocator = (struct test_allocator){.fail_at = ++s->n};
        struct geul_context_options o = {.allocate = test_allocate, .allocate_user = &s->allocator};
        s->ctx = geul_context_new(&o);
        CHECK_MSG(s->ctx || s->allocator.outstanding == 0, "allocation %ld: pieces of a context are left", s->n);
    }
    return true;
}

/* -------------------------------------------------------------------------------- the runner -- */

/* Removes path and everything below it. */
static void remove_tree(const char *path)
{
    DIR *dir = opendir(path);
    if (!dir) {
        unlink(path);
        return;
    }
    for (struct dirent *e; (e = readdir(dir));) {
        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0)
            continue;
        char child[1024];
        snprintf(child, sizeof child, "%s/%s", path, e->d_name);
        struct stat st;
        if (lstat(child, &st) == 0 && S_ISDIR(st.st_mode))
            remove_tree(child);
        else
            unlink(child);
    }
    closedir(dir);
    rmdir(path);
}

/* Seconds from an arbitrary start. */
static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* The time limit of a test in seconds. */
static unsigned time_limit(void)
{
    const char *given = getenv("GEUL_TEST_SECONDS");
    if (given && atoi(given) > 0)
        return (unsigned)atoi(given);
    return SANITIZED ? SECONDS_SANITIZED : SECONDS;
}

/* The child's side: output into log, a time limit, the test; leaves through exit() so that leaks are looked for. */
static void run_child(const struct test *t, FILE *log)
{
    setpgid(0, 0);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    dup2(fileno(log), STDOUT_FILENO);
    dup2(fileno(log), STDERR_FILENO);
    if (!freopen("/dev/null", "r", stdin))
        _exit(126);
    alarm(time_limit());
    t->run();
    fflush(NULL);
    exit(0);
}

/* Copies what the test printed to stdout, the last part of it when it is long. */
static void show_output(FILE *log)
{
    fseek(log, 0, SEEK_END);
    long size = ftell(log), start = size > SHOWN_OUTPUT ? size - SHOWN_OUTPUT : 0;
    fseek(log, start, SEEK_SET);
    if (start)
        printf("      ... %ld bytes left out ...\n", start);
    char line[4096];
    while (fgets(line, sizeof line, log))
        printf("      %s%s", line, strchr(line, '\n') ? "" : "\n");
}

/* Why a finished test failed, NULL when it passed. text is room for the answer. */
static const char *why_failed(int status, char *text, size_t size)
{
    if (WIFSIGNALED(status) && WTERMSIG(status) == SIGALRM)
        snprintf(text, size, "took more than %u s", time_limit());
    else if (WIFSIGNALED(status))
        snprintf(text, size, "killed by signal %d (%s)", WTERMSIG(status), strsignal(WTERMSIG(status)));
    else if (WEXITSTATUS(status) != 0)
        snprintf(text, size, "exit code %d", WEXITSTATUS(status));
    else if (outcome->failures)
        snprintf(text, size, "%ld of %ld checks", outcome->failures, outcome->checks);
    else if (!outcome->checks && !outcome->skipped)
        snprintf(text, size, "checked nothing");
    else
        return NULL;
    return text;
}

/* Makes a scratch directory for the next test. false when that is impossible. */
static bool make_scratch(void)
{
    const char *tmp = getenv("TMPDIR");
    snprintf(scratch_dir, sizeof scratch_dir, "%s/geul-tests-XXXXXX", tmp && *tmp ? tmp : "/tmp");
    return mkdtemp(scratch_dir) != NULL;
}

enum { PASSED, FAILED, SKIPPED };

/* Runs one test and reports it. Returns PASSED, FAILED or SKIPPED; the reason of a skip is in outcome. */
static int run_test(const struct test *t, bool verbose)
{
    FILE *log = tmpfile();
    if (!log || !make_scratch()) {
        printf("FAIL  %s: cannot make temporary files: %s\n", t->name, strerror(errno));
        if (log)
            fclose(log);
        return FAILED;
    }
    memset(outcome, 0, sizeof *outcome);
    fflush(NULL);
    double start = now();
    pid_t pid = fork();
    if (pid == 0)
        run_child(t, log);
    int status = 0;
    while (pid > 0 && waitpid(pid, &status, 0) < 0 && errno == EINTR)
        ;
    if (pid > 0)
        kill(-pid, SIGKILL); /* what the test left running */
    char text[128];
    const char *why = pid > 0 ? why_failed(status, text, sizeof text) : "cannot fork";
    int result = why ? FAILED : outcome->skipped ? SKIPPED : PASSED;
    static const char *const words[] = {"ok  ", "FAIL", "skip"};
    size_t root = strlen(GEUL_SOURCE_DIR);
    const char *file = strncmp(t->file, GEUL_SOURCE_DIR "/", root + 1) == 0 ? t->file + root + 1 : t->file;
    printf("%s  %-48s %7.0f ms  %s\n", words[result], t->name, 1e3 * (now() - start), file);
    if (why)
        printf("      %s\n", why);
    if (why && outcome->seeded)
        printf("      seed %#llx\n", (unsigned long long)outcome->seed);
    if (why || verbose)
        show_output(log);
    fflush(stdout);
    fclose(log);
    remove_tree(scratch_dir);
    return result;
}

/* Whether name holds one of the parts; with no parts every name does. */
static bool wanted(const char *name, char *const *parts, int n_parts)
{
    for (int i = 0; i < n_parts; i++)
        if (strstr(name, parts[i]))
            return true;
    return n_parts == 0;
}

/* A skipped test, for the list at the end. */
struct skip {
    const char *name;
    char reason[256];
};

int main(int argc, char **argv)
{
    bool verbose = false, list = false;
    int i = 1;
    for (; i < argc && argv[i][0] == '-'; i++) {
        verbose = verbose || strcmp(argv[i], "-v") == 0;
        list = list || strcmp(argv[i], "-l") == 0;
        if (strcmp(argv[i], "-v") != 0 && strcmp(argv[i], "-l") != 0) {
            fprintf(stderr, "usage: %s [-v] [-l] [PART OF A NAME]...\n", argv[0]);
            return 2;
        }
    }
    outcome = mmap(NULL, sizeof *outcome, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (outcome == MAP_FAILED)
        return 2;
    int counts[3] = {0};
    struct skip *skips = NULL;
    for (const struct test *t = first_test; t; t = t->next) {
        if (!wanted(t->name, argv + i, argc - i))
            continue;
        if (list) {
            printf("%s\n", t->name);
            continue;
        }
        int result = run_test(t, verbose);
        counts[result]++;
        if (result != SKIPPED)
            continue;
        skips = realloc(skips, (size_t)counts[SKIPPED] * sizeof *skips);
        skips[counts[SKIPPED] - 1].name = t->name;
        memcpy(skips[counts[SKIPPED] - 1].reason, outcome->reason, sizeof outcome->reason);
    }
    if (list)
        return 0;
    for (int k = 0; k < counts[SKIPPED]; k++)
        printf("skipped: %s: %s\n", skips[k].name, skips[k].reason);
    free(skips);
    if (counts[PASSED] + counts[FAILED] + counts[SKIPPED] == 0) {
        printf("FAIL  no test of that name\n");
        counts[FAILED]++;
    }
    printf("%d passed, %d failed, %d skipped\n", counts[PASSED], counts[FAILED], counts[SKIPPED]);
    return counts[FAILED] ? 1 : 0;
}

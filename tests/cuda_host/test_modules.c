/* test_modules.c: backends that are shared objects: found, opened, refused. build/cuda-host has one that drives the
 * CPU's stand-in for cards; libgeul-cuda.so itself is here where nvcc has made it. */
#include "tests/harness.h"

#include "backends/module.h"
#include "core/os.h"

#include <dlfcn.h>
#include <pthread.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

/* The folder of the programs that were built with the tests. */
static const char *build_folder(void)
{
    static char folder[1024];
    snprintf(folder, sizeof folder, "%s", GEUL_BINARY);
    *strrchr(folder, '/') = '\0';
    return folder;
}

static struct test_kept in_build(const char *name)
{
    char path[1024];
    snprintf(path, sizeof path, "%.900s/%s", build_folder(), name);
    return test_keep(path);
}

#define HOST_MODULE "cuda-host/libgeul-cuda.so"

static bool says(const char *text, const char *part)
{
    return CHECK_MSG(strstr(text, part) != NULL, "\"%s\" does not say \"%s\"", text, part);
}

/* ------------------------------------------------------------------------------------- found -- */

TEST(module_is_found_where_the_environment_says)
{
    setenv("GEUL_BACKENDS", in_build("cuda-host").text, 1);
    setenv("GEUL_HOST_GPU", "sm_90,sm_75", 1);
    struct geul_context *ctx = geul_context_new(NULL);
    CHECK_INT(geul_device_count(), 3);
    const struct geul_backend *b = geul_backend_at(1);
    REQUIRE(b);
    CHECK_STR(b->name, "cuda");
    CHECK(!geul_backend_at(2));
    struct geul_device *d = geul_device_open(ctx, 2, 0);
    REQUIRE(d);
    CHECK_STR(d->id, "cuda:1");
    struct geul_buffer buffer;
    char out[6] = "", in[6] = "hello";
    CHECK(b->buffer_new(ctx, d, 6, &buffer) == GEUL_OK && b->upload(ctx, &buffer, buffer.base, in, 6) == GEUL_OK &&
          b->download(ctx, &buffer, buffer.base, out, 6) == GEUL_OK);
    CHECK_STR(out, in);
    /* Messages and memory of the module's own copy of core end up in the program's context. */
    CHECK(b->buffer_new(ctx, d, (size_t)1 << 40, &buffer) == GEUL_ERROR_MEMORY);
    says(geul_error(ctx), "CPU as sm_75 (cuda:1): out of memory");
    b->buffer_free(ctx, &buffer);
    geul_device_close(ctx, d);
    char text[800];
    CHECK(!geul_backend_missing(0, text, sizeof text));
    geul_context_free(ctx);
}

TEST(module_without_cards_says_why)
{
    setenv("GEUL_BACKENDS", in_build("cuda-host").text, 1);
    setenv("GEUL_HOST_GPU", "", 1);
    char text[800] = "";
    CHECK_INT(geul_device_count(), 1);
    CHECK(geul_backend_missing(0, text, sizeof text));
    CHECK_STR(text, "cuda: the NVIDIA driver finds no card");
    CHECK(!geul_backend_missing(1, text, sizeof text));
}

/* A copy of a file that was built; where. */
static struct test_kept copy_of(const char *name, const char *to)
{
    size_t size = 0;
    char *data = test_slurp(in_build(name).text, &size);
    struct test_kept path = test_keep(test_scratch(to));
    CHECK(data && test_spill(path.text, data, size) && chmod(path.text, 0755) == 0);
    free(data);
    return path;
}

/* What a program prints. */
static void run(const char *program, const char *arguments, char *out, size_t size)
{
    char command[2200];
    snprintf(command, sizeof command, "unset GEUL_BACKENDS; %.1000s %.1000s", program, arguments);
    FILE *f = popen(command, "r");
    size_t n = f ? fread(out, 1, size - 1, f) : 0;
    out[n] = '\0';
    CHECK(f && pclose(f) == 0);
}

TEST(module_is_found_beside_the_program_and_where_it_is_installed)
{
    struct stat st;
    if (stat(GEUL_BINARY, &st) != 0) {
        test_skip("there is no %s", GEUL_BINARY);
        return;
    }
    static const struct {
        const char *folders[3], *program, *module;
    } cases[] = {
        {{"flat/"}, "flat/geul", "flat/libgeul-cuda.so"},
        {{"tree/", "tree/bin/", "tree/" GEUL_LIBDIR "/"}, "tree/bin/geul", "tree/" GEUL_LIBDIR "/libgeul-cuda.so"},
    };
    for (int i = 0; i < 2; i++) {
        char out[2000];
        for (int k = 0; k < 3 && cases[i].folders[k]; k++)
            test_scratch(cases[i].folders[k]);
        struct test_kept program = copy_of("geul", cases[i].program);
        run(program.text, "info --devices", out, sizeof out);
        CHECK_MSG(!strstr(out, "CPU as sm_90"), "%s", out);
        copy_of(HOST_MODULE, cases[i].module);
        run(program.text, "info --devices", out, sizeof out);
        says(out, "CPU as sm_90");
        /* Also when the program is called by a name that does not lead to it. */
        char command[1200];
        snprintf(command, sizeof command, "-c 'exec -a geul %s info --devices'", program.text);
        run("bash", command, out, sizeof out);
        says(out, "CPU as sm_90");
    }
}

TEST(module_folders_are_those_of_files)
{
    char folder[1024];
    CHECK(geul_os_folder_of((const void *)build_folder, folder, sizeof folder));
    CHECK(strchr(folder, '/') == folder);
    char exe[1024] = "";
    CHECK(readlink("/proc/self/exe", exe, sizeof exe - 1) > 0);
    *strrchr(exe, '/') = '\0';
    CHECK_STR(folder, exe);
    /* Of a library: libc is not beside the tests. */
    CHECK(geul_os_folder_of((const void *)stdout, folder, sizeof folder) && strcmp(folder, exe) != 0);
    CHECK(!geul_os_folder_of((const void *)build_folder, folder, 3));
}

TEST(module_can_be_left_out)
{
    setenv("GEUL_BACKENDS", "none", 1);
    char text[800] = "";
    CHECK_INT(geul_device_count(), 1);
    CHECK(geul_backend_missing(0, text, sizeof text));
    CHECK_STR(text, "cuda: GEUL_BACKENDS leaves it out");
}

TEST(module_need_not_be_installed)
{
    setenv("GEUL_BACKENDS", test_scratch("nothing/"), 1);
    char text[800] = "";
    CHECK_INT(geul_device_count(), 1);
    CHECK(!geul_backend_at(1));
    CHECK(geul_backend_missing(0, text, sizeof text));
    says(text, "cuda: there is no libgeul-cuda.so in ");
}

static void *count_devices(void *count)
{
    *(int *)count = geul_device_count();
    return NULL;
}

TEST(module_is_opened_once_by_whoever_comes_first)
{
    enum { THREADS = 8 };
    setenv("GEUL_BACKENDS", in_build("cuda-host").text, 1);
    pthread_t threads[THREADS];
    int counts[THREADS];
    for (int i = 0; i < THREADS; i++)
        REQUIRE(pthread_create(&threads[i], NULL, count_devices, &counts[i]) == 0);
    for (int i = 0; i < THREADS; i++) {
        pthread_join(threads[i], NULL);
        CHECK_INT(counts[i], 2);
    }
}

/* ----------------------------------------------------------------------------------- refused -- */

/* A module as a file, to be changed. */
struct image {
    char *data;
    size_t size;
    struct geul_module *entry;
};

static bool read_image(struct image *m)
{
    m->data = test_slurp(in_build(HOST_MODULE).text, &m->size);
    m->entry = NULL;
    for (size_t i = 0; m->data && i + sizeof *m->entry < m->size && !m->entry; i += 8)
        if (memcmp(m->data + i, GEUL_MODULE_MARK, sizeof GEUL_MODULE_MARK) == 0)
            if (((struct geul_module *)(void *)(m->data + i))->contract == GEUL_MODULE_CONTRACT &&
                strcmp(((struct geul_module *)(void *)(m->data + i))->version, GEUL_VERSION) == 0)
                m->entry = (struct geul_module *)(void *)(m->data + i);
    return CHECK_MSG(m->entry != NULL, "the module has no entry");
}

static void no_change(struct image *m)
{
    (void)m;
}
static void change_mark(struct image *m)
{
    m->entry->mark[0] = 'x';
}
static void change_contract(struct image *m)
{
    m->entry->contract++;
}
static void change_version(struct image *m)
{
    memcpy(m->entry->version, "9.9", 4);
}
static void change_bytes(struct image *m)
{
    m->entry->bytes += 8;
}
static void change_sizes(struct image *m)
{
    m->entry->sizes[4]++;
}
static void change_name(struct image *m)
{
    for (size_t i = 0; i + 20 < m->size; i++)
        if (memcmp(m->data + i, "geul_backend_module", 20) == 0)
            m->data[i + 18] = 'X';
}
static void make_text(struct image *m)
{
    memcpy(m->data, "#!/bin/sh\n", 11);
}
static void cut_in_the_middle(struct image *m)
{
    m->size /= 2;
}
static void cut_at_the_end(struct image *m)
{
    m->size -= 64;
}
static void cut_in_the_head(struct image *m)
{
    m->size = 40;
}
static void make_empty(struct image *m)
{
    m->size = 0;
}
static void change_machine(struct image *m)
{
    m->data[18] = 2; /* SPARC */
}

static const struct {
    const char *name;
    void (*change)(struct image *m);
    const char *reason; /* NULL: none */
} changes[] = {
    {"unchanged", no_change, NULL},
    {"mark", change_mark, "it is not a backend of geul"},
    {"contract", change_contract, "it speaks version 2 of the contract, this library 1: install both from one package"},
    {"version", change_version, "it belongs to geul 9.9, this library is " GEUL_VERSION},
    {"bytes", change_bytes, "it belongs to geul , this library is " GEUL_VERSION},
    {"sizes", change_sizes, "it was built from other sources than this library"},
    {"name", change_name, "it is not a backend of geul"},
    {"text", make_text, "invalid ELF header"},
    {"middle", cut_in_the_middle, "the file is cut off"},
    {"end", cut_at_the_end, "the file is cut off"},
    {"head", cut_in_the_head, "file too short"},
    {"empty", make_empty, "file too short"},
    {"machine", change_machine, "cannot open shared object file"},
};

TEST(module_that_does_not_fit_is_refused)
{
    for (size_t i = 0; i < sizeof changes / sizeof *changes; i++) {
        struct image m;
        if (!read_image(&m))
            return;
        changes[i].change(&m);
        struct test_kept path = test_keep(test_scratch(changes[i].name));
        char why[400] = "";
        REQUIRE(test_spill(path.text, m.data, m.size));
        const struct geul_backend *b = geul_module_open(path.text, why, sizeof why);
        CHECK_MSG((b != NULL) == !changes[i].reason, "%s: %s", changes[i].name, why);
        if (changes[i].reason)
            CHECK_MSG(strstr(why, changes[i].reason), "%s: \"%s\" does not say \"%s\"", changes[i].name, why,
                      changes[i].reason);
        free(m.data);
    }
    char why[400] = "";
    CHECK(!geul_module_open(test_scratch("nothing there"), why, sizeof why));
    says(why, "No such file");
    CHECK(!geul_module_open(test_scratch("a folder/"), why, sizeof why));
    CHECK(why[0]);
}

static struct {
    int n;
    char text[800];
} logged;

static void take_line(void *user, enum geul_log_level level, const char *text)
{
    (void)user;
    if (level == GEUL_LOG_WARN) {
        logged.n++;
        snprintf(logged.text, sizeof logged.text, "%s", text);
    }
}

TEST(module_that_is_refused_is_told_once_and_the_cpu_goes_on)
{
    struct image m;
    if (!read_image(&m))
        return;
    char text[800] = "";
    change_contract(&m);
    struct test_kept folder = test_keep(test_scratch("folder/"));
    REQUIRE(test_spill(test_scratch("folder/libgeul-cuda.so"), m.data, m.size));
    free(m.data);
    setenv("GEUL_BACKENDS", folder.text, 1);
    struct geul_context *ctx = geul_context_new(&(struct geul_context_options){.log = take_line});
    CHECK_INT(geul_device_count(), 1);
    for (int i = 0; i < 2; i++) {
        struct geul_device *d = geul_device_open(ctx, GEUL_DEVICE_HOST, 1);
        CHECK(d);
        geul_device_close(ctx, d);
    }
    CHECK_INT(logged.n, 1);
    says(logged.text, "/folder/libgeul-cuda.so is not used: it speaks version 2");
    CHECK(geul_backend_missing(0, text, sizeof text));
    CHECK_STR(text, logged.text);
    geul_context_free(ctx);
}

/* -------------------------------------------------------------------------------- the real one -- */

/* Opens libgeul-cuda.so in a process of its own, with a driver of that kind (NULL: with the machine's, or none), and
 * says how many cards it has, and why not more. -1: it cannot be opened. */
static int ask_real(const char *failing, char *why, size_t size)
{
    int ends[2], n = -1;
    why[0] = '\0';
    if (!CHECK(pipe(ends) == 0))
        return -1;
    pid_t child = fork();
    if (child == 0) {
        char text[400] = "";
        if (failing)
            setenv("GEUL_FAILING_DRIVER", failing, 1);
        if (failing && !dlopen(in_build("failing-driver/libcuda.so.1").text, RTLD_NOW | RTLD_GLOBAL))
            _exit(2);
        const struct geul_backend *b = geul_module_open(in_build("libgeul-cuda.so").text, text, sizeof text);
        int count = b ? b->count() : -1;
        if (b)
            b->missing(text, sizeof text);
        struct geul_context *ctx = geul_context_new(NULL);
        if (b && count == 0 && (b->open(ctx, 0, 0) || geul_error_status(ctx) != GEUL_ERROR_DEVICE))
            count = -2;
        bool sent =
            write(ends[1], &count, sizeof count) == sizeof count && write(ends[1], text, sizeof text) == sizeof text;
        _exit(sent ? 0 : 3);
    }
    int status = 0;
    close(ends[1]);
    bool received = read(ends[0], &n, sizeof n) == sizeof n && read(ends[0], why, size) > 0;
    close(ends[0]);
    waitpid(child, &status, 0);
    CHECK_MSG(received && status == 0, "driver %s: the process ends with %d", failing ? failing : "of the machine",
              status);
    return n;
}

TEST(module_for_cards_starts_whatever_the_driver_does)
{
    struct stat st;
    if (stat(in_build("libgeul-cuda.so").text, &st) != 0) {
        test_skip("there is no libgeul-cuda.so (make cuda, with nvcc)");
        return;
    }
    static const struct {
        const char *failing, *reason;
    } cases[] = {
        {"0 0 0", "no NVIDIA driver is installed"},
        {"12080 0 0", "the NVIDIA driver is too old: it serves CUDA 12.8; install driver 580 or later, for CUDA 13.0"},
        {"11020 0 0", "the NVIDIA driver is too old: it serves CUDA 11.2"},
        {"13000 999 0", "CUDA error 999"},
        {"13000 100 0", "finds no card"},
        {"13000 803 0", "the machine has to be restarted"},
        {"13000 0 999", "CUDA does not start: "},
        {"13000 0 0", "CUDA does not start: "},
    };
    char why[400];
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        CHECK_MSG(ask_real(cases[i].failing, why, sizeof why) == 0, "driver \"%s\": %s", cases[i].failing, why);
        CHECK_MSG(strstr(why, cases[i].reason), "driver \"%s\": \"%s\" does not say \"%s\"", cases[i].failing, why,
                  cases[i].reason);
    }
    if (!dlopen("libcuda.so.1", RTLD_NOW)) {
        CHECK_INT(ask_real(NULL, why, sizeof why), 0);
        says(why, "no NVIDIA driver is installed; ");
    }
}

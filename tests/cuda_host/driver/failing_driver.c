/* failing_driver.c: a libcuda.so.1 that fails: what CUDA's runtime inside of libgeul-cuda.so is shown where a driver is
 * old or broken. GEUL_FAILING_DRIVER="VERSION INIT COUNT": the version of CUDA that it says it serves, then the error
 * numbers of cuInit() and cuDeviceGetCount(), or 0. Everything else fails as not initialized. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { DONE, INVALID_VALUE, NOT_INITIALIZED = 3, NOT_FOUND = 500 };

static void settings(int *version, int *init, int *count)
{
    const char *text = getenv("GEUL_FAILING_DRIVER");
    *version = *init = *count = 0;
    if (text)
        sscanf(text, "%d %d %d", version, init, count);
}

static int driver_version(int *out)
{
    int init, count;
    settings(out, &init, &count);
    return DONE;
}

static int init(unsigned flags)
{
    int version, error, count;
    (void)flags;
    settings(&version, &error, &count);
    return error;
}

static int device_count(int *out)
{
    int version, error, count;
    settings(&version, &error, &count);
    *out = 0;
    return count;
}

static int error_text(int error, const char **text)
{
    (void)error;
    *text = "an error of the failing driver";
    return DONE;
}

static int anything(void)
{
    return NOT_INITIALIZED;
}

static int proc_address(const char *name, void **out, int version, unsigned long long flags, int *found);

/* Object pointers to functions, as dlsym() gives them. */
static void *find(const char *name)
{
    union {
        int (*function)(void);
        int (*version)(int *);
        int (*init)(unsigned);
        int (*text)(int, const char **);
        int (*address)(const char *, void **, int, unsigned long long, int *);
        void *pointer;
    } found = {.function = anything};
    if (strcmp(name, "cuDriverGetVersion") == 0)
        found.version = driver_version;
    else if (strcmp(name, "cuInit") == 0)
        found.init = init;
    else if (strcmp(name, "cuDeviceGetCount") == 0)
        found.version = device_count;
    else if (strcmp(name, "cuGetErrorString") == 0 || strcmp(name, "cuGetErrorName") == 0)
        found.text = error_text;
    else if (strncmp(name, "cuGetProcAddress", 16) == 0)
        found.address = proc_address;
    return found.pointer;
}

static int proc_address(const char *name, void **out, int version, unsigned long long flags, int *found)
{
    (void)version;
    (void)flags;
    *out = find(name);
    if (found)
        *found = 0;
    return DONE;
}

/* What the runtime looks up by name; the rest it asks of the first. */
int cuGetProcAddress_v2(const char *name, void **out, int version, unsigned long long flags, int *found);
int cuGetProcAddress_v2(const char *name, void **out, int version, unsigned long long flags, int *found)
{
    return proc_address(name, out, version, flags, found);
}

int cuGetProcAddress(const char *name, void **out, int version, unsigned long long flags);
int cuGetProcAddress(const char *name, void **out, int version, unsigned long long flags)
{
    return proc_address(name, out, version, flags, NULL);
}

int cuDriverGetVersion(int *out);
int cuDriverGetVersion(int *out)
{
    return driver_version(out);
}

int cuInit(unsigned flags);
int cuInit(unsigned flags)
{
    return init(flags);
}

int cuDeviceGetCount(int *out);
int cuDeviceGetCount(int *out)
{
    return device_count(out);
}

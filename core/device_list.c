/* device_list.c: see device_list.h. A device is named as its id says, "BACKEND:NUMBER"; which ids there are is known
 * only when devices are open, so the one whose place among its backend's devices is that number is tried first. */
#include "core/device_list.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The devices of a backend are [first, first + n) of all. */
struct range {
    const struct geul_backend *backend;
    int first, n;
};

/* Those of backend number k; false after the last. */
static bool range_of(int k, struct range *out)
{
    *out = (struct range){.backend = geul_backend_at(k)};
    for (int i = 0; i < k && out->backend; i++)
        out->first += geul_backend_at(i)->count();
    out->n = out->backend ? out->backend->count() : 0;
    return out->backend != NULL;
}

static bool has_id(const struct geul_devices *devices, const char *id)
{
    for (int i = 0; i < devices->n; i++)
        if (strcmp(devices->at[i]->id, id) == 0)
            return true;
    return false;
}

/* Appends an open device, or closes it if it is there already. */
static enum geul_status append(struct geul_context *ctx, struct geul_devices *devices, struct geul_device *device)
{
    if (!device)
        return geul_error_status(ctx);
    if (has_id(devices, device->id)) {
        geul_device_close(ctx, device);
        return GEUL_OK;
    }
    if (devices->n == GEUL_MAX_DEVICES) {
        geul_device_close(ctx, device);
        return geul_fail(ctx, GEUL_ERROR_ARGUMENT, "at most %d devices besides the CPU can be used together",
                         GEUL_MAX_DEVICES - 1);
    }
    devices->at[devices->n++] = device;
    return GEUL_OK;
}

/* ------------------------------------------------------------------------------------ naming -- */

/* Writes the ids of all devices that can be opened, and why there are no more, for the message that one is missing. */
static void list_devices(const struct geul_context *ctx, char *text, size_t size)
{
    struct geul_context *own = geul_context_new_like(ctx);
    size_t n = 0;
    text[0] = '\0';
    for (int i = 0; own && i < geul_device_count() && n < size; i++) {
        struct geul_device *device = i == GEUL_DEVICE_HOST ? NULL : geul_device_open(own, i, 1);
        if (i == GEUL_DEVICE_HOST || device)
            n += (size_t)snprintf(text + n, size - n, "%s%s", n ? ", " : "", device ? device->id : "cpu");
        geul_device_close(own, device);
    }
    geul_context_free(own);
    char why[700];
    for (int i = 0; n < size && geul_backend_missing(i, why, sizeof why); i++)
        n += (size_t)snprintf(text + n, size - n, "; %s", why);
}

static enum geul_status fail_missing(struct geul_context *ctx, const char *name)
{
    char all[900];
    list_devices(ctx, all, sizeof all);
    return geul_fail(ctx, GEUL_ERROR_ARGUMENT, "there is no device \"%.60s\", only %s", name, all);
}

/* Appends the device of range r with that id; one that is not there is named as name. */
static enum geul_status append_id(struct geul_context *ctx, struct geul_devices *devices, const struct range *r,
                                  int number, const char *id)
{
    for (int i = 0; i < r->n; i++) {
        int k = number < r->n ? (number + i) % r->n : i;
        struct geul_device *device = geul_device_open(ctx, r->first + k, 0);
        if (!device || strcmp(device->id, id) == 0)
            return append(ctx, devices, device);
        geul_device_close(ctx, device);
    }
    return fail_missing(ctx, id);
}

/* Appends what one word of the list names: a backend with all of its devices, or one device. */
static enum geul_status append_named(struct geul_context *ctx, struct geul_devices *devices, const char *word)
{
    struct range r;
    size_t length = strcspn(word, ":");
    for (int k = 1; range_of(k, &r); k++) {
        if (strlen(r.backend->name) != length || strncmp(r.backend->name, word, length) != 0)
            continue;
        if (word[length]) {
            char *end;
            long number = strtol(word + length + 1, &end, 10);
            bool valid = end != word + length + 1 && !*end && number >= 0 && number < 1 << 16;
            return valid ? append_id(ctx, devices, &r, (int)number, word) : fail_missing(ctx, word);
        }
        enum geul_status status = r.n > 0 ? GEUL_OK : fail_missing(ctx, word);
        for (int i = 0; i < r.n && status == GEUL_OK; i++)
            status = append(ctx, devices, geul_device_open(ctx, r.first + i, 0));
        return status;
    }
    return fail_missing(ctx, word);
}

/* Appends every device that can be opened; the log has why others cannot, which is no failure. */
static void append_all(struct geul_context *ctx, struct geul_devices *devices)
{
    char why[700];
    for (int i = GEUL_DEVICE_HOST + 1; i < geul_device_count() && devices->n < GEUL_MAX_DEVICES; i++) {
        struct geul_device *device = geul_device_open(ctx, i, 0);
        if (!device) {
            geul_log(ctx, GEUL_LOG_WARN, "device %d is left out: %s", i, geul_error(ctx));
            geul_error_clear(ctx);
            continue;
        }
        (void)append(ctx, devices, device); /* there is room */
    }
    for (int i = 0; devices->n == 1 && geul_backend_missing(i, why, sizeof why); i++)
        geul_log(ctx, GEUL_LOG_INFO, "%s; using the CPU", why);
}

static enum geul_status append_word(struct geul_context *ctx, struct geul_devices *devices, const char *word)
{
    if (strcmp(word, "cpu") == 0 || strcmp(word, "none") == 0)
        return GEUL_OK; /* which is there */
    if (strcmp(word, "auto") != 0)
        return append_named(ctx, devices, word);
    append_all(ctx, devices);
    return GEUL_OK;
}

enum geul_status geul_devices_open(struct geul_context *ctx, const char *names, int n_threads, struct geul_devices *out)
{
    *out = (struct geul_devices){.n = 0};
    enum geul_status status = append(ctx, out, geul_device_open(ctx, GEUL_DEVICE_HOST, n_threads));
    for (const char *at = names ? names : ""; *at && status == GEUL_OK;) {
        size_t length = strcspn(at, ",");
        char word[64];
        snprintf(word, sizeof word, "%.*s", (int)(length < sizeof word ? length : sizeof word), at);
        status = append_word(ctx, out, word);
        at += length + (at[length] == ',');
    }
    if (status != GEUL_OK)
        geul_devices_close(ctx, out);
    return status;
}

void geul_devices_close(struct geul_context *ctx, struct geul_devices *devices)
{
    while (devices->n > 0)
        geul_device_close(ctx, devices->at[--devices->n]);
}

/* ----------------------------------------------------------------------------------- listing -- */

enum geul_status geul_device_describe(struct geul_context *ctx, int i, struct geul_device_info *out)
{
    *out = (struct geul_device_info){.total_bytes = 0};
    geul_error_clear(ctx);
    struct geul_device *device = geul_device_open(ctx, i, 0);
    if (!device)
        return geul_error_status(ctx);
    snprintf(out->id, sizeof out->id, "%s", device->id);
    snprintf(out->name, sizeof out->name, "%s", device->name);
    snprintf(out->backend, sizeof out->backend, "%s", device->backend->name);
    out->n_threads = device->n_threads;
    out->largest_buffer = device->max_buffer;
    device->backend->memory(device, &out->free_bytes, &out->total_bytes);
    geul_device_close(ctx, device);
    return GEUL_OK;
}

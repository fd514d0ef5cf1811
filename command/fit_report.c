/* fit_report.c: see fit_report.h. Nothing of the model is loaded. The speed is that at which every weight and the cache
 * are read once per token, on each device as fast as it can read, one device after the other: nothing can be faster. */
#include "command/fit_report.h"

#include "command/device_ceilings.h"
#include "command/progress.h"
#include "command/report.h"

#include "core/bytes.h"

#include "models/fit.h"

#include <stdio.h>
#include <string.h>

struct plan {
    const struct geul_model_args *args;
    struct geul_context *ctx;
    struct geul_gguf *g;
    struct geul_devices devices;
    struct geul_fit fit;
    struct geul_device_ceilings ceilings[GEUL_MAX_DEVICES]; /* 0 where nothing lies */
    int depths[GEUL_FIT_DEPTHS_MAX], n_depths;
};

static size_t bytes_on(const struct geul_fit_device *f)
{
    return f->weights + f->cache + f->working;
}

/* Tokens per second with so many positions in the cache of each sequence, of all sequences together; 0: not known. */
static double speed(const struct plan *p, int depth)
{
    const struct geul_fit *fit = &p->fit;
    double seconds = 0;
    for (int d = 0; d < fit->n; d++) {
        const struct geul_fit_device *f = &fit->at[d];
        double cache = (double)fit->position_bytes * depth * fit->n_sequences * f->n_layers / fit->shape.n_layers;
        double bytes = (double)f->step_bytes + cache;
        if (bytes > 0 && p->ceilings[d].read_bytes_per_s <= 0)
            return 0;
        seconds += bytes > 0 ? bytes / p->ceilings[d].read_bytes_per_s : 0;
    }
    return seconds > 0 ? fit->n_sequences / seconds : 0;
}

static enum geul_status measure(struct plan *p)
{
    struct geul_ceilings c;
    if (!geul_ceilings_open(p->ctx, &p->devices, &c))
        return geul_error_status(p->ctx);
    bool ok = true;
    for (int d = 0; d < p->fit.n && ok; d++)
        if (p->fit.at[d].step_bytes > 0)
            ok = geul_ceilings_measure(&c, d, &p->ceilings[d]);
    geul_ceilings_close(&c);
    return ok ? GEUL_OK : geul_error_status(p->ctx);
}

/* ------------------------------------------------------------------------------------- text -- */

/* "28 of 40 layers, output". */
static void parts_text(const struct geul_fit *fit, const struct geul_fit_device *f, char *text, size_t size)
{
    size_t n = (size_t)snprintf(text, size, "%d of %d", f->n_layers, fit->shape.n_layers);
    if (f->output)
        n += (size_t)snprintf(text + n, size - n, ", output");
    if (f->embedding)
        snprintf(text + n, size - n, ", embedding");
}

static void print_devices(const struct plan *p)
{
    char parts[80], b[6][32];
    printf("%-8s %-26s %11s %11s %11s %11s %11s\n", "device", "layers", "weights", "cache", "working", "in all",
           "free");
    for (int d = 0; d < p->fit.n; d++) {
        const struct geul_fit_device *f = &p->fit.at[d];
        parts_text(&p->fit, f, parts, sizeof parts);
        const size_t sizes[] = {f->weights, f->cache, f->working, bytes_on(f), f->free_bytes};
        printf("%-8s %-26s", f->device->id, parts);
        for (int i = 0; i < 5; i++)
            printf(" %11s", geul_bytes_text(sizes[i], b[i], sizeof b[i]));
        printf("  %s\n", f->device->name);
    }
}

/* What would fit of what was asked for. */
static void print_alternatives(const struct geul_fit *fit)
{
    const struct {
        bool would;
        const char *format;
        double value;
    } rows[] = {
        {!fit->fits && fit->most_layers > 0, "  -ngl %.0f\n", fit->most_layers},
        {!fit->fits && fit->most_layers == 0, "  -ngl 0, everything on the CPU\n", 0},
        {fit->most_context > 0 && fit->most_context < fit->n_context, "  -c %.0f\n", fit->most_context},
        {fit->smaller_cache, "  -ctk q8_0\n", 0},
        {fit->most_bits > 0 && fit->most_bits < fit->bits_per_weight,
         "  a file of at most %.1f bits per weight (`geul quantize`)\n", fit->most_bits},
    };
    int n = 0;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        n += rows[i].would;
    if (n == 0)
        printf("\nThe cards are too small for all of it, with whatever cache and types.\n");
    else
        printf(fit->fits ? "\nAll of it would lie on cards with any one of these:\n"
                         : "\nThat does not fit. Any one of these would:\n");
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        if (rows[i].would)
            printf(rows[i].format, rows[i].value);
}

static void print_speed(const struct plan *p)
{
    for (int i = 0; i < p->n_depths; i++) {
        double tps = speed(p, p->depths[i]);
        if (tps > 0)
            printf("at most %.*f tokens/s behind %d tokens\n", tps < 100 ? 1 : 0, tps, p->depths[i]);
    }
    for (int d = 0; d < p->fit.n; d++)
        if (p->ceilings[d].read_bytes_per_s > 0)
            printf("%s reads %.1f GB/s\n", p->fit.at[d].device->id, p->ceilings[d].read_bytes_per_s * 1e-9);
}

static void print_plan(const struct plan *p)
{
    const struct geul_fit *fit = &p->fit;
    const struct geul_fit_device *host = &fit->at[GEUL_DEVICE_HOST];
    char a[32], b[32];
    geul_report_line("%s: %s of weights, %.2f bits each; cache of %d x %d positions at %s: %s", p->args->path,
                     geul_bytes_text(fit->weight_bytes, a, sizeof a), fit->bits_per_weight, fit->n_sequences,
                     fit->n_context, geul_type_name(fit->cache_type), geul_bytes_text(fit->cache_bytes, b, sizeof b));
    putchar('\n');
    print_devices(p);
    if (host->total_bytes && bytes_on(host) > host->free_bytes)
        printf("\nThe part of the CPU exceeds its free memory: weights will be read from the disk again and again.\n");
    for (int d = 1; d < fit->n; d++)
        if (fit->at[d].reserve + fit->also_reserved > 0)
            printf("%s%s of %s are left free\n", d == 1 ? "\n" : "",
                   geul_bytes_text(fit->at[d].reserve + fit->also_reserved, a, sizeof a), fit->at[d].device->id);
    if (fit->has_alternatives)
        print_alternatives(fit);
    putchar('\n');
    print_speed(p);
}

/* -------------------------------------------------------------------------------------- JSON -- */

static json_t *device_json(const struct geul_fit_device *f, const struct geul_device_ceilings *c)
{
    json_t *json = json_pack("{s:o, s:o, s:i, s:b, s:b}", "id", geul_report_json_name(f->device->id), "name",
                             geul_report_json_name(f->device->name), "layers", f->n_layers, "embedding", f->embedding,
                             "output", f->output);
    const struct {
        const char *name;
        size_t bytes;
    } sizes[] = {
        {"weight_bytes", f->weights},  {"cache_bytes", f->cache},       {"working_bytes", f->working},
        {"free_bytes", f->free_bytes}, {"total_bytes", f->total_bytes}, {"reserved_bytes", f->reserve},
    };
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        json_object_set_new(json, sizes[i].name, json_integer((json_int_t)sizes[i].bytes));
    json_object_set_new(json, "read_bytes_per_s", json_real(c->read_bytes_per_s));
    return json;
}

static json_t *plan_json(const struct plan *p)
{
    const struct geul_fit *fit = &p->fit;
    json_t *devices = json_array(), *speeds = json_array();
    for (int d = 0; d < fit->n; d++)
        json_array_append_new(devices, device_json(&fit->at[d], &p->ceilings[d]));
    for (int i = 0; i < p->n_depths; i++) {
        double tps = speed(p, p->depths[i]);
        json_array_append_new(speeds, json_pack("{s:i, s:o}", "depth", p->depths[i], "tokens_per_s_at_most",
                                                tps > 0 ? json_real(tps) : json_null()));
    }
    json_t *json = json_pack("{s:o, s:b, s:i, s:i, s:i, s:s, s:I, s:I, s:f, s:o, s:o}", "model",
                             geul_report_json_name(p->args->path), "fits", fit->fits, "n_gpu_layers", fit->placement.n,
                             "n_context", fit->n_context, "n_sequences", fit->n_sequences, "cache_type",
                             geul_type_name(fit->cache_type), "weight_bytes", (json_int_t)fit->weight_bytes,
                             "cache_bytes", (json_int_t)fit->cache_bytes, "bits_per_weight", fit->bits_per_weight,
                             "devices", devices, "speed", speeds);
    if (fit->has_alternatives)
        json_object_set_new(json, "would_fit",
                            json_pack("{s:i, s:i, s:b, s:f}", "n_gpu_layers", fit->most_layers, "n_context",
                                      fit->most_context, "q8_0_cache", fit->smaller_cache, "bits_per_weight",
                                      fit->most_bits));
    return json;
}

/* ------------------------------------------------------------------------------------- whole -- */

/* Opens the file and the devices, plans and measures. Returns the exit code. */
static int make_plan(struct plan *p)
{
    struct geul_model_options options;
    struct geul_session_options session;
    int code = geul_model_args_options(p->args, p->ctx, &options, &session);
    if (code != 0)
        return code;
    p->g = geul_gguf_open(p->ctx, p->args->path);
    if (!p->g)
        return geul_report_failure(p->ctx);
    bool none = options.n_gpu_layers == GEUL_LAYERS_NONE;
    if (geul_devices_open(p->ctx, none ? NULL : options.devices, options.n_threads, &p->devices) != GEUL_OK) {
        code = geul_report_failure(p->ctx);
        geul_device_args_explain(&p->args->where, p->ctx);
        return code;
    }
    if (geul_fit_plan(p->ctx, p->g, &p->devices, &options, &p->fit) != GEUL_OK)
        return geul_report_failure(p->ctx);
    if (p->n_depths == 0) {
        p->depths[1] = p->fit.n_context - 1;
        p->n_depths = p->fit.n_context > 1 ? 2 : 1;
    }
    return measure(p) == GEUL_OK ? 0 : geul_report_failure(p->ctx);
}

int geul_fit_report(const struct geul_model_args *args, const int *depths, int n_depths, json_t *list)
{
    struct plan p = {.args = args, .ctx = geul_report_context(args->verbose), .n_depths = n_depths};
    if (!p.ctx)
        return 1;
    for (int i = 0; i < n_depths; i++)
        p.depths[i] = depths[i];
    int code = make_plan(&p);
    if (code == 0 && list)
        json_array_append_new(list, plan_json(&p));
    else if (code == 0)
        print_plan(&p);
    if (code == 0)
        code = p.fit.fits ? 0 : 1;
    geul_fit_free(p.ctx, &p.fit);
    geul_devices_close(p.ctx, &p.devices);
    geul_gguf_close(p.g);
    geul_report_context_free(p.ctx);
    return code;
}

int geul_fit_print(const struct geul_model_args *args, bool json)
{
    json_t *list = json ? json_array() : NULL;
    int code = geul_fit_report(args, NULL, 0, list);
    if (json_array_size(list) > 0)
        geul_report_json(json_incref(json_array_get(list, 0)));
    json_decref(list);
    return code;
}

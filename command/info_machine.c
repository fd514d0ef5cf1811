/* info_machine.c: processor, operations, devices. */
#include "command/info_machine.h"

#include "command/progress.h"
#include "command/report.h"

#include "backends/host.h"
#include "core/bytes.h"
#include "core/tensor.h"

#include <stdio.h>

/* Device i; its message is printed when it cannot be opened. */
static struct geul_device *open_device(struct geul_context *ctx, int i)
{
    struct geul_device *device = geul_device_open(ctx, i, 0);
    if (!device)
        geul_report_failure(ctx);
    return device;
}

static void print_host(const struct geul_device *host)
{
    const char *name;
    bool supported;
    struct geul_host_kernel k;
    printf("%s\n\ninstruction sets of this build (GEUL_CPU=NAME caps the choice):\n", host->name);
    for (int i = 0; geul_host_instruction_set(i, &name, &supported); i++)
        printf("  %-12s %s\n", name, supported ? "supported" : "not on this machine");
    printf("\nkernels in use:\n");
    for (int i = 0; geul_host_kernel_at(host, i, &k); i++)
        printf("  %-14s %-12s %s\n", k.slot, k.instruction_set, k.meaning);
}

static int print_host_json(const struct geul_device *host)
{
    const char *name;
    bool supported;
    struct geul_host_kernel k;
    json_t *sets = json_array(), *slots = json_object();
    for (int i = 0; geul_host_instruction_set(i, &name, &supported); i++)
        json_array_append_new(sets, json_pack("{s:s, s:b}", "name", name, "supported", supported));
    for (int i = 0; geul_host_kernel_at(host, i, &k); i++)
        json_object_set_new(slots, k.slot, json_string(k.instruction_set));
    return geul_report_json(json_pack("{s:s, s:i, s:o, s:o}", "device", host->name, "n_threads", host->n_threads,
                                      "instruction_sets", sets, "kernels", slots));
}

int geul_info_host(struct geul_context *ctx, bool json)
{
    struct geul_device *host = open_device(ctx, GEUL_DEVICE_HOST);
    int code = 0;
    if (!host)
        return 1;
    if (json)
        code = print_host_json(host);
    else
        print_host(host);
    geul_device_close(ctx, host);
    return code;
}

/* The columns of the operation table that hold text; each backend adds one. */
static const struct {
    enum geul_op op;
    int n_src;
    const char *name, *params, *layout, *backward;
} ops[] = {
#define OP(id, name, src, opt, params, shape, layout, flags, backward)                                                 \
    {GEUL_OP_##id, src, name, #params, #layout, #backward},
#include "core/ops.def"
#undef OP
};
enum { N_OPS = sizeof ops / sizeof ops[0] };

static const char *has_op(const struct geul_backend *backend, enum geul_op op)
{
    return backend->has_op(op) ? "yes" : "-";
}

/* One of the cells that end a line. */
static void print_backend(const char *cell, bool last)
{
    printf(last ? " %s\n" : " %-6s", cell);
}

static void print_ops(void)
{
    const struct geul_backend *b;
    printf("%-15s %-8s %-10s %-7s %-14s", "operation", "operands", "parameters", "layout", "backward");
    for (int i = 0; (b = geul_backend_at(i)) != NULL; i++)
        print_backend(b->name, !geul_backend_at(i + 1));
    for (int k = 0; k < N_OPS; k++) {
        printf("%-15s %-8d %-10s %-7s %-14s", ops[k].name, ops[k].n_src, ops[k].params, ops[k].layout, ops[k].backward);
        for (int i = 0; (b = geul_backend_at(i)) != NULL; i++)
            print_backend(has_op(b, ops[k].op), !geul_backend_at(i + 1));
    }
}

static int print_ops_json(void)
{
    const struct geul_backend *b;
    json_t *list = json_array();
    for (int k = 0; k < N_OPS; k++) {
        json_t *row = json_pack("{s:s, s:i, s:s, s:s, s:s}", "name", ops[k].name, "operands", ops[k].n_src,
                                "parameters", ops[k].params, "layout", ops[k].layout, "backward", ops[k].backward);
        for (int i = 0; (b = geul_backend_at(i)) != NULL; i++)
            json_object_set_new(row, b->name, json_string(has_op(b, ops[k].op)));
        json_array_append_new(list, row);
    }
    return geul_report_json(list);
}

int geul_info_ops(bool json)
{
    if (json)
        return print_ops_json();
    print_ops();
    return 0;
}

/* A line about the device. */
static void print_device(const struct geul_device_info *d)
{
    char a[32], b[32];
    printf("%-8s %s", d->id, d->name);
    if (d->total_bytes)
        printf(": %s of %s free", geul_bytes_text(d->free_bytes, a, sizeof a),
               geul_bytes_text(d->total_bytes, b, sizeof b));
    putchar('\n');
}

static json_t *device_json(const struct geul_device_info *d)
{
    return json_pack("{s:o, s:s, s:o, s:i, s:I, s:I}", "id", geul_report_json_name(d->id), "backend", d->backend,
                     "name", geul_report_json_name(d->name), "n_threads", d->n_threads, "free_bytes",
                     (json_int_t)d->free_bytes, "total_bytes", (json_int_t)d->total_bytes);
}

int geul_info_devices(struct geul_context *ctx, bool json)
{
    json_t *list = json_array(), *missing = json_array();
    char why[700];
    for (int i = 0; i < geul_device_count(); i++) {
        struct geul_device_info d;
        if (geul_device_describe(ctx, i, &d) != GEUL_OK) { /* one that is there, and does not open: the others do */
            json_array_append_new(missing, geul_report_json_name(geul_error(ctx)));
            geul_error_clear(ctx);
            continue;
        }
        if (!json)
            print_device(&d);
        json_array_append_new(list, device_json(&d));
    }
    for (int i = 0; geul_backend_missing(i, why, sizeof why); i++)
        json_array_append_new(missing, geul_report_json_name(why));
    if (json)
        return geul_report_json(json_pack("{s:o, s:o}", "devices", list, "missing", missing));
    if (json_array_size(missing) > 0)
        printf("\nnot there:\n");
    for (size_t i = 0; i < json_array_size(missing); i++)
        geul_report_line("  %s", json_string_value(json_array_get(missing, i)));
    json_decref(list);
    json_decref(missing);
    return 0;
}

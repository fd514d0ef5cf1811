/* info_machine.c: processor, operations, devices. */
#include "examples/geul/info_machine.h"

#include "examples/geul/progress.h"
#include "examples/geul/report.h"

#include "backends/cpu/cpu.h"
#include "core/tensor.h"

#include <stdio.h>

/* The CPU device; its message is printed when it cannot be opened. */
static struct geul_device *open_cpu(struct geul_context *ctx)
{
    struct geul_device *cpu = geul_cpu_open(ctx, 0);
    if (!cpu)
        geul_report_failure(ctx);
    return cpu;
}

static void print_cpu(const struct geul_device *cpu)
{
    const char *name, *slot, *variant;
    bool supported;
    printf("%s\n\ninstruction sets of this build (GEUL_CPU=NAME caps the choice):\n", cpu->name);
    for (int i = 0; geul_cpu_variant(i, &name, &supported); i++)
        printf("  %-12s %s\n", name, supported ? "supported" : "not on this machine");
    printf("\nkernels in use:\n");
    for (int i = 0; geul_cpu_describe(cpu, i, &slot, &variant); i++)
        printf("  %-14s %-12s %s\n", slot, variant, geul_cpu_slot_meaning((enum geul_cpu_slot)i));
}

static int print_cpu_json(const struct geul_device *cpu)
{
    const char *name, *slot, *variant;
    bool supported;
    json_t *sets = json_array(), *slots = json_object();
    for (int i = 0; geul_cpu_variant(i, &name, &supported); i++)
        json_array_append_new(sets, json_pack("{s:s, s:b}", "name", name, "supported", supported));
    for (int i = 0; geul_cpu_describe(cpu, i, &slot, &variant); i++)
        json_object_set_new(slots, slot, json_string(variant));
    return geul_report_json(json_pack("{s:s, s:i, s:o, s:o}", "device", cpu->name, "n_threads", geul_cpu_threads(cpu),
                                      "instruction_sets", sets, "kernels", slots));
}

int geul_info_cpu(struct geul_context *ctx, bool json)
{
    struct geul_device *cpu = open_cpu(ctx);
    int code = 0;
    if (!cpu)
        return 1;
    if (json)
        code = print_cpu_json(cpu);
    else
        print_cpu(cpu);
    geul_cpu_close(ctx, cpu);
    return code;
}

/* The columns of the operation table that are told as text. */
static const struct {
    const char *name;
    int n_src;
    const char *params, *layout, *backward;
} ops[] = {
#define OP(id, name, src, opt, params, shape, layout, flags, backward) {name, src, #params, #layout, #backward},
#include "core/ops.def"
#undef OP
};

int geul_info_ops(bool json)
{
    size_t n = sizeof ops / sizeof *ops;
    json_t *list = json ? json_array() : NULL;
    if (!json)
        printf("%-15s %-8s %-10s %-7s %-14s %s\n", "operation", "operands", "parameters", "layout", "backward", "cpu");
    for (size_t i = 0; i < n; i++) {
        if (json)
            json_array_append_new(list, json_pack("{s:s, s:i, s:s, s:s, s:s, s:s}", "name", ops[i].name, "operands",
                                                  ops[i].n_src, "parameters", ops[i].params, "layout", ops[i].layout,
                                                  "backward", ops[i].backward, "cpu", "yes"));
        else
            printf("%-15s %-8d %-10s %-7s %-14s %s\n", ops[i].name, ops[i].n_src, ops[i].params, ops[i].layout,
                   ops[i].backward, "yes");
    }
    return json ? geul_report_json(list) : 0;
}

int geul_info_devices(struct geul_context *ctx, bool json)
{
    struct geul_device *cpu = open_cpu(ctx);
    size_t free_bytes, total_bytes;
    char a[32], b[32];
    int code = 0;
    if (!cpu)
        return 1;
    cpu->backend->memory(cpu, &free_bytes, &total_bytes);
    if (json)
        code = geul_report_json(json_pack("[{s:s, s:s, s:i, s:I, s:I}]", "backend", cpu->backend->name, "name",
                                          cpu->name, "n_threads", geul_cpu_threads(cpu), "free_bytes",
                                          (json_int_t)free_bytes, "total_bytes", (json_int_t)total_bytes));
    else if (total_bytes)
        printf("%-6s %s: %s of %s free\n", cpu->backend->name, cpu->name, geul_progress_bytes(free_bytes, a, sizeof a),
               geul_progress_bytes(total_bytes, b, sizeof b));
    else
        printf("%-6s %s\n", cpu->backend->name, cpu->name);
    geul_cpu_close(ctx, cpu);
    return code;
}

/* test_cpu_kernels.c: every slot of every instruction set that this machine has, against the meaning in double. The
 * checks of the slots are in test_cpu_kernels_*.c by family; here are those that no graph uses: the search of
 * quantization and the ceilings that `geul bench` measures. */
#include "tests/poison.h"
#include "tests/backends/cpu_kernel_cases.h"

#include "backends/host.h"
#include "backends/search_tile.h"
#include "core/block.h"

/* Every instruction set finds the same integers: the file must not depend on the machine that wrote it. */
void cpu_check_search(void)
{
    for (int type = 0; type < GEUL_TYPE_COUNT; type++) {
        const struct geul_block_format *format = geul_block_format((enum geul_type)type);
        for (int round = 0; format && round < 20; round++) {
            struct geul_search_tile want, got;
            memset(&want, 0, sizeof want);
            for (int l = 0; l < GEUL_SEARCH_LANES; l++)
                want.unit[l] = 0x1p-6f;
            for (int i = 0; i < format->group; i++)
                for (int l = 0; l < GEUL_SEARCH_LANES; l++) {
                    float x = test_normal(&cpu_seed) * 0.5f, heavy = (float)test_uniform(&cpu_seed, 0, 1);
                    want.x[i][l] = round % 3 == 2 && l % 2 ? 0 : fmaxf(-2, fminf(2, x));
                    want.weight[i][l] = round % 2 ? heavy * heavy : 1;
                }
            got = want;
            geul_cpu_kernels_scalar.search(format, &want);
            cpu_kernels->search(format, &got);
            if (!CHECK_MSG(memcmp(&want, &got, sizeof want) == 0, "%s search %s differs from scalar", cpu_variant,
                           geul_type_name((enum geul_type)type)))
                break;
        }
    }
}

void cpu_check_peak_f32(void)
{
    CHECK(cpu_kernels->peak_f32(10) > cpu_kernels->peak_f32(5));
}

void cpu_check_peak_bf16(void)
{
    CHECK(cpu_kernels->peak_bf16(10) > cpu_kernels->peak_bf16(5));
}

void cpu_check_peak_int8(void)
{
    CHECK(cpu_kernels->peak_int8(10) > cpu_kernels->peak_int8(5));
}

void cpu_check_read_sum(void)
{
    uint64_t *data = calloc(512, 8);
    for (size_t i = 0; i < 512; i += 8)
        data[i] = i;
    for (size_t streams = 1; streams <= 4; streams *= 2)
        for (size_t distance = 0; distance <= 1024; distance += 512)
            CHECK_INT(cpu_kernels->read_sum(data, 512 * 8, streams, distance), 63 * 64 / 2 * 8);
    free(data);
}

TEST(cpu_kernels_ask_for_no_more_than_there_is)
{
    static const uint8_t memory[512];
    struct geul_cpu_prefetch prefetch = {memory, memory + 100}; /* two lines, the second in part */
    for (int i = 0; i < 4; i++)
        geul_cpu_prefetch_bytes(&prefetch, 64);
    CHECK_INT(prefetch.at - memory, 128);
}

TEST(cpu_every_slot_of_every_instruction_set)
{
    bool supported;
    for (int i = 0; (cpu_kernels = geul_cpu_variant(i, &cpu_variant, &supported)) != NULL; i++) {
        if (!supported) {
            printf("  (%s: not on this machine)\n", cpu_variant);
            continue;
        }
        cpu_seed = CPU_SEED;
#define KERNEL(name, returns, arguments, meaning)                                                                      \
    if (cpu_kernels->name)                                                                                             \
        cpu_check_##name();
#define TYPED(family, type, meaning)                                                                                   \
    if (cpu_kernels->family[GEUL_TYPE_##type])                                                                         \
        cpu_check_##family(GEUL_TYPE_##type);
#include "backends/cpu/kernels.def"
#undef KERNEL
#undef TYPED
    }
}

/* A device of another backend has another state. */
TEST(host_looks_only_at_its_own_devices)
{
    struct geul_context *ctx = geul_context_new(NULL);
    struct geul_device *device = poison_open(ctx, NULL);
    struct geul_host_kernel k;
    REQUIRE(device);
    CHECK(!geul_host_kernel_at(device, 0, &k));
    CHECK(!geul_host_probe_new(ctx, device) && geul_error_status(ctx) == GEUL_ERROR_ARGUMENT);
    geul_device_close(ctx, device);
    geul_context_free(ctx);
}

TEST(cpu_table_has_no_hole)
{
    struct geul_context *ctx = geul_context_new(NULL);
    struct geul_device *device = cpu_device(ctx, "scalar", 1);
    REQUIRE(device);
    struct geul_host_kernel k;
    int n = 0;
    for (; geul_host_kernel_at(device, n, &k); n++) {
        bool may_miss = strncmp(k.slot, "dot ", 4) == 0 || strncmp(k.slot, "rounded ", 8) == 0;
        CHECK_MSG(strcmp(k.instruction_set, may_miss ? "none" : "scalar") == 0 && k.meaning[0], "slot %s", k.slot);
    }
    CHECK_INT(n, GEUL_CPU_SLOT_COUNT);
    geul_device_close(ctx, device);
    geul_context_free(ctx);
}

TEST(cpu_unknown_cap_is_an_error)
{
    struct geul_context *ctx = geul_context_new(NULL);
    setenv("GEUL_CPU", "mmx", 1);
    CHECK(geul_device_open(ctx, GEUL_DEVICE_HOST, 1) == NULL);
    CHECK(strstr(geul_error(ctx), "\"mmx\"") && strstr(geul_error(ctx), "scalar"));
    CHECK(geul_error_status(ctx) == GEUL_ERROR_ARGUMENT);
    unsetenv("GEUL_CPU");
    geul_context_free(ctx);
}

TEST(cpu_cap_holds)
{
    struct geul_context *ctx = geul_context_new(NULL);
    const char *name;
    struct geul_host_kernel k;
    bool supported, seen[16] = {false};
    for (int i = 0; i < 16 && geul_cpu_variant(i, &name, &supported); i++) {
        struct geul_device *device = cpu_device(ctx, name, 1);
        REQUIRE(device);
        seen[i] = supported;
        for (int j = 0; geul_host_kernel_at(device, j, &k); j++) {
            if (strcmp(k.instruction_set, "none") == 0)
                continue;
            int at = 0;
            const char *other;
            while (geul_cpu_variant(at, &other, &supported) && strcmp(other, k.instruction_set) != 0)
                at++;
            CHECK_MSG(at <= i && seen[at], "%s: slot %s comes from %s", name, k.slot, k.instruction_set);
        }
        geul_device_close(ctx, device);
    }
    geul_context_free(ctx);
}

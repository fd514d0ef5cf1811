/* cpu_detect.c: which instruction sets can be used, and the table of kernels they make together.
 *
 * On x86-64 two must agree. CPUID says what the processor can execute. XGETBV reads XCR0, the register state that the
 * operating system saves and restores when it switches threads: where that leaves out the upper halves of the YMM or
 * ZMM registers, as in some virtual machines and old kernels, their instructions fault, whatever CPUID says. On aarch64
 * the kernel reports in its hwcaps what may be used. */
#include "backends/cpu/cpu_detect.h"

#include <stdio.h>
#include <string.h>

#if defined(__x86_64__)
#include <cpuid.h>
#define IF_ANY(...) __VA_ARGS__
#define IF_X86(...) __VA_ARGS__
#define IF_ARM(...)
#elif defined(__aarch64__)
#include <sys/auxv.h>
#define IF_ANY(...) __VA_ARGS__
#define IF_X86(...)
#define IF_ARM(...) __VA_ARGS__
#else
#define IF_ANY(...) __VA_ARGS__
#define IF_X86(...)
#define IF_ARM(...)
#endif

static bool has_scalar(void)
{
    return true;
}

#if defined(__x86_64__)
enum { LEAF7_EBX, LEAF7_ECX, LEAF7_EAX1 };

/* XCR0: the register state that the operating system saves. 0 without OSXSAVE (leaf 1, ECX bit 27), where XGETBV itself
 * would be an illegal instruction. */
static uint64_t saved_state(void)
{
    unsigned a, b, c, d;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & (1u << 27)))
        return 0;
    uint32_t low, high;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return (uint64_t)high << 32 | low;
}

/* EBX or ECX of leaf 7.0, or EAX of leaf 7.1; 0 where there is no such leaf (processors return zeros for a subleaf that
 * they lack). */
static unsigned leaf7(int which)
{
    unsigned a, b, c, d;
    if (!__get_cpuid_count(7, which == LEAF7_EAX1, &a, &b, &c, &d))
        return 0;
    return which == LEAF7_EBX ? b : which == LEAF7_ECX ? c : a;
}

static bool has_avx2(void)
{
    const unsigned fma = 1u << 12, f16c = 1u << 29, avx = 1u << 28, avx2 = 1u << 5;
    const uint64_t sse_and_avx_state = 0x6; /* bit 1: XMM, bit 2: upper halves of YMM */
    unsigned a, b, c, d;
    return __get_cpuid(1, &a, &b, &c, &d) && (c & fma) && (c & f16c) && (c & avx) && (leaf7(LEAF7_EBX) & avx2) &&
           (saved_state() & sse_and_avx_state) == sse_and_avx_state;
}

static bool has_avx512(void)
{
    const unsigned f = 1u << 16, dq = 1u << 17, bw = 1u << 30, vl = 1u << 31, all = f | dq | bw | vl;
    const uint64_t zmm_state = 0xe6; /* also bit 5: mask registers, 6: upper halves of ZMM0..15, 7: ZMM16..31 */
    return has_avx2() && (leaf7(LEAF7_EBX) & all) == all && (saved_state() & zmm_state) == zmm_state;
}

static bool has_avx512vnni(void)
{
    return has_avx512() && (leaf7(LEAF7_ECX) & (1u << 11));
}

static bool has_avx512bf16(void)
{
    return has_avx512() && (leaf7(LEAF7_EAX1) & (1u << 5));
}
#endif

#if defined(__aarch64__)
static bool has_neon(void)
{
    return true; /* part of the base architecture */
}

static bool has_neon_dot(void)
{
    const unsigned long asimddp = 1ul << 20;
    return getauxval(AT_HWCAP) & asimddp;
}

static bool has_neon_i8mm(void)
{
    const unsigned long i8mm = 1ul << 13;
    return has_neon_dot() && (getauxval(AT_HWCAP2) & i8mm);
}
#endif

static const struct {
    const char *name;
    const struct geul_cpu_kernels *kernels;
    bool (*supported)(void);
} variants[] = {
#define VARIANT(name, family, meaning) IF_##family({#name, &geul_cpu_kernels_##name, has_##name}, )
#include "backends/cpu/variants.def"
#undef VARIANT
};
enum { N_VARIANTS = sizeof variants / sizeof variants[0] };

const struct geul_cpu_kernels *geul_cpu_variant(int i, const char **name, bool *supported)
{
    if (i < 0 || i >= N_VARIANTS)
        return NULL;
    *name = variants[i].name;
    *supported = variants[i].supported();
    return variants[i].kernels;
}

const char *geul_cpu_slot_name(enum geul_cpu_slot slot)
{
    static const char *const names[] = {
#define KERNEL(name, returns, arguments, meaning) #name,
#define TYPED(family, type, meaning)              #family " " #type,
#include "backends/cpu/kernels.def"
#undef KERNEL
#undef TYPED
    };
    return names[slot];
}

const char *geul_cpu_slot_meaning(enum geul_cpu_slot slot)
{
    static const char *const meanings[] = {
#define KERNEL(name, returns, arguments, meaning) meaning,
#define TYPED(family, type, meaning)              meaning,
#include "backends/cpu/kernels.def"
#undef KERNEL
#undef TYPED
    };
    return meanings[slot];
}

/* Takes over every slot that `from` fills. A dot gives the bits of the panel of its own table only, and one token must
 * have the bits of many: so a new panel removes the dot, before the table adds its own, if it has one. */
static void overlay(struct geul_cpu_choice *choice, const struct geul_cpu_kernels *from, const char *name)
{
    for (int type = 0; type < GEUL_TYPE_COUNT; type++)
        if (from->panel[type])
            choice->kernels.dot[type] = NULL;
#define TAKE(field, slot)                                                                                              \
    if (from->field) {                                                                                                 \
        choice->kernels.field = from->field;                                                                           \
        choice->variant[GEUL_CPU_SLOT_##slot] = name;                                                                  \
    }
#define KERNEL(name, returns, arguments, meaning) TAKE(name, name)
#define TYPED(family, type, meaning)              TAKE(family[GEUL_TYPE_##type], family##_##type)
#include "backends/cpu/kernels.def"
#undef KERNEL
#undef TYPED
#undef TAKE
}

enum geul_status geul_cpu_choose(struct geul_context *ctx, const char *cap, struct geul_cpu_choice *choice)
{
    int last = cap ? -1 : N_VARIANTS - 1; /* -1: cap is not found yet */
    char known[256] = "";
    for (int i = 0; i < N_VARIANTS; i++) {
        if (cap && strcmp(cap, variants[i].name) == 0)
            last = i;
        size_t used = strlen(known);
        snprintf(known + used, sizeof known - used, "%s%s", i ? ", " : "", variants[i].name);
    }
    if (last < 0)
        return geul_fail(ctx, GEUL_ERROR_ARGUMENT,
                         "GEUL_CPU is \"%.64s\", which is not an instruction set of this build; use one of %s", cap,
                         known);
    memset(choice, 0, sizeof *choice);
    for (int i = 0; i < GEUL_CPU_SLOT_COUNT; i++)
        choice->variant[i] = "none";
    /* A capped name that this machine lacks is no error: the cap only limits what is used. */
    for (int i = 0; i <= last; i++)
        if (variants[i].supported())
            overlay(choice, variants[i].kernels, variants[i].name);
    return GEUL_OK;
}

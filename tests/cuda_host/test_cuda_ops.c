/* test_cuda_ops.c: the cases of every operation (tests/backends/op_frame.h) on the CUDA backend, its kernels on the
 * CPU: posing as a card of 7.5 and of 9.0, with exact sums and without, with the same bits in lock step and with a warp
 * that runs ahead. */
#include "tests/cuda_host/host_card.h"

/* Whether every node of the operation must have a kernel; those of training may run on the CPU. */
static bool is_needed(enum geul_op op)
{
    return op <= GEUL_OP_CROSS_ENTROPY;
}

static void check_card(const char *name, bool exact)
{
    host_card_name = name;
    const struct device_kind kind = host_card_kind();
    for (int op = GEUL_OP_LEAF + 1; op < GEUL_OP_COUNT; op++) {
        int unsupported = check_device_op(&kind, (enum geul_op)op, exact);
        const char *what = geul_op_info((enum geul_op)op)->name;
        if (is_needed((enum geul_op)op))
            CHECK_MSG(unsupported == 0, "%s: %d computations of %s have no kernel", name, unsupported, what);
        else if (unsupported)
            printf("  %s: %d computations of %s are left to the CPU\n", name, unsupported, what);
    }
    host_card_check();
}

TEST(cuda_ops_sm_75)
{
    check_card("sm_75", false);
}

TEST(cuda_ops_sm_75_exact)
{
    check_card("sm_75", true);
}

TEST(cuda_ops_sm_90)
{
    check_card("sm_90", false);
}

TEST(cuda_ops_sm_90_exact)
{
    check_card("sm_90", true);
}

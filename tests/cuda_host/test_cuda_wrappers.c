/* test_cuda_wrappers.c: what warp.h lists, on the rig. */
#include "tests/cuda_host/wrapper_checks.h"
#include "tests/harness.h"

#include "tests/cuda_host/cuda_rig.h"

static void check_wrapper(const struct wrapper_check *check)
{
    _Alignas(16) uint32_t in[WRAPPER_WORDS] = {0}, out[WRAPPER_WORDS] = {0};
    struct cuda_stream stream = {0};
    wrapper_check_fill(check, in);
    CHECK_LAUNCH(check->launch(&stream, in, out));
    int wrong = wrapper_check_compare(check, in, out);
    CHECK_MSG(wrong < 0, "%s: word %d is %08x", check->name, wrong, out[wrong < 0 ? 0 : wrong]);
    CHECK_INT(stream.launches, 1);
}

TEST(cuda_wrappers_do_what_they_say)
{
    for (EACH_SCHEDULE(s))
        for (int i = 0; wrapper_check_at(i); i++)
            check_wrapper(wrapper_check_at(i));
}

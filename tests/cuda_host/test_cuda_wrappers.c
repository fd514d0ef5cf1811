/* test_cuda_wrappers.c: what warp.h lists, on the rig. */
#include "tests/cuda_host/wrapper_checks.h"
#include "tests/harness.h"

TEST(cuda_wrappers_do_what_they_say)
{
    for (int i = 0; wrapper_check_at(i); i++) {
        const struct wrapper_check *check = wrapper_check_at(i);
        _Alignas(16) uint32_t in[WRAPPER_WORDS] = {0}, out[WRAPPER_WORDS] = {0};
        struct cuda_stream stream = {0};
        wrapper_check_fill(check, in);
        int error = check->launch(&stream, in, out);
        CHECK_MSG(error == 0, "%s: error %d", check->name, error);
        int wrong = wrapper_check_compare(check, in, out);
        CHECK_MSG(wrong < 0, "%s: word %d is %08x", check->name, wrong, out[wrong < 0 ? 0 : wrong]);
        CHECK_INT(stream.launches, 1);
    }
}

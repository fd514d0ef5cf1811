/* host_card.c: see host_card.h. */
#include "tests/cuda_host/host_card.h"

#include "tests/cuda_host/cuda_rig.h"
#include "tests/cuda_host/host_gpu.h"

const char *host_card_name = "sm_90";

struct geul_device *host_card_open(struct geul_context *ctx)
{
    host_gpu_machine(host_card_name);
    return geul_backend_cuda.open(ctx, 0, 0);
}

static const enum cuda_host_schedule schedules[] = {CUDA_HOST_LOCK_STEP, CUDA_HOST_LAST_AHEAD};

static const char *go_over(int way)
{
    cuda_host_schedule(schedules[way]);
    return cuda_host_schedule_name((int)schedules[way]);
}

struct device_kind host_card_kind(void)
{
    return (struct device_kind){host_card_name, host_card_open, sizeof schedules / sizeof *schedules, go_over};
}

void host_card_check(void)
{
    CHECK_STR(host_gpu_misuse(), "");
    CHECK_STR(cuda_host_failure(), "");
    cuda_host_schedule(CUDA_HOST_LOCK_STEP);
}

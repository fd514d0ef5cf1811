/* fuzz_checkpoint.c: any bytes as the checkpoint of a run that is to be resumed: of an adapter and of all weights. What
 * is refused changes nothing; from what is accepted, training goes on. The model is the seed fuzz_model/plain, so run
 * this from the root of the source. */
#include "tests/fuzz/frame.h"

#include <string.h>

enum { FULL, LORA, N_RUNS };

static struct geul_context *ctx;
static struct geul_dataset *samples;
static struct geul_trainer *runs[N_RUNS];

static void start(void)
{
    static const int32_t ids[] = {1, 2, 3, 4, 5, 6, 7, 0};
    ctx = geul_context_new(NULL);
    samples = geul_dataset_new(ctx);
    for (int i = 0; i < 4; i++)
        if (geul_dataset_add(samples, ids, NULL, 8 - i) != GEUL_OK)
            abort();
    for (int i = 0; i < N_RUNS; i++) {
        struct geul_train_options o = geul_train_options_default();
        geul_train_options_set_optimizer(&o, i == FULL ? GEUL_OPTIMIZER_SGD : GEUL_OPTIMIZER_ADAMW);
        o.model_path = "tests/fuzz/seeds/fuzz_model/plain";
        o.n_threads = 1;
        o.lora.rank = i == LORA;
        o.lora.alpha = 2;
        o.lora.targets = GEUL_LORA_QKV;
        o.steps = 1000;
        runs[i] = geul_trainer_new(ctx, &o, samples);
        if (!runs[i]) {
            fprintf(stderr, "%s\n", geul_error(ctx));
            abort();
        }
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char path[64], note[4000];
    if (!ctx)
        start();
    fuzz_file(data, size, path);
    for (int i = 0; i < N_RUNS; i++) {
        size_t n = 0;
        int64_t before = geul_trainer_steps_done(runs[i]);
        enum geul_status status = geul_trainer_load(runs[i], path, false, note, &n);
        if (n > sizeof note || (status != GEUL_OK && geul_trainer_steps_done(runs[i]) != before))
            abort();
        /* a run that is done has no step left */
        if (status == GEUL_OK && geul_trainer_steps_done(runs[i]) < geul_trainer_total_steps(runs[i]))
            geul_trainer_step(runs[i], NULL);
    }
    return 0;
}

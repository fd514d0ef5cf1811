/* training.c: the training interface in sixty lines: an adapter for the model in argv[1] from the questions and
 * answers in argv[2], one pair a line with a tab between them, into argv[3].
 *
 *     cc training.c $(pkg-config --cflags --libs geul) -o training
 *     ./training share/geul-mini.gguf pairs.tsv adapter.gguf */
#include <geul.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

static struct geul_trainer *running;

static void stop(int signal_number)
{
    (void)signal_number;
    geul_trainer_cancel(running);
}

/* Every line of the file as a sample in the koalpaca template. */
static enum geul_status read_pairs(struct geul_context *ctx, struct geul_dataset *data, const char *model_path, FILE *f)
{
    struct geul_tokenizer *tok = geul_tokenizer_load(ctx, model_path, NULL);
    struct geul_template *form = geul_template_new(ctx, "koalpaca");
    enum geul_status status = tok && form && f ? GEUL_OK : GEUL_ERROR_ARGUMENT;
    char line[4096], *tab;
    while (status == GEUL_OK && fgets(line, sizeof line, f)) {
        line[strcspn(line, "\n")] = '\0';
        if (!(tab = strchr(line, '\t')))
            continue;
        *tab = '\0';
        status = geul_dataset_add_answer(data, tok, form, line, NULL, tab + 1, false);
    }
    geul_template_free(form);
    geul_tokenizer_free(tok);
    return status;
}

int main(int argc, char **argv)
{
    struct geul_context *ctx = geul_context_new(NULL);
    struct geul_dataset *data = geul_dataset_new(ctx);
    struct geul_train_options how = geul_train_options_default();
    struct geul_train_report step;
    FILE *f = argc == 4 ? fopen(argv[2], "r") : NULL;
    if (f && read_pairs(ctx, data, argv[1], f) == GEUL_OK) {
        how.model_path = argv[1];
        how.lora.rank = 8;
        how.rate = 2e-4f;
        how.n_context = 256;
        running = geul_trainer_new(ctx, &how, data);
        signal(SIGINT, stop);
        while (running && geul_trainer_steps_done(running) < geul_trainer_total_steps(running) &&
               geul_trainer_step(running, &step) == GEUL_OK)
            printf("step %lld: loss %.4f\n", (long long)step.step, step.loss);
        if (running && !geul_error(ctx)[0])
            geul_trainer_export(running, argv[3], GEUL_TYPE_F32);
    }
    bool failed = !f || geul_error(ctx)[0];
    if (failed)
        fprintf(stderr, "training MODEL.gguf PAIRS.tsv ADAPTER.gguf: %s\n", geul_error(ctx));
    geul_trainer_free(running);
    geul_dataset_free(data);
    geul_context_free(ctx);
    return failed;
}

/* train_args.c: see train_args.h. */
#include "command/learn/train_args.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static const char *const precisions[] = {"bf16", "f32", NULL};
static const char *const recomputes[] = {"light", "full", "none", "auto", NULL}; /* enum geul_recompute, then auto */
static const char *const switches[] = {"on", "off", NULL};
static const char *const optimizers[] = {"adamw", "adamw8", "adafactor", "sgd", NULL}; /* enum geul_optimizer */
static const char *const schedules[] = {"cosine", "linear", "constant", "wsd", NULL};  /* enum geul_rate_schedule */
static const char *const troubles[] = {"rewind", "skip", "ignore", NULL};

#define FIELD(name) offsetof(struct geul_train_args, name)
const struct geul_option geul_train_option_rows[] = {
    {.kind = GEUL_OPTION_TEXT,
     .names = "-o, --output",
     .value = "DIR",
     .offset = FIELD(output),
     .help = "where checkpoints, logs and the result go",
     .required = true},
    {GEUL_OPTION_INT, "-t, --threads", "N", FIELD(n_threads), "threads, 0: one per core", 0, 1024, NULL, NULL, false},
    {GEUL_OPTION_INT, "-c, --ctx-size", "N", FIELD(n_context),
     "tokens of a sample at most, 0: as many as the model has", 0, 1 << 20, NULL, NULL, false},
    {GEUL_OPTION_INT, "-b, --batch-size", "N", FIELD(n_batch),
     "samples computed together; with packing as many as fit N times -c tokens", 1, 1 << 16, NULL, NULL, false},
    {GEUL_OPTION_INT, "--accumulate", "N", FIELD(n_accumulate), "batches that a step learns from", 1, 1 << 16, NULL,
     NULL, false},
    {GEUL_OPTION_REAL, "--epochs", "X", FIELD(epochs), "passes over the data", 0.001, 1e6, NULL, NULL, false},
    {GEUL_OPTION_INT, "--steps", "N", FIELD(steps), "steps in all, instead of --epochs", 0, 1 << 30, NULL, NULL, false},
    {GEUL_OPTION_CHOICE, "--packing", "on|off", FIELD(packing),
     "puts several samples into a row; they do not see each other", 0, 0, switches, NULL, false},
    {GEUL_OPTION_REAL, "--lr", "X", FIELD(rate), "learning rate, 0: what suits the kind of training", 0, 100, NULL,
     NULL, false},
    {GEUL_OPTION_CHOICE, "--schedule", "NAME", FIELD(schedule), "how the rate falls", 0, 0, schedules, NULL, false},
    {GEUL_OPTION_INT, "--warmup", "N", FIELD(warmup), "steps over which the rate rises, -1: 3 % of all", -1, 1 << 30,
     NULL, NULL, false},
    {GEUL_OPTION_REAL, "--lr-floor", "X", FIELD(rate_floor), "what the rate ends at, as a share of --lr", 0, 1, NULL,
     NULL, false},
    {GEUL_OPTION_REAL, "--wsd-decay", "X", FIELD(decay_share), "wsd: share of the steps over which the rate falls", 0,
     1, NULL, NULL, false},
    {GEUL_OPTION_CHOICE, "--optimizer", "NAME", FIELD(optimizer), "adamw8 keeps its states in 8 bits", 0, 0, optimizers,
     NULL, false},
    {GEUL_OPTION_REAL, "--beta1", "X", FIELD(beta1), "first moment (sgd: momentum), -1: 0.9", -1, 1, NULL, NULL, false},
    {GEUL_OPTION_REAL, "--beta2", "X", FIELD(beta2), "second moment, -1: 0.95 (adafactor: exponent -0.8)", -10, 1, NULL,
     NULL, false},
    {GEUL_OPTION_REAL, "--epsilon", "X", FIELD(epsilon), "-1: 1e-8 (adafactor: 1e-3)", -1, 1, NULL, NULL, false},
    {GEUL_OPTION_REAL, "--weight-decay", "X", FIELD(weight_decay),
     "of matrices, never of biases and norms; -1: 0.1, adapters 0", -1, 1000, NULL, NULL, false},
    {GEUL_OPTION_REAL, "--clip", "X", FIELD(clip), "largest norm of the gradient, 0: any", 0, 1e9, NULL, NULL, false},
    {GEUL_OPTION_REAL, "--label-smoothing", "X", FIELD(smoothing), "0: off", 0, 0.999, NULL, NULL, false},
    {GEUL_OPTION_REAL, "--z-loss", "X", FIELD(z_loss), "0: off; 1e-4 is usual", 0, 1000, NULL, NULL, false},
    {GEUL_OPTION_CHOICE, "--precision", "TYPE", FIELD(precision),
     "of products; weights and sums are float32 either way", 0, 0, precisions, NULL, false},
    {GEUL_OPTION_CHOICE, "--recompute", "WHEN", FIELD(recompute),
     "activations that are computed again instead of kept: light, full or none; auto: full when memory is short", 0, 0,
     recomputes, NULL, false},
    {GEUL_OPTION_SEED, "-s, --seed", "N", FIELD(seed), "of the order of samples and all other chance", 0, 0, NULL, NULL,
     false},
    {GEUL_OPTION_INT, "--eval-every", "N", FIELD(evaluate_every), "steps between looks at held-out data, 0: never", -1,
     1 << 30, NULL, NULL, false},
    {GEUL_OPTION_INT, "--save-every", "N", FIELD(save_every), "steps between checkpoints, 0: only at the end", -1,
     1 << 30, NULL, NULL, false},
    {GEUL_OPTION_INT, "--sample-every", "N", FIELD(sample_every), "steps between texts that the model writes, 0: never",
     -1, 1 << 30, NULL, NULL, false},
    {GEUL_OPTION_INT, "--keep", "N", FIELD(keep), "checkpoints that are kept", 1, 1 << 20, NULL, NULL, false},
    {GEUL_OPTION_CHOICE, "--on-trouble", "WHAT", FIELD(on_trouble),
     "a loss or gradient far off: skip leaves the step out, rewind also goes back to the last checkpoint when it lasts",
     0, 0, troubles, NULL, false},
    {GEUL_OPTION_FLAG, "--resume", NULL, FIELD(resume), "goes on from the newest checkpoint in -o", 0, 0, NULL, NULL,
     false},
    {GEUL_OPTION_FLAG, "--plan", NULL, FIELD(plan), "only tells what memory and time the run will take", 0, 0, NULL,
     NULL, false},
    {GEUL_OPTION_INT, "--preview", "N", FIELD(preview),
     "only prints N samples as they are learned, with what is masked marked", 0, 1 << 20, NULL, NULL, false},
    {GEUL_OPTION_FLAG, "-v, --verbose", NULL, FIELD(verbose), "notes on stderr", 0, 0, NULL, NULL, false},
    {.kind = GEUL_OPTION_END},
};

/* The place of word in a list that has it. */
static int index_of(const char *const *list, const char *word)
{
    int i = 0;
    while (list[i + 1] && strcmp(list[i], word) != 0)
        i++;
    return i;
}

struct geul_train_options geul_train_args_options(const struct geul_train_args *a)
{
    struct geul_train_options o = geul_train_options_default();
    bool factored = strcmp(a->optimizer, "adafactor") == 0;
    o.n_threads = a->n_threads;
    o.n_context = a->n_context;
    o.n_batch = a->n_batch;
    o.n_accumulate = a->n_accumulate;
    o.packing = strcmp(a->packing, "on") == 0;
    o.precision = strcmp(a->precision, "f32") == 0 ? GEUL_PRECISION_F32 : GEUL_PRECISION_BF16;
    int recompute = index_of(recomputes, a->recompute);
    o.recompute = recompute <= GEUL_RECOMPUTE_NONE ? (enum geul_recompute)recompute : GEUL_RECOMPUTE_LIGHT;
    o.optimizer = (enum geul_optimizer)index_of(optimizers, a->optimizer);
    o.schedule = (enum geul_rate_schedule)index_of(schedules, a->schedule);
    o.rate = a->rate;
    o.rate_floor = a->rate_floor;
    o.decay_share = a->decay_share;
    o.warmup = a->warmup;
    o.beta1 = a->beta1 < 0 ? 0.9f : a->beta1;
    o.beta2 = a->beta2 != -1 ? a->beta2 : factored ? -0.8f : 0.95f;
    o.epsilon = a->epsilon >= 0 ? a->epsilon : factored ? 1e-3f : 1e-8f;
    o.weight_decay = a->weight_decay < 0 ? 0.1f : a->weight_decay;
    o.clip = a->clip;
    o.smoothing = a->smoothing;
    o.z_loss = a->z_loss;
    o.steps = a->steps;
    o.epochs = (double)a->epochs;
    o.seed = a->seed.value;
    return o;
}

void geul_settings_add(struct geul_settings *s, const char *name, const char *format, ...)
{
    va_list args;
    char *value = s->text + s->used;
    size_t room = sizeof s->text - s->used;
    va_start(args, format);
    int n = vsnprintf(value, room, format, args);
    va_end(args);
    if (n < 0 || (size_t)n >= room || s->n == GEUL_SETTINGS_MAX)
        return;
    s->used += (size_t)n + 1;
    s->rows[s->n++] = (struct geul_journal_setting){name, value};
}

void geul_settings_of(struct geul_settings *s, const struct geul_train_options *o, int64_t steps)
{
    geul_settings_add(s, "model", "%s", o->model_path);
    if (o->lora.rank) {
        geul_settings_add(s, "adapter", "rank %d, alpha %g, dropout %g%s", o->lora.rank, (double)o->lora.alpha,
                          (double)o->lora.dropout, o->lora.rslora ? ", rank-stabilized" : "");
        geul_settings_add(s, "targets", "%s%s%s%s", o->lora.targets & GEUL_LORA_QKV ? "qkv " : "",
                          o->lora.targets & GEUL_LORA_OUT ? "out " : "", o->lora.targets & GEUL_LORA_UP ? "up " : "",
                          o->lora.targets & GEUL_LORA_DOWN ? "down" : "");
    }
    geul_settings_add(s, "precision", "%s", o->precision == GEUL_PRECISION_F32 ? "f32" : "bf16");
    geul_settings_add(s, "context", "%d", o->n_context);
    geul_settings_add(s, "batch", "%d%s x %d", o->n_batch, o->packing ? " packed" : "", o->n_accumulate);
    geul_settings_add(s, "optimizer", "%s, beta %g and %g, epsilon %g", optimizers[o->optimizer], (double)o->beta1,
                      (double)o->beta2, (double)o->epsilon);
    geul_settings_add(s, "weight decay", "%g", (double)o->weight_decay);
    geul_settings_add(s, "clip", "%g", (double)o->clip);
    geul_settings_add(s, "learning rate", "%g, %s to %g of it", (double)o->rate, schedules[o->schedule],
                      (double)o->rate_floor);
    geul_settings_add(s, "warm-up", "%lld", (long long)o->warmup);
    geul_settings_add(s, "steps", "%lld", (long long)steps);
    if (o->smoothing > 0 || o->z_loss > 0)
        geul_settings_add(s, "loss", "smoothing %g, z %g", (double)o->smoothing, (double)o->z_loss);
    geul_settings_add(s, "seed", "%llu", (unsigned long long)o->seed);
}

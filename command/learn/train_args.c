/* train_args.c: see train_args.h. */
#include "command/learn/train_args.h"

#include "command/report.h"

#include "models/neox.h"

#include <ctype.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static const char *const precisions[] = {"bf16", "f32", NULL};
static const char *const recomputes[] = {"light", "full", "none", "auto", NULL}; /* enum geul_recompute, then auto */
static const char *const packings[] = {"auto", "on", "off", NULL};
static const char *const schedules[] = {"cosine", "linear", "constant", "wsd", NULL}; /* enum geul_rate_schedule */
static const char *const troubles[] = {"rewind", "skip", "ignore", NULL};

static const char *const optimizers[] = {
#define OPTIMIZER(id, name, title, state0, state1, beta1, beta2, epsilon, weight_decay) name,
#include "geul_optimizers.def"
#undef OPTIMIZER
    NULL};

/* Help that names the default optimizer's values, and what the rows of the others note. */
#define HYPER(usual, least, most, note, meaning) note
static const char beta1_help[] = "first moment"
#define OPTIMIZER(id, name, title, state0, state1, beta1, beta2, epsilon, weight_decay) beta1
#include "geul_optimizers.def"
#undef OPTIMIZER
                                 ", -1: 0.9";
static const char beta2_help[] = "second moment, -1: 0.95"
#define OPTIMIZER(id, name, title, state0, state1, beta1, beta2, epsilon, weight_decay) beta2
#include "geul_optimizers.def"
#undef OPTIMIZER
    ;
static const char epsilon_help[] = "-1: 1e-8"
#define OPTIMIZER(id, name, title, state0, state1, beta1, beta2, epsilon, weight_decay) epsilon
#include "geul_optimizers.def"
#undef OPTIMIZER
    ;
static const char decay_help[] = "of matrices, never of biases and norms, decoupled from the gradient as in "
                                 "torch.optim.AdamW; -1: 0.1, adapters 0"
#define OPTIMIZER(id, name, title, state0, state1, beta1, beta2, epsilon, weight_decay) weight_decay
#include "geul_optimizers.def"
#undef OPTIMIZER
    ;
#undef HYPER

#define SETTINGS struct geul_train_args
/* clang-format off */
const struct geul_option geul_train_option_rows[] = {
    REQUIRED_PATH("-o, --output",      output,         "DIR", DIR, "where checkpoints, logs and the result go"),
    OPTION_INT(   "-t, --threads",     n_threads,      0, 1024, "threads, 0: one per core"),
    OPTION_INT(   "-c, --ctx-size",    n_context,      0, 1 << 20,
                  "most tokens of a sample, 0: the model's context, or what the longest sample needs"),
    OPTION_INT(   "-b, --batch-size",  n_batch,        0, 1 << 16,
                  "samples computed together; with packing as many as fit into N times -c tokens; 0: chosen by the number of samples"),
    OPTION_INT(   "--accumulate",      n_accumulate,   1, 1 << 16, "batches whose gradients each step adds up"),
    OPTION_REAL(  "--epochs",          epochs,         0, 1e6,
                  "passes over the data, 0: chosen by the number of samples"),
    OPTION_INT(   "--steps",           steps,          0, 1 << 30, "steps in all, instead of --epochs"),
    OPTION_CHOICE("--packing",         packing,        "WHEN", packings,
                  "on puts several samples into a row, where they do not attend to each other; off; auto: on unless the batch is chosen"),
    OPTION_REAL(  "--lr",              rate,           0, 100,
                  "learning rate, 0: a default for the kind of training and the model's width"),
    OPTION_CHOICE("--schedule",        schedule,       "NAME", schedules, "how the rate falls"),
    OPTION_INT(   "--warmup",          warmup,         -1, 1 << 30, "steps over which the rate rises, -1: 3 % of all"),
    OPTION_REAL(  "--lr-floor",        rate_floor,     0, 1, "final rate, as a share of --lr"),
    OPTION_REAL(  "--wsd-decay",       decay_share,    0, 1, "wsd: share of the steps over which the rate falls"),
    OPTION_CHOICE("--optimizer",       optimizer,      "NAME", optimizers, "adamw8 keeps its states in 8 bits"),
    OPTION_REAL(  "--beta1",           beta1,          -1, 1, beta1_help),
    OPTION_REAL(  "--beta2",           beta2,          -10, 1, beta2_help),
    OPTION_REAL(  "--epsilon",         epsilon,        -1, 1, epsilon_help),
    OPTION_REAL(  "--weight-decay",    weight_decay,   -1, 1000, decay_help),
    OPTION_REAL(  "--clip",            clip,           0, 1e9, "largest norm of the gradient, 0: no limit"),
    OPTION_REAL(  "--label-smoothing", smoothing,      0, 0.999, "0: off"),
    OPTION_REAL(  "--z-loss",          z_loss,         0, 1000, "0: off; 1e-4 is usual"),
    OPTION_CHOICE("--precision",       precision,      "TYPE", precisions,
                  "of products; weights and sums are float32 either way"),
    OPTION_CHOICE("--recompute",       recompute,      "WHEN", recomputes,
                  "activations to recompute instead of keeping them: light, full or none; auto: full when memory "
                  "is short"),
    OPTION_SEED(  "-s, --seed",        seed,           "of the order of samples and everything else random"),
    OPTION_INT(   "--eval-every",      evaluate_every, -1, 1 << 30, "steps between evaluations on held-out data, 0: never"),
    OPTION_INT(   "--save-every",      save_every,     -1, 1 << 30, "steps between checkpoints, 0: only at the end"),
    OPTION_INT(   "--sample-every",    sample_every,   -1, 1 << 30,
                  "steps between texts that the model writes, 0: never"),
    OPTION_INT(   "--keep",            keep_newest,    1, 1 << 20, "number of checkpoints to keep"),
    OPTION_CHOICE("--on-trouble",      on_trouble,     "WHAT", troubles,
                  "on a loss or gradient far from the usual: skip leaves the step out, rewind also returns to the last checkpoint when the trouble lasts"),
    OPTION_FLAG(  "--resume",          resume,         "continues from the newest checkpoint in -o"),
    OPTION_FLAG(  "--plan",            plan,           "only estimates memory and time of the run"),
    OPTION_INT(   "--preview",         preview,        0, 1 << 20,
                  "only prints N samples as the training sees them, with masked tokens marked"),
    OPTION_FLAG(  "-v, --verbose",     verbose,        "notes on stderr"),
    OPTION_END,
};
/* clang-format on */

/* The index of word in a list that has it. */
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
    o.n_threads = a->n_threads;
    o.n_context = a->n_context;
    o.n_batch = a->n_batch;
    o.n_accumulate = a->n_accumulate;
    o.packing = strcmp(a->packing, "off") != 0;
    o.precision = strcmp(a->precision, "f32") == 0 ? GEUL_PRECISION_F32 : GEUL_PRECISION_BF16;
    int recompute = index_of(recomputes, a->recompute);
    o.recompute = recompute <= GEUL_RECOMPUTE_NONE ? (enum geul_recompute)recompute : GEUL_RECOMPUTE_LIGHT;
    geul_train_options_set_optimizer(&o, (enum geul_optimizer)index_of(optimizers, a->optimizer));
    o.schedule = (enum geul_rate_schedule)index_of(schedules, a->schedule);
    o.rate = a->rate;
    o.rate_floor = a->rate_floor;
    o.decay_share = a->decay_share;
    o.warmup = a->warmup;
    o.beta1 = a->beta1 < 0 ? o.beta1 : a->beta1;
    o.beta2 = a->beta2 == -1 ? o.beta2 : a->beta2;
    o.epsilon = a->epsilon < 0 ? o.epsilon : a->epsilon;
    o.weight_decay = a->weight_decay < 0 ? o.weight_decay : a->weight_decay;
    o.clip = a->clip;
    o.smoothing = a->smoothing;
    o.z_loss = a->z_loss;
    o.steps = a->steps;
    o.epochs = (double)a->epochs;
    o.seed = a->seed.value;
    return o;
}

/* Prints a word as a shell takes it back. */
static void print_quoted(const char *word)
{
    bool plain = *word != '\0';
    for (const char *c = word; *c; c++)
        plain &= (unsigned char)*c >= 0x80 || isalnum((unsigned char)*c) || strchr("_@%+=:,./-", *c);
    if (plain) {
        fputs(word, stderr);
        return;
    }
    fputc('\'', stderr);
    for (; *word; word++)
        if (*word == '\'')
            fputs("'\\''", stderr);
        else
            fputc(*word, stderr);
    fputc('\'', stderr);
}

void geul_train_args_print_resume(const struct geul_train_args *a)
{
    geul_report_note("this goes on from there:");
    fputs("  ", stderr);
    print_quoted(geul_report_program());
    for (const char *const *word = a->typed; word && *word; word++) {
        fputc(' ', stderr);
        print_quoted(*word);
    }
    fputs(a->resume ? "\n" : " --resume\n", stderr);
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

/* The adapted products: "qkv out up down". */
static void add_targets(struct geul_settings *s, unsigned bits)
{
    char text[100] = "";
    size_t n = 0;
    for (int t = 0; t < GEUL_NEOX_TARGETS && n < sizeof text; t++)
        if (bits >> t & 1)
            n += (size_t)snprintf(text + n, sizeof text - n, "%s%s", geul_neox_target_word((enum geul_neox_target)t),
                                  t < GEUL_NEOX_TARGETS - 1 ? " " : "");
    geul_settings_add(s, "targets", "%s", text);
}

void geul_settings_of(struct geul_settings *s, const struct geul_train_options *o, int64_t steps)
{
    geul_settings_add(s, "model", "%s", o->model_path);
    if (o->lora.rank) {
        geul_settings_add(s, "adapter", "rank %d, alpha %g, dropout %g%s", o->lora.rank, (double)o->lora.alpha,
                          (double)o->lora.dropout, o->lora.rslora ? ", rank-stabilized" : "");
        add_targets(s, o->lora.targets);
        if (o->lora.from)
            geul_settings_add(s, "begun from", "%s", o->lora.from);
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

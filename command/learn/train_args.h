/* train_args.h: the options that `geul train` and `geul finetune` share. */
#ifndef GEUL_TRAIN_ARGS_H
#define GEUL_TRAIN_ARGS_H

#include "command/options.h"

#include "core/context.h"
#include "geul.h"
#include "geul_tools.h"

struct geul_train_args {
    const char *output;
    int n_threads, n_context, n_batch, n_accumulate, steps; /* n_batch 0: to be chosen */
    float epochs;                                           /* 0: to be chosen */
    const char *precision, *recompute, *packing, *optimizer, *schedule;
    float rate, rate_floor, decay_share, beta1, beta2, epsilon, weight_decay, clip, smoothing, z_loss;
    int warmup; /* -1: 3 % of the steps */
    struct geul_seed seed;
    int evaluate_every, save_every, sample_every, keep_newest; /* -1: about 20, 10, 5 times in a run */
    const char *on_trouble;
    int preview;
    bool resume, plan, verbose;
    const char *const *typed; /* the words of the command line from the subcommand on; NULL at the end */
    bool full;                /* all weights are trained; an option of finetune's */
};
#define GEUL_TRAIN_ARGS_DEFAULT                                                                                        \
    {                                                                                                                  \
        .n_accumulate = 1, .precision = "bf16", .recompute = "auto", .packing = "auto", .optimizer = "adamw",          \
        .schedule = "cosine", .rate_floor = 0.1f, .decay_share = 0.2f, .beta1 = -1, .beta2 = -1, .epsilon = -1,        \
        .weight_decay = -1, .clip = 1, .warmup = -1, .evaluate_every = -1, .save_every = -1, .sample_every = -1,       \
        .keep_newest = 2, .on_trouble = "rewind"                                                                       \
    }
extern const struct geul_option geul_train_option_rows[];

/* The options as the library's struct. Recomputation "auto" becomes light here. */
struct geul_train_options geul_train_args_options(const struct geul_train_args *a);

/* Prints to stderr the command that goes on with a stopped run: as it was typed, quoted for a shell, with --resume. */
void geul_train_args_print_resume(const struct geul_train_args *a);

enum { GEUL_SETTINGS_MAX = 40, GEUL_SETTINGS_TEXT = 2048 };
/* The settings that decide what a run learns, with their effective values. */
struct geul_settings {
    struct geul_journal_setting rows[GEUL_SETTINGS_MAX];
    int n;
    char text[GEUL_SETTINGS_TEXT]; /* the values, one after the other */
    size_t used;
};
/* Adds a setting; what does not fit is left out. */
void geul_settings_add(struct geul_settings *s, const char *name, const char *format, ...) GEUL_PRINTF(3, 4);
/* Adds those of o. */
void geul_settings_of(struct geul_settings *s, const struct geul_train_options *o, int64_t steps);

#endif

/* draft_args.c: the options of speculative decoding, and what they open. */
#include "command/chat/draft_args.h"

#include "command/report.h"

#include "core/os.h"

#define SETTINGS struct geul_draft_args

/* clang-format off */
const struct geul_option geul_draft_options[] = {
    OPTION_FLAG("--lookup",                 lookup,
                "guesses that a passage which begins like an earlier one continues like it, and checks several tokens at once; the text stays the same"),
    OPTION_PATH("-md, --model-draft",       path,   "FILE", FILE,
                "a smaller model with the same tokenizer guesses instead, or where --lookup finds nothing"),
    OPTION_INT( "--draft, --draft-max, --draft-n", n_max,  1, 64, "most tokens guessed at once"),
    OPTION_INT( "--draft-min, --draft-n-min", n_min,  0, 64, "fewer guesses are not tried"),
    OPTION_REAL("--draft-p-min",            p_min,  0, 1,
                "the draft model stops where its best token has less than this share of the probability of its two best, 0: never"),
    OPTION_FLAG("--draft-always",           always, "guesses at every step, even where it does not pay off"),
    OPTION_END,
};
/* clang-format on */

struct geul_draft_args geul_draft_args_default(void)
{
    struct geul_speculation s = geul_speculation_default();
    return (struct geul_draft_args){.n_max = s.n_max, .n_min = s.n_min, .p_min = s.p_min};
}

/* Loads the draft model and gives it a session as large as that of l. false with the reason in l->ctx. */
static bool load(const struct geul_draft_args *args, const struct geul_model_args *model, struct geul_loaded *l,
                 struct geul_drafter *out)
{
    /* What the other model has left is shared anew: the number of layers on cards, and how they are divided, was said
     * of that one. */
    struct geul_model_args draft = *model;
    draft.where.n_gpu_layers = model->where.n_gpu_layers == GEUL_LAYERS_NONE ? GEUL_LAYERS_NONE : GEUL_LAYERS_AUTO;
    draft.where.split = NULL;
    draft.adapters = (struct geul_lora_args){.plain = {.n = 0}};
    struct geul_model_options options;
    struct geul_session_options session;
    if (geul_model_args_options(&draft, l->ctx, &options, &session) != 0)
        return false;
    session.n_context = geul_session_capacity(l->session);
    out->model = geul_model_load(l->ctx, args->path, &options);
    if (!out->model)
        return false;
    out->session = geul_session_new(l->ctx, out->model, &session);
    int trained = geul_model_get_shape(out->model)->n_context;
    if (out->session && trained < session.n_context)
        geul_report_note("warning: the draft model was trained for %d positions, the context holds %d; beyond them its "
                         "guesses are poor",
                         trained, session.n_context);
    return out->session != NULL;
}

int geul_drafter_open(const struct geul_draft_args *args, const struct geul_model_args *model, struct geul_loaded *l,
                      struct geul_drafter *out)
{
    double start = geul_os_seconds();
    *out = (struct geul_drafter){.model = NULL};
    if (!args->path && !args->lookup)
        return 0;
    bool ok = !args->path || load(args, model, l, out);
    if (ok) {
        struct geul_speculation how = {
            .draft = out->session,
            .lookup = args->lookup,
            .n_max = args->n_max,
            .n_min = args->n_min,
            .p_min = args->p_min,
            .always = args->always,
        };
        out->speculator = geul_speculator_new(l->session, &how);
    }
    l->load_seconds += geul_os_seconds() - start;
    if (out->speculator)
        return 0;
    int code = geul_report_failure(l->ctx);
    geul_drafter_close(out);
    return code;
}

void geul_drafter_close(struct geul_drafter *d)
{
    geul_speculator_free(d->speculator);
    geul_session_free(d->session);
    geul_model_free(d->model);
    *d = (struct geul_drafter){.model = NULL};
}

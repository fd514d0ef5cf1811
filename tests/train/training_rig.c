/* training_rig.c: see training_rig.h. */
#include "tests/train/training_rig.h"

struct training_rig training_rig_open(void)
{
    struct training_rig r = {.ctx = geul_context_new(NULL)};
    r.tok = geul_tokenizer_load(r.ctx, test_mini_model(), NULL);
    CHECK_MSG(r.tok, "%s", geul_error(r.ctx));
    return r;
}

void training_rig_close(struct training_rig *r)
{
    geul_tokenizer_free(r->tok);
    geul_context_free(r->ctx);
}

struct sample_view sample_view(const struct training_rig *r, const struct geul_dataset *d, int64_t i)
{
    struct sample_view v = {.n = geul_dataset_length(d, i)};
    v.ids = malloc((size_t)v.n * sizeof *v.ids + 1);
    v.target = malloc((size_t)v.n * sizeof *v.target + 1);
    if (v.n)
        geul_dataset_read(d, i, v.n, v.ids, v.target);
    for (int k = 0; k < v.n; k++) {
        bool end = v.ids[k] == geul_token_end(r->tok);
        v.n_targets += v.target[k];
        v.ends += end;
        v.learned_ends += end && v.target[k];
    }
    return v;
}

void sample_view_free(struct sample_view *v)
{
    free(v->ids);
    free(v->target);
}

char *sample_text(const struct training_rig *r, const struct sample_view *v, bool learned)
{
    char *text = calloc((size_t)v->n, 64);
    size_t used = 0, n;
    for (int k = 0; k < v->n; k++) {
        if (v->target[k == 0 && v->n > 1 ? 1 : k] != learned)
            continue;
        const char *s = geul_token_text(r->tok, v->ids[k], &n);
        n = n < 64 ? n : 64;
        memcpy(text + used, s, n);
        used += n;
    }
    return text;
}

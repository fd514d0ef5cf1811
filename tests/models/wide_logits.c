/* wide_logits.c: see wide_logits.h. */
#include "tests/models/wide_logits.h"

enum { T = WIDE_TOKENS, V = WIDE_VOCAB };

void wide_tokens(int32_t *tokens)
{
    uint64_t seed = 3;
    for (int i = 0; i < T; i++)
        tokens[i] = (int32_t)(test_random(&seed) % V);
}

static bool keep(void *user, int item, const float *logits, int n_vocab)
{
    memcpy((float *)user + (size_t)item * (size_t)n_vocab, logits, (size_t)n_vocab * sizeof *logits);
    return true;
}

/* Logits (WIDE_SEQUENCES, WIDE_EACH, V) of the tokens into out. */
bool wide_run(const char *path, struct rig_options o, const int32_t *tokens, float *out)
{
    struct rig r;
    struct geul_batch_item items[T];
    for (int i = 0; i < T; i++)
        items[i] = (struct geul_batch_item){tokens[i], i / WIDE_EACH, true};
    o.n_sequences = WIDE_SEQUENCES;
    bool ok = rig_open(&r, path, o);
    ok = ok && CHECK_MSG(geul_session_eval(r.session, items, T, keep, out) == GEUL_OK, "%s", geul_error(r.ctx));
    rig_close(&r);
    return ok;
}

/* The same in double precision; free(). */
double *wide_reference(const struct wide_weights *w, const int32_t *tokens, enum wide_rounding rounding)
{
    double *all = malloc(T * V * sizeof *all);
    for (int s = 0; s < WIDE_SEQUENCES; s++) {
        double *one = wide_logits(w, tokens + s * WIDE_EACH, WIDE_EACH, rounding);
        memcpy(all + s * WIDE_OF_ONE, one, WIDE_OF_ONE * sizeof *one);
        free(one);
    }
    return all;
}

/* Whether got are the logits of rounded arithmetic. That they are to float32's digits in every sequence in which all
 * activations round alike; a wrong weight would show in all sequences, an activation that rounds otherwise in few. And
 * even then the logits are nearer to those of rounded arithmetic than these are to exact ones. */
bool wide_agrees(const float *got, const double *rounded, const double *exact)
{
    const double digits = 1e-5; /* logits are about 1.5; float32 sums of 512 products leave 5e-6 at most */
    double off = 0, effect = 0;
    int n_equal = 0;
    for (int s = 0; s < WIDE_SEQUENCES; s++) {
        double worst = 0;
        for (int i = s * WIDE_OF_ONE; i < (s + 1) * WIDE_OF_ONE; i++) {
            double d = (double)got[i] - rounded[i];
            worst = fmax(worst, fabs(d));
            off += d * d;
            effect += (rounded[i] - exact[i]) * (rounded[i] - exact[i]);
        }
        n_equal += worst <= digits;
    }
    return n_equal >= WIDE_SEQUENCES / 4 && off <= effect + T * V * digits * digits;
}

/* device_models.c: see device_models.h. */
#include "tests/models/device_models.h"

static bool keep(void *user, int item, const float *logits, int n_vocab)
{
    memcpy((float *)user + (size_t)item * (size_t)n_vocab, logits, (size_t)n_vocab * sizeof *logits);
    return true;
}

/* Logits of all tokens of a golden; free(); NULL (and a failed check) on failure. */
static float *golden_logits(const struct golden *g, const char *path, struct rig_options o)
{
    struct rig r;
    struct geul_batch_item items[128];
    float *rows = malloc((size_t)g->logits.count * sizeof *rows);
    int n = (int)g->tokens.count;
    for (int i = 0; i < n; i++)
        items[i] = (struct geul_batch_item){g->tokens.i32[i], 0, true};
    bool ok = rig_open(&r, path, o) && CHECK_MSG(geul_session_eval(r.session, items, n, keep, rows) == GEUL_OK,
                                                 "%s: %s", g->name, geul_error(r.ctx));
    rig_close(&r);
    if (ok)
        return rows;
    free(rows);
    return NULL;
}

static void check_golden(const struct golden *g, const char *path, struct rig_options o, const char *what)
{
    float *rows = golden_logits(g, path, o);
    double bound = g->f32 ? 1e-4 : 2e-2 * golden_range(g);
    double worst = rows ? test_difference(rows, g->logits.f32, g->logits.count) : NAN;
    CHECK_MSG(worst <= bound, "%s, %s: logits differ by %g of %g", g->name, what, worst, bound);
    free(rows);
}

void check_golden_logits(const struct device_division *divisions, int n)
{
    for (int i = 0; i < n_goldens; i++) {
        struct golden g;
        REQUIRE(golden_open(golden_names[i], &g));
        const char *path = golden_convert(&g, golden_type(&g));
        for (int d = 0; d < n; d++)
            check_golden(&g, path, divisions[d].o, divisions[d].what);
        golden_close(&g);
    }
}

static void check_greedy(const struct golden *g, struct rig_options o, const char *what)
{
    struct rig r;
    struct geul_sampling greedy = geul_sampling_default();
    greedy.temperature = 0;
    struct geul_generation how = {.sampling = &greedy, .max_tokens = 64, .ignore_end_token = true};
    struct geul_generation_result result;
    bool ok = rig_open(&r, golden_convert(g, GEUL_TYPE_F32), o) &&
              CHECK_MSG(geul_generate_ids(r.session, g->tokens.i32, (int)g->tokens.count, &how, &result) == GEUL_OK,
                        "%s", geul_error(r.ctx));
    if (ok) {
        CHECK_INT(result.n_generated, 64);
        for (int k = 0; k < result.n_generated; k++)
            if (!CHECK_MSG(result.tokens[k] == g->greedy.i32[k], "%s, %s: token %d is %d, expected %d", g->name, what,
                           k, result.tokens[k], g->greedy.i32[k]))
                break;
        geul_tokens_free(r.ctx, result.tokens);
        geul_text_free(r.ctx, result.text);
    }
    rig_close(&r);
}

void check_golden_texts(const struct device_division *divisions, int n)
{
    for (int i = 0; i < n_goldens; i++) {
        struct golden g;
        REQUIRE(golden_open(golden_names[i], &g));
        for (int d = 0; d < n && g.f32; d++)
            check_greedy(&g, divisions[d].o, divisions[d].what);
        golden_close(&g);
    }
}

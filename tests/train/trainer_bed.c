/* trainer_bed.c: see trainer_bed.h. */
#include "tests/train/trainer_bed.h"

const char *bed_model(const char *name)
{
    static char paths[2][1024];
    static int turn;
    struct golden g;
    turn = !turn;
    if (!golden_open(name, &g))
        return NULL;
    snprintf(paths[turn], sizeof paths[turn], "%s", golden_convert(&g, GEUL_TYPE_F32));
    golden_close(&g);
    return paths[turn];
}

struct geul_dataset *bed_data(struct geul_context *ctx, int n)
{
    struct geul_dataset *data = geul_dataset_new(ctx);
    uint64_t seed = 77;
    for (int i = 0; data && i < n; i++) {
        int32_t ids[40];
        bool target[40];
        int length = 5 + (int)(test_random(&seed) % 36);
        for (int k = 0; k < length; k++) {
            ids[k] = (int32_t)(test_random(&seed) % 60);
            target[k] = k > length / 3;
        }
        if (geul_dataset_add(data, ids, target, length) != GEUL_OK) {
            geul_dataset_free(data);
            return NULL;
        }
    }
    return data;
}

struct geul_train_options bed_options(const char *model, int rank)
{
    struct geul_train_options o = geul_train_options_default();
    o.model_path = model;
    o.n_threads = 1;
    o.lora.rank = rank;
    o.lora.alpha = 16;
    o.lora.dropout = rank ? 0.1f : 0;
    o.n_context = 32;
    o.n_batch = 2;
    o.n_accumulate = 2;
    o.rate = 1e-3f;
    o.steps = 12;
    o.seed = 3;
    return o;
}

bool bed_steps(struct geul_trainer *t, int64_t until)
{
    struct geul_train_report r;
    while (t && geul_trainer_steps_done(t) < until) {
        if (!CHECK_MSG(geul_trainer_step(t, &r) == GEUL_OK, "%s", geul_error(t->ctx)))
            return false;
        CHECK_MSG(r.outcome == GEUL_STEP_APPLIED, "step %lld: %s", (long long)r.step, r.where);
    }
    return t != NULL;
}

char *bed_values(const struct geul_trainer *t, size_t *size)
{
    char name[GEUL_MAX_NAME], *all = NULL;
    struct geul_tensor *x;
    *size = 0;
    for (int i = 0; (x = geul_params_saved(&t->params, i, name)); i++) {
        size_t bytes = geul_tensor_bytes(x);
        all = realloc(all, *size + bytes);
        CHECK(geul_tensor_read(x, all + *size, bytes) == GEUL_OK);
        *size += bytes;
    }
    return all;
}

enum geul_status bed_use(struct geul_trainer *t, struct geul_dataset *data, const char *path)
{
    struct geul_train_report r;
    double loss;
    enum geul_status status = geul_trainer_step(t, &r);
    if (status == GEUL_OK)
        status = geul_trainer_evaluate(t, data, &loss);
    if (status == GEUL_OK)
        status = geul_trainer_save(t, path, "note", 4);
    if (status == GEUL_OK)
        status = geul_trainer_load(t, path, false, NULL, NULL);
    if (status == GEUL_OK)
        status = geul_trainer_step(t, &r);
    return status == GEUL_OK ? geul_trainer_export(t, path, GEUL_TYPE_F16) : status;
}

void check_same_trainer(const struct geul_trainer *a, const struct geul_trainer *b, const char *what)
{
    char name[GEUL_MAX_NAME];
    struct geul_tensor *x;
    int n = 0;
    CHECK_INT(a->step, b->step);
    CHECK_INT(a->batcher.position, b->batcher.position);
    for (; (x = geul_params_saved(&a->params, n, name)); n++) {
        struct geul_tensor *y = geul_params_saved(&b->params, n, name);
        size_t bytes = geul_tensor_bytes(x);
        if (!CHECK_MSG(y && geul_tensor_bytes(y) == bytes, "%s: %s is another", what, name))
            return;
        char *v = malloc(bytes), *w = malloc(bytes);
        CHECK(geul_tensor_read(x, v, bytes) == GEUL_OK && geul_tensor_read(y, w, bytes) == GEUL_OK);
        CHECK_MSG(memcmp(v, w, bytes) == 0, "%s: %s is not the same", what, name);
        free(v);
        free(w);
    }
    CHECK(n > 0);
}

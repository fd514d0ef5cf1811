/* test_saving.c: a run that is saved and restored continues bit for bit; checkpoints of other runs and damaged ones are
 * refused; a number that is not finite changes nothing. */
#include "core/gguf.h"
#include "tests/train/trainer_bed.h"

static struct geul_trainer *open_trainer(struct geul_context *ctx, const struct geul_train_options *o,
                                         const struct geul_dataset *data)
{
    struct geul_trainer *t = geul_trainer_new(ctx, o, data);
    CHECK_MSG(t != NULL, "%s", geul_error(ctx));
    return t;
}

/* ---------------------------------------------------------------------------------- going on -- */

/* 12 steps at once, and 5 steps, a checkpoint, and 7 with another number of threads. */
static void check_going_on(const char *what, struct geul_train_options o)
{
    char path[600], note[4000];
    size_t note_bytes = 0;
    struct geul_context *ctx = geul_context_new(NULL);
    struct geul_dataset *data = bed_data(ctx, 50);
    struct geul_trainer *whole = open_trainer(ctx, &o, data), *first = open_trainer(ctx, &o, data);
    o.n_threads = 3;
    struct geul_trainer *second = open_trainer(ctx, &o, data);
    snprintf(path, sizeof path, "%s", test_scratch("half.gguf"));
    REQUIRE(bed_steps(whole, 12) && bed_steps(first, 5) && second);
    CHECK_MSG(geul_trainer_save(first, path, "a\0note", 6) == GEUL_OK, "%s", geul_error(ctx));
    check_same_trainer(first, first, what);
    CHECK(bed_steps(second, 1)); /* of what it did before, nothing may be left */
    CHECK_MSG(geul_trainer_load(second, path, false, note, &note_bytes) == GEUL_OK, "%s", geul_error(ctx));
    CHECK(note_bytes == 6 && memcmp(note, "a\0note", 6) == 0);
    check_same_trainer(first, second, what);
    CHECK(bed_steps(second, 12) && bed_steps(first, 12)); /* saving does not disturb the one that is saved */
    check_same_trainer(whole, second, what);
    check_same_trainer(whole, first, what);
    geul_trainer_free(whole);
    geul_trainer_free(first);
    geul_trainer_free(second);
    geul_dataset_free(data);
    geul_context_free(ctx);
}

TEST(saving_goes_on_bit_for_bit)
{
    static const struct {
        const char *name;
        enum geul_optimizer optimizer;
        int rank;
        enum geul_recompute recompute;
        bool packing;
        enum geul_precision precision;
        int n_accumulate;
    } runs[] = {
        {"adapter", GEUL_OPTIMIZER_ADAMW, 3, GEUL_RECOMPUTE_LIGHT, true, GEUL_PRECISION_BF16, 2},
        {"adapter, 8 bits", GEUL_OPTIMIZER_ADAMW8, 3, GEUL_RECOMPUTE_FULL, false, GEUL_PRECISION_F32, 1},
        {"all weights", GEUL_OPTIMIZER_ADAMW, 0, GEUL_RECOMPUTE_NONE, true, GEUL_PRECISION_F32, 2},
        {"all weights, 8 bits", GEUL_OPTIMIZER_ADAMW8, 0, GEUL_RECOMPUTE_FULL, true, GEUL_PRECISION_BF16, 1},
        {"all weights, adafactor", GEUL_OPTIMIZER_ADAFACTOR, 0, GEUL_RECOMPUTE_LIGHT, false, GEUL_PRECISION_F32, 1},
        {"all weights, sgd", GEUL_OPTIMIZER_SGD, 0, GEUL_RECOMPUTE_LIGHT, true, GEUL_PRECISION_F32, 2},
        {"tied, all weights", GEUL_OPTIMIZER_ADAMW, 0, GEUL_RECOMPUTE_LIGHT, true, GEUL_PRECISION_F32, 2},
        {"tied, adapter", GEUL_OPTIMIZER_ADAMW, 3, GEUL_RECOMPUTE_NONE, false, GEUL_PRECISION_F32, 1},
    };
    const struct test_kept model = test_keep(bed_model("sequential")), tied = test_keep(bed_model("tied"));
    unsigned seen = 0;
    for (size_t i = 0; i < sizeof runs / sizeof *runs; i++) {
        bool is_tied = strncmp(runs[i].name, "tied", 4) == 0;
        struct geul_train_options o = bed_options(is_tied ? tied.text : model.text, runs[i].rank);
        geul_train_options_set_optimizer(&o, runs[i].optimizer);
        o.recompute = runs[i].recompute;
        o.packing = runs[i].packing;
        o.precision = runs[i].precision;
        o.n_accumulate = runs[i].n_accumulate;
        check_going_on(runs[i].name, o);
        seen |= 1u << runs[i].optimizer;
    }
    const struct geul_optimizer_info *info;
    for (unsigned i = 0; (info = geul_optimizer_info((enum geul_optimizer)i)); i++)
        CHECK_MSG(seen >> i & 1, "%s has no row in runs[]", info->name);
}

/* Rewinding: weights and states, but not the position in the data. */
TEST(saving_keeps_the_place_when_asked)
{
    char path[600];
    struct geul_context *ctx = geul_context_new(NULL);
    struct geul_dataset *data = bed_data(ctx, 50);
    struct geul_train_options o = bed_options(bed_model("parallel"), 0);
    struct geul_trainer *t = open_trainer(ctx, &o, data), *then = open_trainer(ctx, &o, data);
    snprintf(path, sizeof path, "%s", test_scratch("before.gguf"));
    REQUIRE(bed_steps(t, 3) && bed_steps(then, 3));
    CHECK(geul_trainer_save(t, path, NULL, 0) == GEUL_OK && bed_steps(t, 7));
    int64_t position = t->batcher.position;
    size_t bytes = 1;
    CHECK_MSG(geul_trainer_load(t, path, true, NULL, &bytes) == GEUL_OK, "%s", geul_error(ctx));
    CHECK_INT(bytes, 0);
    CHECK_INT(geul_trainer_steps_done(t), 7);
    CHECK_INT(t->batcher.position, position);
    then->step = 7;
    then->batcher.position = position;
    check_same_trainer(t, then, "kept place");
    CHECK(bed_steps(t, 9) && bed_steps(then, 9));
    check_same_trainer(t, then, "after the kept place");
    geul_trainer_free(t);
    geul_trainer_free(then);
    geul_dataset_free(data);
    geul_context_free(ctx);
}

/* The checkpoint of all weights is a model, that of an adapter says what it is. */
TEST(saving_of_all_weights_is_a_model)
{
    char path[600], other[600];
    struct geul_context *ctx = geul_context_new(NULL);
    struct geul_dataset *data = bed_data(ctx, 50);
    struct geul_train_options o = bed_options(bed_model("parallel"), 0);
    struct geul_trainer *t = open_trainer(ctx, &o, data), *from;
    snprintf(path, sizeof path, "%s", test_scratch("all.gguf"));
    snprintf(other, sizeof other, "%s", test_scratch("part.gguf"));
    REQUIRE(bed_steps(t, 3));
    CHECK(geul_trainer_save(t, path, "x", 1) == GEUL_OK);
    double trained, loaded;
    o.model_path = path;
    CHECK(geul_trainer_evaluate(t, data, &trained) == GEUL_OK);
    from = open_trainer(ctx, &o, data); /* a new run that begins with these weights */
    REQUIRE(from != NULL);
    CHECK_INT(geul_trainer_steps_done(from), 0);
    CHECK(geul_trainer_evaluate(from, data, &loaded) == GEUL_OK && loaded == trained);
    CHECK(geul_trainer_save(from, other, NULL, 0) == GEUL_OK); /* and its checkpoint is its own */
    size_t bytes = 1;
    CHECK(geul_trainer_load(from, other, false, NULL, &bytes) == GEUL_OK && bytes == 0);
    geul_trainer_free(from);
    o = bed_options(bed_model("parallel"), 2);
    from = open_trainer(ctx, &o, data);
    REQUIRE(from != NULL);
    CHECK(geul_trainer_save(from, other, NULL, 0) == GEUL_OK);
    CHECK(!geul_model_load(ctx, other, NULL));
    printf("  %s\n", geul_error(ctx));
    CHECK(strstr(geul_error(ctx), "part.gguf"));
    geul_trainer_free(from);
    geul_trainer_free(t);
    geul_dataset_free(data);
    geul_context_free(ctx);
}

/* ---------------------------------------------------------------------------------- refusing -- */

/* Loads what does not belong to t: it must say `part`, and t must stay as it is. */
static void check_refused(struct geul_trainer *t, const char *path, const char *what, const char *part)
{
    size_t size, after;
    char *before = bed_values(t, &size), *now;
    int64_t step = t->step;
    enum geul_status status = geul_trainer_load(t, path, false, NULL, NULL);
    printf("  %s: %s\n", what, geul_error(t->ctx));
    CHECK_MSG(status != GEUL_OK && strstr(geul_error(t->ctx), part), "%s: \"%s\" is not in \"%s\"", what, part,
              geul_error(t->ctx));
    now = bed_values(t, &after);
    CHECK_MSG(size == after && memcmp(before, now, size) == 0 && t->step == step, "%s: it changed the trainer", what);
    free(before);
    free(now);
}

TEST(saving_of_another_run_is_refused)
{
    static const char *const parts[] = {"was trained with adamw, not with sgd",
                                        "was trained with seed 3, not 4",
                                        "another scale of its adapter",
                                        "blk.0.attn_qkv.weight.lora_a",
                                        "holds 48 tensors, not 24",
                                        "another scale of its adapter",
                                        "blk.0.attn_qkv.weight.lora_a",
                                        "is not a checkpoint of a training run"};
    char path[600];
    struct geul_context *ctx = geul_context_new(NULL);
    struct geul_dataset *data = bed_data(ctx, 50);
    const char *model = bed_model("parallel"), *foreign = bed_model("odd_sizes");
    struct geul_train_options o = bed_options(model, 4), others[8];
    struct geul_trainer *t = open_trainer(ctx, &o, data);
    snprintf(path, sizeof path, "%s", test_scratch("run.gguf"));
    REQUIRE(bed_steps(t, 2) && geul_trainer_save(t, path, NULL, 0) == GEUL_OK);
    geul_trainer_free(t);
    for (int i = 0; i < 8; i++)
        others[i] = o;
    others[0].optimizer = GEUL_OPTIMIZER_SGD;
    others[1].seed = 4;
    others[2].lora.rank = 8; /* alpha as it was */
    others[3].lora.rank = 8;
    others[3].lora.alpha *= 2; /* the scale is the same, the matrices are not */
    others[4].lora.targets = GEUL_LORA_QKV | GEUL_LORA_UP;
    others[5].lora.rank = 0;
    others[6].model_path = foreign;
    for (int i = 0; i < 8; i++) {
        t = open_trainer(ctx, &others[i], data);
        REQUIRE(bed_steps(t, 1));
        check_refused(t, i == 7 ? model : path, parts[i], parts[i]);
        geul_trainer_free(t);
    }
    geul_dataset_free(data);
    geul_context_free(ctx);
}

/* Every length a file can be cut to, with a stride, and every byte of its head changed. */
TEST(saving_damaged_is_refused_or_harmless)
{
    char path[600], bad[600];
    size_t size;
    struct geul_context *ctx = geul_context_new(NULL);
    struct geul_dataset *data = bed_data(ctx, 50);
    struct geul_train_options o = bed_options(bed_model("parallel"), 1);
    struct geul_trainer *t = open_trainer(ctx, &o, data);
    snprintf(path, sizeof path, "%s", test_scratch("run.gguf"));
    snprintf(bad, sizeof bad, "%s", test_scratch("bad.gguf"));
    REQUIRE(bed_steps(t, 2) && geul_trainer_save(t, path, "note", 4) == GEUL_OK);
    char *whole = test_slurp(path, &size), *changed = malloc(size);
    REQUIRE(whole && changed);
    int cut = 0, refused = 0, taken = 0;
    for (size_t n = 0; n < size; n += 1 + size / 60, cut++) {
        REQUIRE(test_spill(bad, whole, n));
        CHECK_MSG(geul_trainer_load(t, bad, false, NULL, NULL) != GEUL_OK, "cut to %zu of %zu bytes", n, size);
        CHECK(strstr(geul_error(ctx), "bad.gguf") != NULL);
    }
    for (size_t at = 0; at < 1500; at += 3) {
        memcpy(changed, whole, size);
        changed[at] = (char)(changed[at] ^ 0x41);
        REQUIRE(test_spill(bad, changed, size));
        if (geul_trainer_load(t, bad, false, NULL, NULL) == GEUL_OK)
            taken++; /* a byte of the note, of padding or of a number that means nothing here */
        else
            refused += CHECK(geul_error(ctx)[0] != '\0');
    }
    printf("  %zu bytes: cut %d times; of 500 changed bytes of the head %d were refused, %d did nothing\n", size, cut,
           refused, taken);
    CHECK(refused > 300);
    free(whole);
    free(changed);
    geul_trainer_free(t);
    geul_dataset_free(data);
    geul_context_free(ctx);
}

/* -------------------------------------------------------------------------------- not finite -- */

/* Writes v into the first value of a weight. */
static float poke(struct geul_tensor *w, float v)
{
    float old, *values = malloc(geul_tensor_bytes(w));
    CHECK(geul_tensor_read(w, values, geul_tensor_bytes(w)) == GEUL_OK);
    old = values[0];
    values[0] = v;
    CHECK(geul_tensor_write(w, values, geul_tensor_bytes(w)) == GEUL_OK);
    free(values);
    return old;
}

static void check_poisoned(int rank, enum geul_optimizer optimizer, int n_accumulate, float v)
{
    char path[600], name[128];
    struct geul_train_report r;
    struct geul_context *ctx = geul_context_new(NULL);
    struct geul_dataset *data = bed_data(ctx, 50);
    struct geul_train_options o = bed_options(bed_model("sequential"), rank);
    geul_train_options_set_optimizer(&o, optimizer);
    o.n_accumulate = n_accumulate;
    struct geul_trainer *t = open_trainer(ctx, &o, data);
    snprintf(path, sizeof path, "%s", test_scratch("old.gguf"));
    REQUIRE(bed_steps(t, 3) && geul_trainer_save(t, path, NULL, 0) == GEUL_OK);
    for (int i = 1; i < t->params.n; i += 3) {
        struct geul_tensor *w = t->params.items[i].weight;
        if (strcmp(w->name, "token_embd.weight") == 0)
            continue; /* an id that the batch does not hold does no harm */
        float old = poke(w, v);
        size_t size, after;
        char *before = bed_values(t, &size);
        CHECK_MSG(geul_trainer_step(t, &r) == GEUL_OK, "%s", geul_error(ctx));
        CHECK_MSG(r.outcome == GEUL_STEP_NOT_FINITE, "%s: loss %g", w->name, r.loss);
        snprintf(name, sizeof name, "the weight %s holds NaN or infinity", w->name);
        CHECK_STR(r.where, name);
        char *now = bed_values(t, &after);
        CHECK_MSG(size == after && memcmp(before, now, size) == 0, "%s: the step changed something", w->name);
        CHECK(geul_trainer_save(t, path, NULL, 0) != GEUL_OK && strstr(geul_error(ctx), w->name));
        CHECK(strstr(geul_error(ctx), "old.gguf is not written"));
        free(before);
        free(now);
        poke(w, old);
    }
    /* Once the weight is well again, the gradients of the bad step are gone, and so does the old checkpoint load. */
    CHECK(geul_trainer_step(t, &r) == GEUL_OK && r.outcome == GEUL_STEP_APPLIED);
    CHECK(geul_trainer_load(t, path, true, NULL, NULL) == GEUL_OK);
    geul_trainer_free(t);
    geul_dataset_free(data);
    geul_context_free(ctx);
}

TEST(saving_nothing_that_is_not_finite)
{
    check_poisoned(0, GEUL_OPTIMIZER_ADAMW, 1, NAN);
    check_poisoned(0, GEUL_OPTIMIZER_ADAFACTOR, 2, INFINITY);
    check_poisoned(3, GEUL_OPTIMIZER_ADAMW8, 1, NAN);
}

/* Finite weights whose products are not: the layer is named. */
TEST(saving_names_the_layer_that_overflows)
{
    struct geul_train_report r;
    struct geul_context *ctx = geul_context_new(NULL);
    struct geul_dataset *data = bed_data(ctx, 50);
    struct geul_train_options o = bed_options(bed_model("sequential"), 0);
    struct geul_trainer *t = open_trainer(ctx, &o, data);
    REQUIRE(bed_steps(t, 2));
    struct geul_tensor *w = t->model->neox.layers[1].down_w;
    for (int64_t i = 0, n = geul_tensor_elements(w); i < n; i++)
        ((float *)w->data)[i] = 3e38f;
    CHECK(geul_trainer_step(t, &r) == GEUL_OK && r.outcome == GEUL_STEP_NOT_FINITE);
    printf("  %s\n", r.where);
    CHECK(strstr(r.where, "layer 1 overflows"));
    geul_trainer_free(t);
    geul_dataset_free(data);
    geul_context_free(ctx);
}

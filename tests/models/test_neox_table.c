/* test_neox_table.c: models/neox.def: what its rows promise each other, and that a model of a file follows them. */
#include "tests/models/golden.h"
#include "tests/models/rig.h"

enum { LAYERS = 3 };

TEST(neox_table_lists_every_tensor_once)
{
    int64_t n = geul_neox_tensor_count(LAYERS);
    int before = -1, layer;
    bool behind = false;
    for (int64_t i = 0; i < n; i++) {
        char name[GEUL_MAX_NAME], other[GEUL_MAX_NAME];
        const struct geul_neox_tensor_info *t = geul_neox_tensor_at(LAYERS, i, &layer);
        geul_neox_tensor_name(name, t, layer);
        CHECK_INT(geul_neox_layer_of(name), layer);
        CHECK_MSG(t->in_layer == (layer >= 0) && layer < LAYERS, "%s", name);
        behind = behind || (layer < 0 && before >= 0);
        CHECK_MSG(layer < 0 || (!behind && layer >= before), "%s: rows of the layers must stand together", name);
        before = layer;
        for (int64_t k = 0; k < i; k++) {
            const struct geul_neox_tensor_info *u = geul_neox_tensor_at(LAYERS, k, &layer);
            geul_neox_tensor_name(other, u, layer);
            CHECK_MSG(strcmp(name, other) != 0, "%s stands there twice", name);
        }
    }
}

TEST(neox_table_roles_are_found_by_name)
{
    const struct geul_model_shape shape = {
        .n_layers = LAYERS, .d_model = 12, .d_ff = 20, .n_heads = 3, .d_head = 4, .n_vocab = 7};
    int matrices[GEUL_NEOX_ROLES] = {0}, targets[GEUL_NEOX_TARGETS + 1] = {0}, layer;
    for (int64_t i = 0; i < geul_neox_tensor_count(1); i++) {
        char name[GEUL_MAX_NAME];
        int64_t dims[2];
        const struct geul_neox_tensor_info *t = geul_neox_tensor_at(1, i, &layer);
        geul_neox_tensor_name(name, t, layer);
        int n_dims = geul_neox_tensor_dims(t, &shape, dims);
        CHECK_MSG(dims[0] > 0 && (n_dims == 1) == (t->role == GEUL_NEOX_ROLE_PLAIN), "%s", name);
        CHECK_INT(geul_neox_role_of(name, n_dims), t->role);
        CHECK_MSG((t->word != NULL) == (t->target < GEUL_NEOX_TARGETS), "%s", name);
        CHECK_MSG(t->target == GEUL_NEOX_TARGETS || (t->in_layer && n_dims == 2), "%s cannot be adapted", name);
        CHECK_MSG(!t->by_head || dims[0] == 3 * shape.d_model, "%s has other rows than Q, K and V", name);
        matrices[t->role]++;
        targets[t->target]++;
    }
    for (int r = GEUL_NEOX_ROLE_EMBEDDING; r < GEUL_NEOX_ROLE_OTHER; r++)
        CHECK_INT(matrices[r], 1);
    for (int t = 0; t < GEUL_NEOX_TARGETS; t++)
        CHECK_INT(targets[t], 1);
}

TEST(neox_weights_follow_the_table)
{
    struct golden g;
    struct rig r;
    REQUIRE(golden_open(golden_names[0], &g));
    REQUIRE(rig_open(&r, golden_convert(&g, golden_type(&g)), (struct rig_options){.poisoned_from = -1}));
    const struct geul_neox *m = &r.model->neox;
    struct geul_tensor *weights[256];
    int n = geul_neox_weights(m, weights), layer;
    REQUIRE(n <= 256 && n == geul_neox_tensor_count(m->shape.n_layers));
    for (int i = 0; i < n; i++) {
        char name[GEUL_MAX_NAME];
        const struct geul_neox_tensor_info *t = geul_neox_tensor_at(m->shape.n_layers, i, &layer);
        geul_neox_tensor_name(name, t, layer);
        CHECK_STR(weights[i]->name, name);
        CHECK(weights[i] == geul_neox_weight(m, t, layer));
    }
    rig_close(&r);
    golden_close(&g);
}

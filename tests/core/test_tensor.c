/* Views, above all of types whose elements come in blocks: a transpose moves the dimension that counts blocks. */
#include "core/tensor.h"
#include "tests/harness.h"

TEST(tensor_views_cut_blocks_nowhere)
{
    struct geul_context *ctx = geul_context_new(NULL);
    struct geul_tensor *w = geul_input(ctx, GEUL_TYPE_Q8_0, 2, (int64_t[]){8, 64}, "w");
    struct geul_tensor *t = geul_transpose(ctx, w, 0, 1);
    REQUIRE(w && t);
    CHECK(geul_narrow(ctx, w, 1, 1, 32) == NULL);
    CHECK(geul_narrow(ctx, t, 0, 1, 1) == NULL);
    CHECK(geul_narrow(ctx, t, 0, 32, 32) != NULL);
    CHECK(geul_narrow(ctx, t, 1, 3, 2) != NULL);
    CHECK(geul_contiguous(ctx, t) == NULL);
    CHECK(geul_contiguous(ctx, geul_transpose(ctx, t, 0, 1)) != NULL);
    CHECK_INT(geul_tensor_dims(t), 2);
    CHECK_INT(geul_tensor_shape(t, -1), 8);
    CHECK_INT(geul_tensor_shape(t, 2), 0);
    CHECK_INT(geul_tensor_type(t), GEUL_TYPE_Q8_0);
    /* Rows of one block: both strides are a block's. */
    struct geul_tensor *narrow = geul_input(ctx, GEUL_TYPE_Q8_0, 2, (int64_t[]){8, 32}, "narrow");
    CHECK(geul_narrow(ctx, narrow, 0, 7, 1) != NULL);
    CHECK(geul_split_last(ctx, geul_transpose(ctx, narrow, 0, 1), 2) != NULL);
    struct geul_tensor *turned = geul_transpose(ctx, narrow, 0, 1);
    REQUIRE(turned);
    CHECK(geul_reshape(ctx, turned, 1, (int64_t[]){256}) == NULL);
    struct geul_tensor *ids = geul_input(ctx, GEUL_TYPE_I32, 1, (int64_t[]){4}, "ids");
    struct geul_tensor *rows = geul_embed(ctx, turned, ids); /* its rows do not consist of blocks */
    CHECK(!rows || !geul_layout_fits(rows));
    /* A row of blocks is not the transpose of anything. */
    struct geul_tensor *a = geul_input(ctx, GEUL_TYPE_F32, 2, (int64_t[]){2, 1}, "a");
    CHECK(geul_matmul(ctx, a, geul_input(ctx, GEUL_TYPE_Q8_0, 2, (int64_t[]){1, 32}, "b")) == NULL);
    geul_context_free(ctx);
}

TEST(tensor_narrowed_transposes_of_blocks_multiply)
{
    enum { N = 8, K = 64 };
    struct geul_context *ctx = geul_context_new(NULL);
    struct geul_runtime *rt = geul_runtime_new(ctx, &(struct geul_runtime_options){.n_threads = 1});
    REQUIRE(rt);
    struct geul_tensor *w = geul_input(ctx, GEUL_TYPE_Q8_0, 2, (int64_t[]){N, K}, "w");
    struct geul_tensor *x = geul_input(ctx, GEUL_TYPE_F32, 2, (int64_t[]){1, K}, "x");
    struct geul_tensor *whole = geul_linear(ctx, x, w, NULL, false);
    struct geul_tensor *part = geul_matmul(ctx, x, geul_narrow(ctx, geul_transpose(ctx, w, 0, 1), 1, 3, 2));
    if (CHECK_MSG(whole && part, "%s", geul_error(ctx))) {
        struct geul_graph *g = geul_graph_new(ctx, (struct geul_tensor *[]){whole, part}, 2);
        REQUIRE(g && geul_runtime_plan(rt, g) == GEUL_OK);
        float values[N * K], row[K], all[N], some[2];
        uint8_t blocks[N * K / 32 * 34];
        uint64_t seed = 7;
        for (int i = 0; i < N * K; i++)
            values[i] = test_normal(&seed);
        for (int i = 0; i < K; i++)
            row[i] = test_normal(&seed);
        geul_encode(GEUL_TYPE_Q8_0, values, blocks, N * K);
        REQUIRE(geul_tensor_write(w, blocks, sizeof blocks) == GEUL_OK);
        REQUIRE(geul_tensor_write(x, row, sizeof row) == GEUL_OK && geul_runtime_run(rt, g) == GEUL_OK);
        REQUIRE(geul_tensor_read(whole, all, sizeof all) == GEUL_OK);
        REQUIRE(geul_tensor_read(part, some, sizeof some) == GEUL_OK);
        CHECK(some[0] == all[3] && some[1] == all[4]);
    }
    geul_runtime_free(rt);
    geul_context_free(ctx);
}

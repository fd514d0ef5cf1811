/* test_batch.c: the order of samples, and how they are laid out for a step. */
#include "core/context.h"
#include "corpus/shards.h"
#include "tests/harness.h"
#include "train/batch.h"
#include "data/order.h"

TEST(order_is_a_permutation)
{
    static const int64_t sizes[] = {1, 2, 3, 4, 5, 16, 17, 63, 64, 65, 1000, 4097};
    for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++)
        for (uint64_t seed = 0; seed < 3; seed++) {
            bool *hit = calloc((size_t)sizes[s], sizeof *hit);
            int64_t fixed = 0;
            for (int64_t i = 0; i < sizes[s]; i++) {
                int64_t to = geul_permute(seed, sizes[s], i);
                if (CHECK_MSG(to >= 0 && to < sizes[s] && !hit[to], "n %d seed %d: %d goes to %d again or outside",
                              (int)sizes[s], (int)seed, (int)i, (int)to))
                    hit[to] = true;
                fixed += to == i;
            }
            CHECK_MSG(sizes[s] < 60 || fixed < 10, "n %d seed %d: %d stay where they are", (int)sizes[s], (int)seed,
                      (int)fixed);
            free(hit);
        }
    CHECK(geul_permute(1, (int64_t)1 << 40, 12345) != geul_permute(2, (int64_t)1 << 40, 12345));
}

/* Samples whose ids identify them: sample i has length ids, all of them 100 + i, after a first one. */
static struct geul_dataset *numbered(struct geul_context *ctx, int n, int length, int32_t end_at)
{
    struct geul_dataset *d = geul_dataset_new(ctx);
    for (int i = 0; i < n; i++) {
        int32_t ids[64];
        for (int k = 0; k < length; k++)
            ids[k] = k == end_at ? 2 : 100 + i;
        CHECK(geul_dataset_add(d, ids, NULL, length) == GEUL_OK);
    }
    return d;
}

static struct geul_train_options options(int n_batch, bool packing)
{
    struct geul_train_options o = geul_train_options_default();
    o.n_batch = n_batch;
    o.packing = packing;
    return o;
}

/* Two workers together read every sample of an epoch once, in an order that differs from epoch to epoch. */
TEST(batches_are_dealt_to_workers)
{
    enum { N = 10, EPOCHS = 3 };
    struct geul_context *ctx = geul_context_new(NULL);
    struct geul_dataset *d = numbered(ctx, N, 5, -1);
    int seen[EPOCHS][N] = {{0}}, order[EPOCHS][N] = {{0}};
    for (int worker = 0; worker < 2; worker++) {
        struct geul_train_options o = options(1, false);
        struct geul_batcher b;
        struct geul_batch batch;
        o.worker = worker;
        o.n_workers = 2;
        REQUIRE(geul_batcher_init(&b, ctx, d, &o, 8, 2, true));
        REQUIRE(geul_batch_init(&batch, ctx, geul_batcher_most_tokens(&b)));
        CHECK_INT(geul_batcher_epoch(&b), N / 2);
        for (int i = 0; i < EPOCHS * N / 2; i++) {
            geul_batcher_next(&b, &batch, INT64_MAX);
            CHECK_INT(batch.samples, 1);
            CHECK_INT(batch.tokens, 4);
            CHECK_INT(batch.n_targets, 4);
            seen[i / (N / 2)][batch.ids[0] - 100]++;
            order[i / (N / 2)][i % (N / 2) * 2 + worker] = batch.ids[0];
        }
        geul_batch_free(&batch, ctx);
        geul_batcher_free(&b);
    }
    for (int e = 0; e < EPOCHS; e++)
        for (int i = 0; i < N; i++)
            CHECK_INT(seen[e][i], 1);
    CHECK(memcmp(order[0], order[1], sizeof order[0]) != 0 && memcmp(order[1], order[2], sizeof order[0]) != 0);
    geul_dataset_free(d);
    geul_context_free(ctx);
}

/* Samples follow one another; positions restart at each, but not behind an end token inside: the turns of a
 * conversation see each other. */
TEST(batches_hold_whole_samples)
{
    struct geul_context *ctx = geul_context_new(NULL);
    struct geul_dataset *d = numbered(ctx, 7, 11, 4); /* 10 positions each, an end token at the fifth id */
    for (int across = 0; across < 2; across++) {
        struct geul_train_options o = options(2, true);
        struct geul_batcher b;
        struct geul_batch batch;
        o.attend_across_documents = across;
        REQUIRE(geul_batcher_init(&b, ctx, d, &o, 16, 2, false)); /* 32 positions: three samples fit */
        REQUIRE(geul_batch_init(&batch, ctx, geul_batcher_most_tokens(&b)));
        geul_batcher_next(&b, &batch, 7);
        CHECK_INT(batch.samples, 3);
        CHECK_INT(batch.tokens, 30);
        CHECK_INT(batch.n_tokens, 64);
        CHECK_INT(batch.n_rows, 64);
        CHECK(!batch.all_rows || batch.rows[63] == 63);
        for (int i = 0; i < 30; i++) {
            int k = i % 10;
            CHECK_INT(batch.seq_pos[2 * i], i / 10);
            CHECK_INT(batch.seq_pos[2 * i + 1], k);
            CHECK_INT(batch.targets[i], k + 1 == 4 ? 2 : 100 + i / 10);
            CHECK_INT(batch.rows[i], i);
        }
        for (int i = 30; i < 64; i++) /* padding attends only to itself and is not a target */
            CHECK(batch.seq_pos[2 * i + 1] == 0 && batch.targets[i] == -1);
        geul_batcher_next(&b, &batch, 7);
        CHECK_INT(batch.samples, 3);
        geul_batcher_next(&b, &batch, 7);
        CHECK_INT(batch.samples, 1);
        geul_batcher_next(&b, &batch, 7);
        CHECK_INT(batch.samples, 0);
        geul_batch_free(&batch, ctx);
        geul_batcher_free(&b);
    }
    geul_dataset_free(d);
    geul_context_free(ctx);
}

/* In windows of running text a token behind an end token attends to nothing before it, unless that is wanted. */
TEST(batches_part_documents_of_windows)
{
    struct geul_context *ctx = geul_context_new(NULL);
    struct geul_tokenizer *tok = geul_tokenizer_load(ctx, test_mini_model(), NULL);
    const int32_t ids[] = {10, 11, 2, 12, 13, 14, 2, 15};
    struct geul_shards_writer *w = tok ? geul_shards_writer_new(ctx, tok, test_scratch("text"), 100) : NULL;
    struct geul_dataset *d = geul_dataset_new(ctx);
    char path[1024];
    int files;
    REQUIRE(w && geul_shards_writer_add(w, ids, 8) == GEUL_OK && geul_shards_writer_commit(w, &files) == GEUL_OK);
    snprintf(path, sizeof path, "%s-00000.geulshard", test_scratch("text"));
    REQUIRE(CHECK_MSG(geul_dataset_add_shard(d, path, 7) == GEUL_OK, "%s", geul_error(ctx)));
    for (int across = 0; across < 2; across++) {
        static const int32_t apart[] = {0, 1, 2, 0, 1, 2, 3}, whole[] = {0, 1, 2, 3, 4, 5, 6};
        struct geul_train_options o = options(1, true);
        struct geul_batcher b;
        struct geul_batch batch;
        o.attend_across_documents = across;
        REQUIRE(geul_batcher_init(&b, ctx, d, &o, 7, 2, false));
        REQUIRE(geul_batch_init(&batch, ctx, geul_batcher_most_tokens(&b)));
        geul_batcher_next(&b, &batch, 1);
        CHECK_INT(batch.tokens, 7);
        for (int i = 0; i < 7; i++)
            CHECK_INT(batch.seq_pos[2 * i + 1], (across ? whole : apart)[i]);
        geul_batch_free(&batch, ctx);
        geul_batcher_free(&b);
    }
    geul_dataset_free(d);
    geul_tokenizer_free(tok);
    geul_context_free(ctx);
}

/* What is longer than the context is cut, and counting goes as dealing does. */
TEST(batches_cut_long_samples_and_count_like_they_deal)
{
    struct geul_context *ctx = geul_context_new(NULL);
    struct geul_dataset *d = numbered(ctx, 9, 30, -1);
    struct geul_train_options o = options(3, true);
    struct geul_batcher b, counter;
    struct geul_batch batch;
    REQUIRE(geul_batcher_init(&b, ctx, d, &o, 7, 2, true));
    REQUIRE(geul_batch_init(&batch, ctx, geul_batcher_most_tokens(&b)));
    counter = b;
    for (int i = 0; i < 5; i++) {
        geul_batcher_next(&b, &batch, INT64_MAX);
        geul_batcher_skip(&counter, INT64_MAX);
        CHECK_INT(batch.samples, 3);
        CHECK_INT(batch.tokens, 21);
        CHECK_INT(b.position, counter.position);
    }
    geul_batch_free(&batch, ctx);
    geul_batcher_free(&b);
    o.n_workers = 20;
    CHECK(!geul_batcher_init(&b, ctx, d, &o, 7, 2, true) && strstr(geul_error(ctx), "20 workers"));
    geul_dataset_free(d);
    geul_context_free(ctx);
}

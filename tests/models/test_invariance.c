/* The promise of geul_session_eval(): a token's logits depend on the tokens before it in its sequence and on nothing
 * else, to the last bit: not on how a text is cut into batches, and not on what other sequences are in them. */
#include "tests/models/rig.h"
#include "tests/models/wide_model.h"

enum { SEQUENCES = 3, V = WIDE_VOCAB, MOST = WIDE_CONTEXT, MOST_BATCH = 80 };

/* Texts, with the logits of every token when it is computed alone. */
struct texts {
    int length[SEQUENCES];
    int32_t token[SEQUENCES][MOST];
    float logits[SEQUENCES][MOST][V];
};

/* Where the logits of a batch belong, and whether they were as expected. */
struct expected {
    const struct texts *texts;
    int seq[MOST_BATCH], at[MOST_BATCH];
    int n_wrong, n_seen;
};

static bool compare(void *user, int item, const float *logits, int n_vocab)
{
    struct expected *e = user;
    const float *want = e->texts->logits[e->seq[item]][e->at[item]];
    e->n_wrong += memcmp(want, logits, (size_t)n_vocab * sizeof *logits) != 0;
    e->n_seen++;
    return true;
}

/* Random texts; the session computes them one token at a time. */
static bool compute_alone(struct geul_session *s, struct texts *t, uint64_t *seed)
{
    bool ok = true;
    for (int q = 0; q < SEQUENCES; q++)
        for (int i = 0; i < t->length[q] && ok; i++) {
            const float *logits;
            t->token[q][i] = (int32_t)(test_random(seed) % V);
            ok = geul_session_append(s, q, &t->token[q][i], 1, &logits) == GEUL_OK;
            if (ok)
                memcpy(t->logits[q][i], logits, V * sizeof *logits);
        }
    return CHECK_MSG(ok, "%s", geul_error(geul_session_context(s)));
}

/* The texts once more from the beginning, in batches of 1 to MOST_BATCH tokens: runs of tokens of one text after runs
 * of another; logits of about half of them. Returns how many were not the same; -1 on failure. */
static int count_wrong(struct geul_session *s, const struct texts *t, uint64_t *seed)
{
    struct expected e = {.texts = t};
    int done[SEQUENCES] = {0}, left = 0;
    for (int q = 0; q < SEQUENCES; q++) {
        geul_session_truncate(s, q, 0);
        left += t->length[q];
    }
    while (left > 0) {
        struct geul_batch_item items[MOST_BATCH];
        int n = 0, most = 1 + (int)(test_random(seed) % (test_random(seed) % 2 ? 8 : MOST_BATCH));
        most = most < left ? most : left;
        while (n < most) {
            int q = (int)(test_random(seed) % SEQUENCES), run = 1 + (int)(test_random(seed) % 24);
            for (; run > 0 && n < most && done[q] < t->length[q]; run--, n++) {
                items[n] = (struct geul_batch_item){t->token[q][done[q]], q, test_random(seed) % 2};
                e.seq[n] = q;
                e.at[n] = done[q]++;
            }
        }
        if (!CHECK_MSG(geul_session_eval(s, items, n, compare, &e) == GEUL_OK, "%s",
                       geul_error(geul_session_context(s))))
            return -1;
        left -= n;
    }
    return CHECK(e.n_seen > 0) ? e.n_wrong : -1;
}

/* Texts of the given lengths through the model at path in a few random ways; what: for messages. */
static void check_texts(const char *path, const char *what, struct rig_options o, const int *lengths)
{
    static struct texts texts; /* too large for a stack */
    uint64_t seed = 20261123;
    struct rig r;
    o.n_sequences = SEQUENCES;
    o.n_batch = 64; /* some batches are cut in two */
    memcpy(texts.length, lengths, sizeof texts.length);
    if (path && rig_open(&r, path, o)) {
        bool ok = compute_alone(r.session, &texts, &seed);
        for (int i = 0; i < 3 && ok; i++) {
            int wrong = count_wrong(r.session, &texts, &seed);
            ok = CHECK_MSG(wrong == 0, "%s, %s cache, %s: %d tokens have other bits beside others", what,
                           geul_type_name(o.cache), o.cpu ? o.cpu : "all instruction sets", wrong);
        }
    }
    rig_close(&r);
}

static const enum geul_type caches[] = {GEUL_TYPE_F32, GEUL_TYPE_F16, GEUL_TYPE_BF16, GEUL_TYPE_Q8_0};
enum { N_CACHES = sizeof caches / sizeof *caches };

/* Long enough that the softmax starts a new span (op_attention.c). */
TEST(invariance_of_long_texts_with_every_cache)
{
    static const enum geul_type types[] = {GEUL_TYPE_F32, GEUL_TYPE_Q4_K};
    static const int lengths[SEQUENCES] = {MOST, 70, 9};
    for (int t = 0; t < 2; t++) {
        const char *path = wide_model(types[t]);
        for (int c = 0; c < N_CACHES; c++)
            check_texts(path, geul_type_name(types[t]), (struct rig_options){.cache = caches[c], .poisoned_from = -1},
                        lengths);
    }
}

TEST(invariance_of_every_type_on_every_instruction_set)
{
    static const int lengths[SEQUENCES] = {17, 9, 4};
    for (int t = 0; t < GEUL_TYPE_COUNT; t++) {
        enum geul_type type = (enum geul_type)t;
        if (!geul_type_is_weight(type))
            continue;
        const char *path = wide_model(type);
        for (int v = 0; rig_variant(v); v++) {
            if (test_sanitized() && (t + v) % 3)
                continue; /* ten times slower; every type and every instruction set has its turn */
            check_texts(
                path, geul_type_name(type),
                (struct rig_options){.cache = caches[(t + v) % N_CACHES], .cpu = rig_variant(v), .poisoned_from = -1},
                lengths);
        }
    }
}

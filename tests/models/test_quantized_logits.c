/* Logits of every type of weights: those of float32 arithmetic on the dequantized weights, except for the rounding of
 * the activations; and the same bits for every number of threads and on the poisoned device. */
#include "tests/models/rig.h"
#include "tests/models/wide_model.h"

/* Short sequences: where a float32 error makes one activation round to the other side, that token and those behind it
 * in its sequence differ, and the other sequences do not. */
enum { SEQUENCES = 12, EACH = 3, T = SEQUENCES * EACH, V = WIDE_VOCAB, OF_ONE = EACH * V };

static void make_tokens(int32_t *tokens)
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

/* Logits (SEQUENCES, EACH, V) of the tokens into out. */
static bool run(const char *path, struct rig_options o, const int32_t *tokens, float *out)
{
    struct rig r;
    struct geul_batch_item items[T];
    for (int i = 0; i < T; i++)
        items[i] = (struct geul_batch_item){tokens[i], i / EACH, true};
    o.n_sequences = SEQUENCES;
    bool ok = rig_open(&r, path, o);
    ok = ok && CHECK_MSG(geul_session_eval(r.session, items, T, keep, out) == GEUL_OK, "%s", geul_error(r.ctx));
    rig_close(&r);
    return ok;
}

/* The same in double precision; free(). */
static double *reference(const struct wide_weights *w, const int32_t *tokens, enum wide_rounding rounding)
{
    double *all = malloc(T * V * sizeof *all);
    for (int s = 0; s < SEQUENCES; s++) {
        double *one = wide_logits(w, tokens + s * EACH, EACH, rounding);
        memcpy(all + s * OF_ONE, one, OF_ONE * sizeof *one);
        free(one);
    }
    return all;
}

/* Whether got are the logits of rounded arithmetic. That they are to float32's digits in every sequence in which all
 * activations round alike; a wrong weight would show in all sequences, an activation that rounds otherwise in few. And
 * even then the logits are nearer to those of rounded arithmetic than these are to exact ones. */
static bool agrees(const float *got, const double *rounded, const double *exact)
{
    const double digits = 1e-5; /* logits are about 1.5; float32 sums of 512 products leave 5e-6 at most */
    double off = 0, effect = 0;
    int n_equal = 0;
    for (int s = 0; s < SEQUENCES; s++) {
        double worst = 0;
        for (int i = s * OF_ONE; i < (s + 1) * OF_ONE; i++) {
            double d = (double)got[i] - rounded[i];
            worst = fmax(worst, fabs(d));
            off += d * d;
            effect += (rounded[i] - exact[i]) * (rounded[i] - exact[i]);
        }
        n_equal += worst <= digits;
    }
    return n_equal >= SEQUENCES / 4 && off <= effect + T * V * digits * digits;
}

/* What the kernels of an instruction set do to the activations that a type multiplies with. */
static enum wide_rounding rounding_of(enum geul_type type, const char *variant)
{
    if (type == GEUL_TYPE_BF16 && strcmp(variant, "avx512bf16") == 0)
        return WIDE_BF16;
    return geul_type_block(type) > 1 ? WIDE_INT8 : WIDE_EXACT;
}

TEST(quantized_logits_are_within_the_error_of_their_blocks)
{
    int32_t tokens[T];
    static float got[T * V];
    make_tokens(tokens);
    for (enum geul_type type = 0; type < GEUL_TYPE_COUNT; type++) {
        if (!geul_type_is_weight(type))
            continue;
        const char *path = wide_model(type);
        REQUIRE(path);
        struct wide_weights *w = wide_weights_read(path);
        double *want[WIDE_ROUNDINGS];
        for (int i = 0; i < WIDE_ROUNDINGS; i++)
            want[i] = reference(w, tokens, (enum wide_rounding)i);
        for (int v = 0; rig_variant(v); v++) {
            REQUIRE(run(path, (struct rig_options){.poisoned_from = -1, .cpu = rig_variant(v)}, tokens, got));
            CHECK_MSG(agrees(got, want[rounding_of(type, rig_variant(v))], want[WIDE_EXACT]),
                      "%s on %s: logits are not those of its weights", geul_type_name(type), rig_variant(v));
        }
        for (int i = 0; i < WIDE_ROUNDINGS; i++)
            free(want[i]);
        wide_weights_free(w);
    }
}

/* The test above can fail: one group of 16 weights in one row of a matrix, off by a sixteenth, shows.
 */
TEST(quantized_logits_show_one_wrong_scale)
{
    static const struct {
        const char *matrix;
        int at; /* first weight of the group */
    } cases[] = {{"output.weight", 70 * WIDE_C + 240},
                 {"blk.0.attn_qkv.weight", 5 * WIDE_C + 16},           /* of Q */
                 {"blk.1.attn_qkv.weight", 2 * WIDE_C * WIDE_C + 144}, /* of V */
                 {"blk.0.attn_output.weight", 255 * WIDE_C + 128},
                 {"blk.1.ffn_up.weight", 300 * WIDE_C + 48},
                 {"blk.0.ffn_down.weight", 17 * WIDE_F + 496}};
    int32_t tokens[T];
    static float got[T * V];
    make_tokens(tokens);
    const char *path = wide_model(GEUL_TYPE_Q4_K);
    REQUIRE(path);
    struct wide_weights *w = wide_weights_read(path);
    double *exact = reference(w, tokens, WIDE_EXACT);
    REQUIRE(run(path, (struct rig_options){.poisoned_from = -1}, tokens, got));
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        float *group = wide_weights_find(w, cases[c].matrix) + cases[c].at;
        for (int wrong = 1; wrong >= 0; wrong--) {
            float factor = wrong ? 17.0f / 16 : 16.0f / 17;
            for (int i = 0; i < 16; i++)
                group[i] *= factor;
            double *want = reference(w, tokens, WIDE_INT8);
            CHECK_MSG(agrees(got, want, exact) == !wrong, "%s: %s", cases[c].matrix, wrong ? "not seen" : "seen");
            free(want);
        }
    }
    free(exact);
    wide_weights_free(w);
}

TEST(quantized_logits_are_bit_equal_for_threads_and_devices)
{
    static const struct {
        const char *what;
        struct rig_options o;
    } cases[] = {{"2 threads", {.n_threads = 2, .poisoned_from = -1}},
                 {"3 threads, batches of 7", {.n_threads = 3, .n_batch = 7, .poisoned_from = -1}},
                 {"5 threads, batches of 5", {.n_threads = 5, .n_batch = 5, .poisoned_from = -1}},
                 {"the poisoned device", {.poisoned_from = -1, .all_poisoned = true}},
                 {"the second layer on the poisoned device", {.poisoned_from = 1}}};
    int32_t tokens[T];
    static float want[T * V], got[T * V];
    make_tokens(tokens);
    for (enum geul_type type = 0; type < GEUL_TYPE_COUNT; type++) {
        if (!geul_type_is_weight(type))
            continue;
        const char *path = wide_model(type);
        REQUIRE(path);
        for (int v = 0; rig_variant(v); v++) {
            if (test_sanitized() && ((int)type + v) % 3)
                continue; /* ten times slower; every type and every instruction set has its turn */
            REQUIRE(run(path, (struct rig_options){.poisoned_from = -1, .cpu = rig_variant(v)}, tokens, want));
            for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
                struct rig_options o = cases[c].o;
                o.cpu = rig_variant(v);
                REQUIRE(run(path, o, tokens, got));
                CHECK_MSG(memcmp(want, got, sizeof want) == 0, "%s on %s: other bits with %s", geul_type_name(type),
                          o.cpu, cases[c].what);
            }
        }
    }
}

/* Logits of every type of weights: those of float32 arithmetic on the dequantized weights, except for the rounding of
 * the activations; and the same bits for every number of threads and on the poisoned device. */
#include "tests/models/wide_logits.h"

enum { T = WIDE_TOKENS, V = WIDE_VOCAB };

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
    wide_tokens(tokens);
    for (enum geul_type type = 0; type < GEUL_TYPE_COUNT; type++) {
        if (!geul_type_is_weight(type))
            continue;
        const char *path = wide_model(type);
        REQUIRE(path);
        struct wide_weights *w = wide_weights_read(path);
        double *want[WIDE_ROUNDINGS];
        for (int i = 0; i < WIDE_ROUNDINGS; i++)
            want[i] = wide_reference(w, tokens, (enum wide_rounding)i);
        for (int v = 0; rig_variant(v); v++) {
            REQUIRE(wide_run(path, (struct rig_options){.poisoned_from = -1, .cpu = rig_variant(v)}, tokens, got));
            CHECK_MSG(wide_agrees(got, want[rounding_of(type, rig_variant(v))], want[WIDE_EXACT]),
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
    wide_tokens(tokens);
    const char *path = wide_model(GEUL_TYPE_Q4_K);
    REQUIRE(path);
    struct wide_weights *w = wide_weights_read(path);
    double *exact = wide_reference(w, tokens, WIDE_EXACT);
    REQUIRE(wide_run(path, (struct rig_options){.poisoned_from = -1}, tokens, got));
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        float *group = wide_weights_find(w, cases[c].matrix) + cases[c].at;
        for (int wrong = 1; wrong >= 0; wrong--) {
            float factor = wrong ? 17.0f / 16 : 16.0f / 17;
            for (int i = 0; i < 16; i++)
                group[i] *= factor;
            double *want = wide_reference(w, tokens, WIDE_INT8);
            CHECK_MSG(wide_agrees(got, want, exact) == !wrong, "%s: %s", cases[c].matrix, wrong ? "not seen" : "seen");
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
    wide_tokens(tokens);
    for (enum geul_type type = 0; type < GEUL_TYPE_COUNT; type++) {
        if (!geul_type_is_weight(type))
            continue;
        const char *path = wide_model(type);
        REQUIRE(path);
        for (int v = 0; rig_variant(v); v++) {
            if (test_sanitized() && ((int)type + v) % 3)
                continue; /* ten times slower; every type and every instruction set has its turn */
            REQUIRE(wide_run(path, (struct rig_options){.poisoned_from = -1, .cpu = rig_variant(v)}, tokens, want));
            for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
                struct rig_options o = cases[c].o;
                o.cpu = rig_variant(v);
                REQUIRE(wide_run(path, o, tokens, got));
                CHECK_MSG(memcmp(want, got, sizeof want) == 0, "%s on %s: other bits with %s", geul_type_name(type),
                          o.cpu, cases[c].what);
            }
        }
    }
}

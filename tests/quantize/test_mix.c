/* test_mix.c: the table of mixes: names, stand-ins for blocks that do not fit, and sizes compared with llama.cpp's. */
#include "tests/harness.h"

#include "core/tensor.h"
#include "models/neox.h"
#include "quantize/mix.h"

TEST(mix_names)
{
    CHECK_STR(geul_mix_name(geul_mix_find("Q4_K_M")), "q4_k_m");
    CHECK_STR(geul_mix_name(geul_mix_find("q4_k")), "q4_k_m");
    CHECK(geul_mix_find("q4_k_x") == NULL && geul_mix_find("") == NULL && geul_mix_find("q4_k_m ") == NULL);
    for (size_t i = 0; geul_mix_at(i); i++) {
        CHECK(geul_mix_find(geul_mix_name(geul_mix_at(i))) == geul_mix_at(i));
        for (size_t k = 0; k < i; k++)
            CHECK(geul_mix_file_type(geul_mix_at(i)) != geul_mix_file_type(geul_mix_at(k)));
    }
    CHECK_STR(geul_mix_name(geul_mix_of_type(GEUL_TYPE_Q4_K)), "q4_k_s");
    CHECK_STR(geul_mix_name(geul_mix_of_type(GEUL_TYPE_IQ4_XS)), "iq4_xs");
    CHECK_STR(geul_mix_name(geul_mix_of_type(GEUL_TYPE_F32)), "f32");
}

/* Without a mix of its name `geul quantize IN OUT TYPE` does not know a type. */
TEST(mix_of_every_type)
{
    for (enum geul_type t = 0; t < GEUL_TYPE_COUNT; t++) {
        if (!geul_type_is_weight(t))
            continue;
        bool fell_back;
        CHECK_MSG(geul_mix_find(geul_type_name(t)) != NULL, "%s has no mix", geul_type_name(t));
        CHECK_MSG(
            geul_mix_type(geul_mix_of_type(t), "blk.12.ffn_up.weight", 24, 2, (int64_t[]){256, 256}, &fell_back) == t,
            "%s has no mix that begins with it", geul_type_name(t));
    }
}

TEST(mix_parts_of_a_model)
{
    static const struct {
        const char *name;
        int n_dims;
        enum geul_neox_role role;
        int layer;
    } cases[] = {
        {"token_embd.weight", 2, GEUL_NEOX_ROLE_EMBEDDING, -1},
        {"output.weight", 2, GEUL_NEOX_ROLE_OUTPUT, -1},
        {"output_norm.weight", 1, GEUL_NEOX_ROLE_PLAIN, -1},
        {"blk.0.attn_qkv.weight", 2, GEUL_NEOX_ROLE_QKV, 0},
        {"blk.17.attn_qkv.bias", 1, GEUL_NEOX_ROLE_PLAIN, 17},
        {"blk.3.attn_output.weight", 2, GEUL_NEOX_ROLE_ATTN_OUTPUT, 3},
        {"blk.3.ffn_up.weight", 2, GEUL_NEOX_ROLE_FFN_UP, 3},
        {"blk.39.ffn_down.weight", 2, GEUL_NEOX_ROLE_FFN_DOWN, 39},
        {"blk.39.ffn_gate.weight", 2, GEUL_NEOX_ROLE_OTHER, 39},
        {"blk.x.ffn_up.weight", 2, GEUL_NEOX_ROLE_OTHER, -1},
        {"blk.99999999999999999999.ffn_up.weight", 2, GEUL_NEOX_ROLE_OTHER, -1},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        CHECK_MSG(geul_neox_role_of(cases[i].name, cases[i].n_dims) == cases[i].role, "%s", cases[i].name);
        CHECK_INT(geul_neox_layer_of(cases[i].name), cases[i].layer);
    }
}

TEST(mix_falls_back_where_blocks_do_not_fit)
{
    static const struct {
        const char *mix;
        int64_t columns;
        enum geul_type type;
    } cases[] = {
        {"q4_k_s", 512, GEUL_TYPE_Q4_K},  {"q4_k_s", 320, GEUL_TYPE_Q5_0}, {"q4_k_s", 33, GEUL_TYPE_F16},
        {"q5_k_s", 320, GEUL_TYPE_Q5_1},  {"q6_k", 320, GEUL_TYPE_Q8_0},   {"q3_k_s", 320, GEUL_TYPE_IQ4_NL},
        {"iq4_xs", 32, GEUL_TYPE_IQ4_NL}, {"q2_k", 320, GEUL_TYPE_IQ4_NL}, {"q8_0", 16, GEUL_TYPE_F16},
        {"f32", 7, GEUL_TYPE_F32},        {"q4_0", 320, GEUL_TYPE_Q4_0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        bool fell_back;
        int64_t shape[] = {64, cases[i].columns};
        enum geul_type type =
            geul_mix_type(geul_mix_find(cases[i].mix), "blk.12.ffn_up.weight", 24, 2, shape, &fell_back);
        CHECK_MSG(type == cases[i].type, "%s, rows of %d: %s", cases[i].mix, (int)cases[i].columns,
                  geul_type_name(type));
        CHECK(fell_back ==
              (cases[i].columns % 256 != 0 && strcmp(cases[i].mix, "f32") != 0 && (strcmp(cases[i].mix, "q4_0") != 0)));
    }
}

/* llama.cpp's layers that get "more bits": the first and last eighth, and every third in between. */
static bool more_bits(int i, int n)
{
    return i < n / 8 || i >= 7 * n / 8 || (i - n / 8) % 3 == 2;
}

/* What llama.cpp (0.3.36 of llama-cpp-python) gives the fused QKV and ffn_down of layer i. */
static enum geul_type llama_type(const char *mix, bool qkv, int i, int n)
{
    if (strcmp(mix, "q4_k_m") == 0)
        return more_bits(i, n) ? GEUL_TYPE_Q6_K : GEUL_TYPE_Q4_K;
    if (strcmp(mix, "q5_k_m") == 0)
        return more_bits(i, n) ? GEUL_TYPE_Q6_K : GEUL_TYPE_Q5_K;
    if (strcmp(mix, "q4_k_s") == 0)
        return i < (qkv ? 4 : n / 8) ? GEUL_TYPE_Q5_K : GEUL_TYPE_Q4_K;
    if (strcmp(mix, "q3_k_m") == 0)
        return i < (qkv ? 2 : n / 16) ? GEUL_TYPE_Q5_K : GEUL_TYPE_Q4_K;
    return strcmp(mix, "q3_k_l") == 0 ? GEUL_TYPE_Q5_K : GEUL_TYPE_Q3_K; /* q2_k */
}

static double bits(enum geul_type type)
{
    return 8 * (double)geul_type_bytes(type) / (double)geul_type_block(type);
}

/* Bits per element of one matrix of ours, times its elements in units of d^2. */
static double ours(const struct geul_mix *mix, const char *part, int i, int n, double elements)
{
    char name[64];
    bool fell_back;
    snprintf(name, sizeof name, i < 0 ? "%s" : "blk.%2$d.%1$s", part, i);
    return elements * bits(geul_mix_type(mix, name, n, 2, (const int64_t[]){256, 256}, &fell_back));
}

TEST(mix_files_are_not_larger_than_llama_cpps)
{
    static const struct {
        int n_layers;
        double embedding; /* elements in units of d^2 */
    } models[] = {{6, 15.75}, {24, 14.6875}, {32, 9.7917}, {28, 7.34375}, {40, 5.875}};
    static const struct {
        const char *name;
        enum geul_type base, attn_output;
    } mixes[] = {
        {"q4_k_m", GEUL_TYPE_Q4_K, GEUL_TYPE_Q4_K}, {"q5_k_m", GEUL_TYPE_Q5_K, GEUL_TYPE_Q5_K},
        {"q4_k_s", GEUL_TYPE_Q4_K, GEUL_TYPE_Q4_K}, {"q3_k_m", GEUL_TYPE_Q3_K, GEUL_TYPE_Q4_K},
        {"q3_k_l", GEUL_TYPE_Q3_K, GEUL_TYPE_Q5_K}, {"q2_k", GEUL_TYPE_Q2_K, GEUL_TYPE_Q3_K},
    };
    for (size_t k = 0; k < sizeof models / sizeof *models; k++)
        for (size_t m = 0; m < sizeof mixes / sizeof *mixes; m++) {
            int n = models[k].n_layers;
            const struct geul_mix *mix = geul_mix_find(mixes[m].name);
            double mine = ours(mix, "token_embd.weight", -1, n, models[k].embedding);
            double theirs = models[k].embedding * bits(mixes[m].base);
            for (int i = 0; i < n; i++) {
                mine += ours(mix, "attn_qkv.weight", i, n, 3) + ours(mix, "attn_output.weight", i, n, 1) +
                        ours(mix, "ffn_up.weight", i, n, 4) + ours(mix, "ffn_down.weight", i, n, 4);
                theirs += 3 * bits(llama_type(mixes[m].name, true, i, n)) + bits(mixes[m].attn_output) +
                          4 * bits(mixes[m].base) + 4 * bits(llama_type(mixes[m].name, false, i, n));
            }
            CHECK_MSG(mine <= theirs, "%s of %d layers: %.1f bits, llama.cpp's %.1f", mixes[m].name, n, mine, theirs);
        }
}

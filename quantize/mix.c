/* mix.c: see mix.h. docs/quantization.md has the measurements behind the rows. */
#include "quantize/mix.h"

#include "core/tensor.h"
#include "models/neox.h"

#include <string.h>

/* The layers in which a matrix gets the better of its two types. Models of fewer than eight layers have no edges and no
 * middle: there it is the first layer alone. */
enum where {
    NOWHERE,
    FIRST,  /* the first sixteenth, at least one */
    EDGES,  /* the first and the last eighth */
    SPREAD, /* the edges, and every third in between */
};

struct choice {
    enum geul_type type, better;
    enum where where;
};

struct geul_mix {
    const char *name;
    uint32_t file_type;
    struct choice choices[GEUL_NEOX_ROLES];
};

/* clang-format off */
#define T(id)              GEUL_TYPE_##id
#define ALL(a)             {T(a), T(a), NOWHERE}
#define SOME(a, b, layers) {T(a), T(b), layers}
#define MIX(name, file_type, embedding, output, qkv, attn_output, up, down)                                            \
    {name, file_type,                                                                                                  \
     {[GEUL_NEOX_ROLE_PLAIN] = ALL(F32), [GEUL_NEOX_ROLE_EMBEDDING] = embedding, [GEUL_NEOX_ROLE_OUTPUT] = output,     \
      [GEUL_NEOX_ROLE_QKV] = qkv, [GEUL_NEOX_ROLE_ATTN_OUTPUT] = attn_output, [GEUL_NEOX_ROLE_FFN_UP] = up,            \
      [GEUL_NEOX_ROLE_FFN_DOWN] = down, [GEUL_NEOX_ROLE_OTHER] = up}}
/* Every matrix of a layer alike, better in some layers. */
#define LAYERS(name, file_type, embedding, a, b, layers)                                                               \
    MIX(name, file_type, ALL(embedding), ALL(Q6_K), SOME(a, b, layers), SOME(a, b, layers), SOME(a, b, layers),        \
        SOME(a, b, layers))
#define PLAIN(name, file_type, a, output) MIX(name, file_type, ALL(a), ALL(output), ALL(a), ALL(a), ALL(a), ALL(a))

/* Sizes stay below those of llama.cpp's mixes of the same names, which give a fused QKV a better type in every layer.
 * Per weight all matrices of a layer matter alike, the first and the last layers more, the embedding about as much as
 * those, the output most. */
static const struct geul_mix mixes[] = {
    /*     file_type  embedding  output     qkv                      attn_output              ffn_up  ffn_down */
    PLAIN("f32",     0, F32, F32),
    PLAIN("bf16",   32, BF16, BF16),
    PLAIN("f16",     1, F16, F16),
    PLAIN("q8_0",    7, Q8_0, Q8_0),
    PLAIN("q6_k",   18, Q6_K, Q6_K),
    PLAIN("q5_1",    9, Q5_1, Q6_K),
    LAYERS("q5_k_m", 17, Q5_K, Q5_K, Q6_K, EDGES),
    PLAIN("q5_k_s", 16, Q5_K, Q6_K),
    PLAIN("q5_0",    8, Q5_0, Q6_K),
    PLAIN("q4_1",    3, Q4_1, Q6_K),
    LAYERS("q4_k_m", 15, Q5_K, Q4_K, Q5_K, SPREAD),
    LAYERS("q4_k_s", 14, Q4_K, Q4_K, Q5_K, FIRST),
    PLAIN("q4_0",    2, Q4_0, Q6_K),
    PLAIN("iq4_nl", 25, IQ4_NL, Q6_K),
    PLAIN("iq4_xs", 30, IQ4_XS, Q6_K),
    MIX("q3_k_l",   13, ALL(Q4_K), ALL(Q6_K), ALL(Q4_K), ALL(Q4_K), SOME(Q3_K, Q4_K, SPREAD), ALL(Q4_K)),
    MIX("q3_k_m",   12, ALL(Q4_K), ALL(Q6_K), ALL(Q4_K), ALL(Q4_K), SOME(Q3_K, Q4_K, EDGES), SOME(Q3_K, Q4_K, SPREAD)),
    PLAIN("q3_k_s", 11, Q3_K, Q6_K),
    MIX("q2_k",     10, ALL(Q3_K), ALL(Q6_K), ALL(Q3_K), ALL(Q3_K), SOME(Q2_K, Q3_K, EDGES), SOME(Q2_K, Q3_K, SPREAD)),
};
/* clang-format on */
enum { N_MIXES = sizeof mixes / sizeof *mixes };

/* Where a type's blocks do not fit a row: the type that takes its place, with smaller blocks and no fewer bits. */
static const enum geul_type stand_ins[GEUL_TYPE_COUNT] = {
    [GEUL_TYPE_Q2_K] = GEUL_TYPE_IQ4_NL, [GEUL_TYPE_Q3_K] = GEUL_TYPE_IQ4_NL, [GEUL_TYPE_IQ4_XS] = GEUL_TYPE_IQ4_NL,
    [GEUL_TYPE_Q4_K] = GEUL_TYPE_Q5_0,   [GEUL_TYPE_Q5_K] = GEUL_TYPE_Q5_1,   [GEUL_TYPE_Q6_K] = GEUL_TYPE_Q8_0,
};

/* Whether a and b are the same but for the case of ASCII letters. */
static bool same_name(const char *a, const char *b)
{
    for (; *a && *b; a++, b++) {
        char x = *a >= 'A' && *a <= 'Z' ? (char)(*a + 32) : *a, y = *b >= 'A' && *b <= 'Z' ? (char)(*b + 32) : *b;
        if (x != y)
            return false;
    }
    return *a == *b;
}

const struct geul_mix *geul_mix_find(const char *name)
{
    static const struct {
        const char *alias, *name;
    } aliases[] = {{"q3_k", "q3_k_m"}, {"q4_k", "q4_k_m"}, {"q5_k", "q5_k_m"}};
    if (!name)
        return NULL;
    for (size_t i = 0; i < sizeof aliases / sizeof *aliases; i++)
        if (same_name(aliases[i].alias, name))
            name = aliases[i].name;
    for (size_t i = 0; i < N_MIXES; i++)
        if (same_name(mixes[i].name, name))
            return &mixes[i];
    return NULL;
}

const struct geul_mix *geul_mix_of_type(enum geul_type type)
{
    const struct geul_mix *found = &mixes[0];
    for (size_t i = 0; i < N_MIXES; i++) /* the last: of mixes of one type the table has the smallest last */
        if (mixes[i].choices[GEUL_NEOX_ROLE_FFN_UP].type == type)
            found = &mixes[i];
    return found;
}

const struct geul_mix *geul_mix_at(size_t i)
{
    return i < N_MIXES ? &mixes[i] : NULL;
}

const char *geul_mix_name(const struct geul_mix *mix)
{
    return mix->name;
}

uint32_t geul_mix_file_type(const struct geul_mix *mix)
{
    return mix->file_type;
}

/* Whether layer i of n is among those that get the better type. */
static bool is_better(enum where where, int i, int n)
{
    int eighth = n / 8, sixteenth = n < 32 ? 1 : n / 16;
    if (where == NOWHERE || i < 0)
        return false;
    if (where == FIRST || n < 8) /* fewer than 8 layers: sixteenth is 1 */
        return i < sixteenth;
    return i < eighth || i >= n - eighth || (where == SPREAD && (i - eighth) % 3 == 2);
}

enum geul_type geul_mix_type(const struct geul_mix *mix, const char *tensor, int n_layers, int n_dims,
                             const int64_t *shape, bool *fell_back)
{
    const struct choice *c = &mix->choices[geul_neox_role_of(tensor, n_dims)];
    enum geul_type wanted = is_better(c->where, geul_neox_layer_of(tensor), n_layers) ? c->better : c->type;
    enum geul_type type = n_dims < 1 ? wanted : geul_mix_fitting(wanted, shape[n_dims - 1]);
    *fell_back = type != wanted;
    return type;
}

enum geul_type geul_mix_fitting(enum geul_type type, int64_t columns)
{
    if (columns % geul_type_block(type) != 0 && stand_ins[type] != GEUL_TYPE_F32)
        type = stand_ins[type];
    return columns % geul_type_block(type) == 0 ? type : GEUL_TYPE_F16;
}

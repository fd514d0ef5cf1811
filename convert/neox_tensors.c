/* neox_tensors.c: see neox_tensors.h. */
#include "convert/neox_tensors.h"

#include <stdio.h>
#include <string.h>

enum size { NONE, D, FF, QKV, V }; /* d_model, d_ff, 3 * d_model, n_vocab */
enum { IS_QKV = 1, IS_OUTPUT = 2, IS_OPTIONAL = 4 };

struct row {
    const char *hf, *alias, *gguf; /* %d is the layer */
    enum size rows, cols;
    unsigned flags;
};

static const struct row before[] = {
    {"gpt_neox.embed_in.weight", NULL, "token_embd.weight", V, D, 0},
};

#define L "gpt_neox.layers.%d."
static const struct row layer[] = {
    {L "input_layernorm.weight", NULL, "blk.%d.attn_norm.weight", D, NONE, 0},
    {L "input_layernorm.bias", NULL, "blk.%d.attn_norm.bias", D, NONE, 0},
    {L "attention.query_key_value.weight", NULL, "blk.%d.attn_qkv.weight", QKV, D, IS_QKV},
    {L "attention.query_key_value.bias", NULL, "blk.%d.attn_qkv.bias", QKV, NONE, IS_QKV | IS_OPTIONAL},
    {L "attention.dense.weight", NULL, "blk.%d.attn_output.weight", D, D, 0},
    {L "attention.dense.bias", NULL, "blk.%d.attn_output.bias", D, NONE, IS_OPTIONAL},
    {L "post_attention_layernorm.weight", NULL, "blk.%d.ffn_norm.weight", D, NONE, 0},
    {L "post_attention_layernorm.bias", NULL, "blk.%d.ffn_norm.bias", D, NONE, 0},
    {L "mlp.dense_h_to_4h.weight", NULL, "blk.%d.ffn_up.weight", FF, D, 0},
    {L "mlp.dense_h_to_4h.bias", NULL, "blk.%d.ffn_up.bias", FF, NONE, 0},
    {L "mlp.dense_4h_to_h.weight", NULL, "blk.%d.ffn_down.weight", D, FF, 0},
    {L "mlp.dense_4h_to_h.bias", NULL, "blk.%d.ffn_down.bias", D, NONE, 0},
};
#undef L

static const struct row after[] = {
    {"gpt_neox.final_layer_norm.weight", NULL, "output_norm.weight", D, NONE, 0},
    {"gpt_neox.final_layer_norm.bias", NULL, "output_norm.bias", D, NONE, 0},
    {"embed_out.weight", "lm_head.weight", "output.weight", V, D, IS_OUTPUT}, /* transformers 5 says lm_head */
};

#define COUNT(a) (sizeof(a) / sizeof *(a))

static int64_t size_of(const struct geul_neox_config *c, enum size s)
{
    const int64_t sizes[] = {1, c->d_model, c->d_ff, 3 * c->d_model, c->n_vocab};
    return sizes[s];
}

/* Copies pattern with its %d replaced by the layer. */
static void expand(char *out, size_t size, const char *pattern, int n)
{
    const char *mark = strstr(pattern, "%d");
    if (mark)
        snprintf(out, size, "%.*s%d%s", (int)(mark - pattern), pattern, n, mark + 2);
    else
        snprintf(out, size, "%s", pattern);
}

static void fill(struct geul_neox_tensor *t, const struct row *row, const struct geul_neox_config *c, int n)
{
    expand(t->hf, sizeof t->hf, row->hf, n);
    expand(t->alias, sizeof t->alias, row->alias ? row->alias : "", n);
    expand(t->gguf, sizeof t->gguf, row->gguf, n);
    t->n_dims = row->cols == NONE ? 1 : 2;
    t->shape[0] = size_of(c, row->rows);
    t->shape[1] = size_of(c, row->cols);
    t->qkv = (row->flags & IS_QKV) != 0;
    t->output = (row->flags & IS_OUTPUT) != 0;
    t->optional = (row->flags & IS_OPTIONAL) != 0;
}

struct geul_neox_tensor *geul_neox_tensor_list(struct geul_context *ctx, const struct geul_neox_config *c,
                                               size_t *count)
{
    size_t n = COUNT(before) + (size_t)c->n_layers * COUNT(layer) + COUNT(after), at = 0;
    struct geul_neox_tensor *list = geul_alloc(ctx, n, sizeof *list);
    if (!list)
        return NULL;
    for (size_t i = 0; i < COUNT(before); i++)
        fill(&list[at++], &before[i], c, 0);
    for (int l = 0; l < c->n_layers; l++)
        for (size_t i = 0; i < COUNT(layer); i++)
            fill(&list[at++], &layer[i], c, l);
    for (size_t i = 0; i < COUNT(after); i++)
        fill(&list[at++], &after[i], c, 0);
    *count = n;
    return list;
}

int64_t geul_neox_qkv_row(const void *config, int64_t r)
{
    const struct geul_neox_config *c = config;
    int64_t part = r / c->d_model, head = r % c->d_model / c->d_head, i = r % c->d_head;
    return (head * 3 + part) * c->d_head + i;
}

int64_t geul_neox_qkv_row_back(const void *config, int64_t r)
{
    const struct geul_neox_config *c = config;
    int64_t head = r / (3 * c->d_head), part = r / c->d_head % 3, i = r % c->d_head;
    return part * c->d_model + head * c->d_head + i;
}

bool geul_neox_is_buffer(const char *hf_name)
{
    static const char *const tails[] = {".attention.bias", ".attention.masked_bias", ".rotary_emb.inv_freq"};
    size_t n = strlen(hf_name);
    for (size_t i = 0; i < COUNT(tails); i++) {
        size_t k = strlen(tails[i]);
        if (n >= k && strcmp(hf_name + n - k, tails[i]) == 0)
            return true;
    }
    return false;
}

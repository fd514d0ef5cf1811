/* wide_model.c: see wide_model.h. T tokens, C width, F inner width, H heads, D of a head, V rows of the vocabulary. */
#include "tests/models/wide_model.h"

#include "core/gguf.h"
#include "core/half.h"
#include "quantize/quantize_tensors.h"

enum { C = WIDE_C, F = WIDE_F, H = WIDE_HEADS, D = C / H, V = WIDE_VOCAB };

/* The tensors of a layer, in the order of the fields of struct layer; cols 0: one dimension. */
static const struct {
    const char *name;
    int64_t rows, cols;
} layer_tensors[] = {{"attn_norm.weight", C, 0},  {"attn_norm.bias", C, 0},     {"attn_qkv.weight", 3 * C, C},
                     {"attn_qkv.bias", 3 * C, 0}, {"attn_output.weight", C, C}, {"attn_output.bias", C, 0},
                     {"ffn_norm.weight", C, 0},   {"ffn_norm.bias", C, 0},      {"ffn_up.weight", F, C},
                     {"ffn_up.bias", F, 0},       {"ffn_down.weight", C, F},    {"ffn_down.bias", C, 0}};
static const struct {
    const char *name;
    int64_t rows, cols;
} model_tensors[] = {
    {"token_embd.weight", V, C}, {"output_norm.weight", C, 0}, {"output_norm.bias", C, 0}, {"output.weight", V, C}};
enum {
    PER_LAYER = sizeof layer_tensors / sizeof *layer_tensors,
    OUTSIDE = sizeof model_tensors / sizeof *model_tensors,
    TENSORS = OUTSIDE + WIDE_LAYERS * PER_LAYER
};

/* Name and shape of tensor i; the layers come behind what is outside them. */
static const char *tensor_at(int i, int64_t *rows, int64_t *cols)
{
    static char name[64];
    int k = (i - OUTSIDE) % PER_LAYER;
    *rows = i < OUTSIDE ? model_tensors[i].rows : layer_tensors[k].rows;
    *cols = i < OUTSIDE ? model_tensors[i].cols : layer_tensors[k].cols;
    if (i < OUTSIDE)
        return model_tensors[i].name;
    snprintf(name, sizeof name, "blk.%d.%s", (i - OUTSIDE) / PER_LAYER, layer_tensors[k].name);
    return name;
}

/* Norms about 1, biases about 0, and matrices that keep the spread of what they multiply. Columns differ in spread, so
 * that the groups of a block get scales of their own. */
static float random_weight(const char *name, int64_t cols, int64_t i, uint64_t *seed)
{
    float x = test_normal(seed);
    if (cols == 0)
        return 0.1f * x + (strstr(name, "norm.weight") != NULL);
    float spread = 0.5f + (float)(i % cols / 16 * 7 % 16) / 16;
    return strcmp(name, "token_embd.weight") == 0 ? x * spread : 1.5f * x * spread / sqrtf((float)cols);
}

static bool write_model(struct geul_context *ctx, const char *path)
{
    uint64_t seed = 20261123;
    int64_t rows, cols;
    struct geul_gguf_writer *w = geul_gguf_writer_new(ctx, path);
    geul_gguf_set_string(w, "general.architecture", "gptneox", 7);
    geul_gguf_set_u32(w, "gptneox.block_count", WIDE_LAYERS);
    geul_gguf_set_u32(w, "gptneox.embedding_length", C);
    geul_gguf_set_u32(w, "gptneox.feed_forward_length", F);
    geul_gguf_set_u32(w, "gptneox.attention.head_count", H);
    geul_gguf_set_u32(w, "gptneox.context_length", WIDE_CONTEXT);
    geul_gguf_set_u32(w, "gptneox.rope.dimension_count", WIDE_ROT);
    for (int i = 0; i < TENSORS; i++) {
        const char *name = tensor_at(i, &rows, &cols);
        geul_gguf_declare_tensor(w, name, GEUL_TYPE_F32, cols ? 2 : 1, (int64_t[]){rows, cols});
    }
    for (int i = 0; i < TENSORS; i++) {
        const char *name = tensor_at(i, &rows, &cols);
        for (int64_t k = 0; k < rows * (cols ? cols : 1); k++) {
            float x = random_weight(name, cols, k, &seed);
            geul_gguf_write_data(w, &x, sizeof x);
        }
    }
    return geul_gguf_writer_commit(w) == GEUL_OK;
}

const char *wide_model(enum geul_type type)
{
    static char plain[512], typed[512];
    struct geul_context *ctx = geul_context_new(NULL);
    const struct geul_quantize_rule all = {".", type};
    const struct geul_quantize_options o = {
        .size = sizeof o, .mix = geul_mix_of_type(type), .rules = &all, .n_rules = 1, .n_threads = 2};
    bool ok = true;
    if (!plain[0]) {
        snprintf(plain, sizeof plain, "%s", test_scratch("wide.gguf"));
        snprintf(typed, sizeof typed, "%s", test_scratch("wide-typed.gguf"));
        ok = write_model(ctx, plain);
    }
    if (ok && type != GEUL_TYPE_F32) {
        struct geul_quantize *q = geul_quantize_new(ctx, plain, &o);
        ok = q && q->n_fallbacks == 0 && geul_quantize_write(q, typed) == GEUL_OK;
        geul_quantize_free(q);
    }
    CHECK_MSG(ok, "%s: %s", geul_type_name(type), geul_error(ctx));
    geul_context_free(ctx);
    return !ok ? NULL : type == GEUL_TYPE_F32 ? plain : typed;
}

/* --------------------------------------------------------------------------------- reference -- */

struct layer { /* the order of layer_tensors */
    float *norm1_w, *norm1_b, *qkv_w, *qkv_b, *out_w, *out_b, *norm2_w, *norm2_b, *up_w, *up_b, *down_w, *down_b;
};

struct wide_weights {
    float *tensor[TENSORS];
};

struct wide_weights *wide_weights_read(const char *path)
{
    struct geul_context *ctx = geul_context_new(NULL);
    struct geul_gguf *g = geul_gguf_open(ctx, path);
    struct wide_weights *w = calloc(1, sizeof *w);
    CHECK_MSG(g != NULL, "%s", geul_error(ctx));
    for (int i = 0; g && i < TENSORS; i++) {
        int64_t rows, cols;
        const struct geul_gguf_tensor *t = geul_gguf_find_tensor(g, tensor_at(i, &rows, &cols));
        int64_t n = rows * (cols ? cols : 1);
        w->tensor[i] = malloc((size_t)n * sizeof(float));
        geul_decode(t->type, t->data, w->tensor[i], n);
    }
    geul_gguf_close(g);
    geul_context_free(ctx);
    return w;
}

void wide_weights_free(struct wide_weights *w)
{
    for (int i = 0; i < TENSORS; i++)
        free(w->tensor[i]);
    free(w);
}

float *wide_weights_find(struct wide_weights *w, const char *name)
{
    int64_t rows, cols;
    for (int i = 0; i < TENSORS; i++)
        if (strcmp(tensor_at(i, &rows, &cols), name) == 0)
            return w->tensor[i];
    return NULL;
}

/* n inputs of a product as the kernels read them. */
static void round_inputs(double *x, int n, enum wide_rounding rounding)
{
    enum { BLOCK = 32 };
    for (int i = 0; i < n && rounding == WIDE_BF16; i++)
        x[i] = (double)geul_bf16_to_f32(geul_f32_to_bf16((float)x[i]));
    for (int b = 0; b < n && rounding == WIDE_INT8; b += BLOCK) {
        double largest = 0;
        for (int i = b; i < b + BLOCK; i++)
            largest = fmax(largest, fabs(x[i]));
        for (int i = b; i < b + BLOCK; i++)
            x[i] = largest > 0 ? nearbyint(x[i] * 127 / largest) * largest / 127 : 0;
    }
}

/* out (n, rows) = x (n, cols) times w (rows, cols), plus bias; x is rounded in place. */
static void product(double *out, double *x, int n, const float *w, const float *bias, int rows, int cols,
                    enum wide_rounding rounding)
{
    for (int t = 0; t < n; t++)
        round_inputs(x + t * cols, cols, rounding);
    for (int r = 0; r < rows; r++) {
        double row[F];
        for (int i = 0; i < cols; i++)
            row[i] = (double)w[r * cols + i];
        for (int t = 0; t < n; t++) {
            double sum[8] = {0};
            for (int i = 0; i < cols; i += 8)
                for (int k = 0; k < 8; k++)
                    sum[k] += row[i + k] * x[t * cols + i + k];
            double total = bias ? (double)bias[r] : 0;
            for (int k = 0; k < 8; k++)
                total += sum[k];
            out[t * rows + r] = total;
        }
    }
}

static void layernorm(double *out, const double *x, int n, const float *weight, const float *bias)
{
    for (int t = 0; t < n; t++, x += C, out += C) {
        double mean = 0, squares = 0;
        for (int i = 0; i < C; i++)
            mean += x[i] / C;
        for (int i = 0; i < C; i++)
            squares += (x[i] - mean) * (x[i] - mean) / C;
        for (int i = 0; i < C; i++)
            out[i] = (x[i] - mean) / sqrt(squares + (double)1e-5f) * (double)weight[i] + (double)bias[i];
    }
}

/* Turns Q and K of every head, in place. qkv: (T, 3C) */
static void rope(double *qkv, int n)
{
    for (int t = 0; t < n; t++)
        for (int h = 0; h < 2 * H; h++)
            for (int i = 0; i < WIDE_ROT / 2; i++) {
                double *x = qkv + t * 3 * C + h * D + i, a = x[0], b = x[WIDE_ROT / 2];
                double angle = t * pow(10000, -2.0 * i / WIDE_ROT);
                x[0] = a * cos(angle) - b * sin(angle);
                x[WIDE_ROT / 2] = b * cos(angle) + a * sin(angle);
            }
}

/* out (T, C): causal attention. */
static void attention(double *out, const double *qkv, int n)
{
    double p[WIDE_CONTEXT];
    memset(out, 0, (size_t)n * C * sizeof *out);
    for (int t = 0; t < n; t++)
        for (int h = 0; h < H; h++) {
            const double *q = qkv + t * 3 * C + h * D;
            double sum = 0;
            for (int s = 0; s <= t; s++) {
                const double *k = qkv + s * 3 * C + C + h * D;
                p[s] = 0;
                for (int i = 0; i < D; i++)
                    p[s] += q[i] * k[i];
                sum += p[s] = exp(p[s] / sqrt(D));
            }
            for (int s = 0; s <= t; s++)
                for (int i = 0; i < D; i++)
                    out[t * C + h * D + i] += p[s] / sum * qkv[s * 3 * C + 2 * C + h * D + i];
        }
}

double *wide_logits(const struct wide_weights *w, const int32_t *tokens, int n, enum wide_rounding rounding)
{
    size_t wide = (size_t)n * 3 * C;
    double *x = calloc(wide, sizeof *x), *y = calloc(wide, sizeof *y), *z = calloc(wide, sizeof *z);
    for (int i = 0; i < n * C; i++)
        x[i] = (double)w->tensor[0][tokens[i / C] * C + i % C];
    for (int k = 0; k < WIDE_LAYERS; k++) {
        struct layer l;
        memcpy(&l, &w->tensor[OUTSIDE + k * PER_LAYER], sizeof l);
        double *attended = calloc(wide, sizeof *attended), *mlp = calloc(wide, sizeof *mlp);
        layernorm(y, x, n, l.norm1_w, l.norm1_b);
        product(z, y, n, l.qkv_w, l.qkv_b, 3 * C, C, rounding);
        rope(z, n);
        attention(y, z, n);
        product(attended, y, n, l.out_w, l.out_b, C, C, rounding);
        layernorm(y, x, n, l.norm2_w, l.norm2_b);
        product(z, y, n, l.up_w, l.up_b, F, C, rounding);
        for (int i = 0; i < n * F; i++)
            z[i] = 0.5 * z[i] * erfc(-z[i] / sqrt(2));
        product(mlp, z, n, l.down_w, l.down_b, C, F, rounding);
        for (int i = 0; i < n * C; i++)
            x[i] += attended[i] + mlp[i];
        free(attended);
        free(mlp);
    }
    layernorm(y, x, n, w->tensor[1], w->tensor[2]);
    product(z, y, n, w->tensor[3], NULL, V, C, rounding);
    free(x);
    free(y);
    return z;
}

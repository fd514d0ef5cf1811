/* bench_work.c: see bench_work.h. */
#include "command/bench/bench_work.h"

#include "models/model.h"

#include <stdio.h>

static enum geul_bench_arithmetic arithmetic_of(enum geul_type type)
{
    if (geul_type_block(type) > 1)
        return GEUL_BENCH_INT8;
    return type == GEUL_TYPE_BF16 ? GEUL_BENCH_BF16 : GEUL_BENCH_F32;
}

/* Names the types of the matrices, those with the most bytes first. */
static void name_types(const double bytes[GEUL_TYPE_COUNT], char *out, size_t size)
{
    bool named[GEUL_TYPE_COUNT] = {false};
    size_t n = 0;
    out[0] = '\0';
    for (;;) {
        int most = -1;
        for (int i = 0; i < GEUL_TYPE_COUNT; i++)
            if (!named[i] && bytes[i] > 0 && (most < 0 || bytes[i] > bytes[most]))
                most = i;
        if (most < 0 || n >= size)
            return;
        named[most] = true;
        n += (size_t)snprintf(out + n, size - n, "%s%s", n ? "+" : "", geul_type_name((enum geul_type)most));
    }
}

/* Whether the product with t makes the logits: the embedding's does where the file has no matrix of its own for them,
 * and it is then read whole. */
static bool is_output(const struct geul_gguf *g, const struct geul_gguf_tensor *t)
{
    enum geul_neox_role role = geul_neox_role_of(t->name, t->n_dims);
    return role == GEUL_NEOX_ROLE_OUTPUT || (role == GEUL_NEOX_ROLE_EMBEDDING && geul_fit_tied(g));
}

static bool is_read_whole(const struct geul_gguf *g, const struct geul_gguf_tensor *t)
{
    return is_output(g, t) || geul_neox_role_of(t->name, t->n_dims) != GEUL_NEOX_ROLE_EMBEDDING;
}

void geul_bench_work_types(const struct geul_gguf *g, char *out, size_t size)
{
    double bytes[GEUL_TYPE_COUNT] = {0};
    for (int64_t i = 0; i < geul_gguf_tensor_count(g); i++) {
        const struct geul_gguf_tensor *t = geul_gguf_tensor_at(g, i);
        if (t->n_dims == 2 && is_read_whole(g, t))
            bytes[t->type] += (double)t->bytes;
    }
    name_types(bytes, out, size);
}

void geul_bench_work_count(const struct geul_gguf *g, const struct geul_model *model, int d,
                           struct geul_bench_work *work)
{
    *work = (struct geul_bench_work){.weight_bytes = 0};
    for (int64_t i = 0; i < geul_gguf_tensor_count(g); i++) {
        const struct geul_gguf_tensor *t = geul_gguf_tensor_at(g, i);
        int layer = geul_neox_layer_of(t->name);
        if (!is_read_whole(g, t) || layer >= model->neox.shape.n_layers ||
            geul_fit_device(&model->placement, model->tied, t, layer) != d)
            continue;
        work->weight_bytes += (double)t->bytes;
        if (t->n_dims != 2)
            continue;
        double macs = (double)t->shape[0] * (double)t->shape[1];
        if (is_output(g, t)) {
            work->output = arithmetic_of(t->type);
            work->output_macs = macs;
        } else {
            work->layer_macs[arithmetic_of(t->type)] += macs;
        }
    }
}

/* The multiply-adds of so many tokens, so many of them with logits. */
static struct geul_bench_amount arithmetic(const struct geul_bench_work *work, double tokens, double logits)
{
    struct geul_bench_amount amount = {.bytes = 0};
    for (int i = 0; i < GEUL_BENCH_ARITHMETICS; i++)
        amount.macs[i] = work->layer_macs[i] * tokens;
    amount.macs[work->output] += work->output_macs * logits;
    return amount;
}

struct geul_bench_amount geul_bench_prompt_amount(const struct geul_bench_work *work, int n, int n_batch, int depth,
                                                  double cache_bytes)
{
    struct geul_bench_amount amount = arithmetic(work, n, 1);
    for (int done = 0; done < n; done += n_batch) {
        int piece = n - done < n_batch ? n - done : n_batch;
        amount.bytes += work->weight_bytes + cache_bytes * (depth + done + piece);
    }
    return amount;
}

struct geul_bench_amount geul_bench_generation_amount(const struct geul_bench_work *work, int n, int parallel,
                                                      int depth, double cache_bytes)
{
    struct geul_bench_amount amount = arithmetic(work, (double)n * parallel, (double)n * parallel);
    amount.bytes = n * (work->weight_bytes + parallel * cache_bytes * (depth + (n + 1) / 2.0));
    return amount;
}

double geul_bench_least_seconds(const struct geul_bench_amount *amount, const struct geul_device_ceilings *ceilings,
                                const char **bound)
{
    static const char *const names[GEUL_BENCH_ARITHMETICS] = {"f32", "bf16", "int8"};
    const double rates[GEUL_BENCH_ARITHMETICS] = {ceilings->f32_macs_per_s, ceilings->bf16_macs_per_s,
                                                  ceilings->int8_macs_per_s};
    double read = amount->bytes > 0 ? amount->bytes / ceilings->read_bytes_per_s : 0, sum = 0, most = 0;
    *bound = "memory";
    const char *kind = *bound;
    for (int i = 0; i < GEUL_BENCH_ARITHMETICS; i++) {
        double rate = rates[i] > 0 ? rates[i] : rates[GEUL_BENCH_F32];
        double seconds = amount->macs[i] > 0 ? amount->macs[i] / rate : 0;
        sum += seconds;
        if (seconds > most) {
            most = seconds;
            kind = names[i];
        }
    }
    if (sum <= read)
        return read;
    *bound = kind;
    return sum;
}

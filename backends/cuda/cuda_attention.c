/* cuda_attention.c: ATTENTION: which of the kernels of cuda_attention.h computes a node. */
#include "backends/cuda/cuda_attention.h"
#include "backends/cuda/cuda_rope.h"

/* Crossovers. To be measured where a card is at hand (tools/gpu_check). */
enum {
    TILES_FROM = 16,   /* tokens: with fewer, a tile is mostly empty */
    TILES_EACH = 3,    /* tokens of each of the cache's sequences, if all take part: a tile does one after the other */
    ENOUGH_CHUNKS = 8, /* for each multiprocessor: heads of tokens from which on one block takes all chunks of each */
    ENOUGH_TILES = 3,  /* for each multiprocessor: as many blocks as fit on it */
    PART_LEAST = 512   /* positions of the cache that are worth one more block to a tile */
};
static const size_t most_partial = 256 << 20; /* bytes of the chunks' partial results */

static bool attention_supports(const struct cuda_card *card, const struct geul_tensor *t)
{
    (void)card;
    const enum geul_type type = t->src[1]->type;
    bool known = type == GEUL_TYPE_F32 || type == GEUL_TYPE_F16 || type == GEUL_TYPE_BF16 || type == GEUL_TYPE_Q8_0;
    return known && t->src[0]->type == GEUL_TYPE_F32 && t->src[2]->type == type && t->shape[2] <= INT32_MAX &&
           t->shape[0] <= INT32_MAX / t->shape[1];
}

/* Whether tiles are faster for a batch of so many tokens. Which sequences they are of is known on the card alone, so
 * the cache's size decides: a batch of a token for each of many sequences is no work for tiles. */
static bool wants_tiles(const struct cuda_plan *plan, const struct cuda_attention *a)
{
    const int64_t sequences = a->k.n_positions > 0 ? a->k.n_sequences : 1;
    return !plan->exact && a->n_tokens >= TILES_FROM && (sequences == 1 || a->n_tokens >= TILES_EACH * sequences) &&
           geul_cuda_attention_has_tiles(a->depth) &&
           geul_cuda_attention_tile_shared(a->depth) <= plan->card->shared_most;
}

/* Where heads and tokens are too few to fill the card, the chunks of each are divided among blocks. */
static void divide_chunks(struct cuda_plan *plan, struct cuda_attention *a)
{
    const int64_t heads = a->n_tokens * a->n_heads, positions = a->k.n_positions;
    const int64_t parts = (positions + CUDA_ATTENTION_CHUNK - 1) / CUDA_ATTENTION_CHUNK;
    size_t bytes;
    if (parts < 2 || heads >= (int64_t)ENOUGH_CHUNKS * plan->card->n_sm || parts > INT32_MAX / heads ||
        !geul_mul_size((size_t)(heads * parts), (size_t)(a->depth + 2) * sizeof(float), &bytes) || bytes > most_partial)
        return;
    a->parts = parts;
    a->partial = geul_cuda_scratch(plan, bytes, plan->at);
    a->counters = geul_cuda_zeros(plan, (size_t)heads * sizeof *a->counters);
}

/* The same for tiles: as many parts as make the card full. */
static void divide_tiles(struct cuda_plan *plan, struct cuda_attention *a)
{
    const int64_t tiles = (a->n_tokens + CUDA_ATTENTION_TILE - 1) / CUDA_ATTENTION_TILE * a->n_heads;
    int64_t parts = (int64_t)ENOUGH_TILES * plan->card->n_sm / tiles;
    if (parts > a->k.n_positions / PART_LEAST)
        parts = a->k.n_positions / PART_LEAST;
    if (parts < 2)
        return;
    a->parts = parts;
    a->partial = geul_cuda_scratch(plan, (size_t)parts * geul_cuda_attention_tile_partial(a), plan->at);
    a->counters = geul_cuda_zeros(plan, (size_t)tiles * sizeof *a->counters);
}

static void emit_attention(struct cuda_plan *plan, const struct geul_tensor *t)
{
    struct cuda_attention args = {.q = geul_cuda_heads(t->src[0]),
                                  .k = geul_cuda_cache(t->src[1]),
                                  .v = geul_cuda_cache(t->src[2]),
                                  .places = geul_cuda_places(t->src[3]),
                                  .n_tokens = t->shape[0],
                                  .n_heads = t->shape[1],
                                  .depth = t->shape[2],
                                  .scale = t->params.attention.scale,
                                  .y = t->data};
    void *block = args.depth % 32 == 0 ? geul_cuda_leave_rounded(plan, t, &args.rounded_only) : NULL;
    if (block)
        args.rounded = geul_cuda_rounded_at(block, geul_rows(t), geul_cols(t));
    if (wants_tiles(plan, &args)) {
        divide_tiles(plan, &args);
        geul_cuda_step(plan, "attention in tiles", geul_cuda_launch_attention_tiles, &args, sizeof args);
    } else if (geul_cuda_attention_has_chunks(args.k.type, args.depth)) {
        divide_chunks(plan, &args);
        geul_cuda_step(plan, "attention in chunks", geul_cuda_launch_attention_chunks, &args, sizeof args);
    } else {
        geul_cuda_step(plan, "attention, plain", geul_cuda_launch_attention_plain, &args, sizeof args);
    }
}

const struct cuda_op geul_cuda_op_ATTENTION = {.supports = attention_supports, .emit = emit_attention};

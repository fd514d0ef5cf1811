/* attention_tiles.cu: attention of many tokens, by tensor cores (attention.h).
 *
 * A block takes 64 tokens of one head, a warp 16 of them. Queries lie in shared memory as 16-bit numbers, multiplied by
 * scale and log2(e); keys and values pass by in tiles of 64 (32 at depth 256), values being copied while scores are
 * computed, and the next keys while values are summed. Softmax is the online one: sums are rescaled when a larger score
 * comes. Tokens of a block may be of several sequences: it walks through the cache once for each run of them.
 *
 * A position that is not attended to has the probability 0, but its value takes part in the product: where that is not
 * finite (a token of the same batch that came out as NaN), tokens before it in the batch become NaN too. */
#include "backends/cuda/attention.h"

#include "backends/cuda/cache_rows.h"

enum { ROWS = 64, WARPS = 4, THREADS = WARPS * WARP };

template <cuda_type type, int D> struct tile_shape {
    enum { bfloat = type == CUDA_BF16, parts = bfloat ? 2 : 1 }; /* parts of a query, and of a probability */
    enum { keys = D <= 128 ? 64 : 32, stride = 2 * D + 16 };     /* bytes of a row; eight rows lie in different banks */
    enum { bytes = (ROWS * parts + 2 * keys) * stride };
};

template <cuda_type type, int D> struct tile_memory {
    typedef tile_shape<type, D> shape;
    uint8_t q[shape::parts][ROWS * shape::stride], k[shape::keys * shape::stride], v[shape::keys * shape::stride];
};

/* What a thread has of its rows lane / 4 and lane / 4 + 8 of the warp. */
template <int D> struct row_state {
    float sum[D / 8][4], highest[2], total[2];
};

template <bool bfloat> DEVICE uint32_t pair_of(float low, float high)
{
    return bfloat ? bfloats(low, high) : halves(low, high);
}

/* What is left of x when its bfloat16 is taken away. */
DEVICE float rest_of(float x)
{
    return x - bfloat_to_float(float_to_bfloat(x));
}

template <bool bfloat> DEVICE void multiply(float d[4], const uint32_t a[4], const uint32_t b[2])
{
    if (bfloat)
        multiply_bfloat(d, a, b);
    else
        multiply_half(d, a, b);
}

/* The block's queries to shared memory; zeros behind the last token. */
template <cuda_type type, int D> DEVICE void bring_queries(const cuda_attention &a, tile_memory<type, D> &s)
{
    typedef tile_shape<type, D> shape;
    const float factor = a.scale * 1.4426950408889634f;
    for (int i = thread(); i < ROWS * D / 2; i += THREADS) {
        int row = i / (D / 2), at = i % (D / 2) * 2;
        int64_t token = (int64_t)block_x() * ROWS + row;
        float low = 0, high = 0;
        if (token < a.n_tokens) {
            const float *q = a.q.data + token * a.q.token_stride + block_y() * a.q.head_stride + at;
            low = q[0] * factor;
            high = q[1] * factor;
        }
        *(uint32_t *)(s.q[0] + row * shape::stride + 2 * at) = pair_of<shape::bfloat>(low, high);
        if constexpr (shape::parts == 2)
            *(uint32_t *)(s.q[1] + row * shape::stride + 2 * at) = pair_of<true>(rest_of(low), rest_of(high));
    }
}

/* Begins to bring positions first .. first + keys - 1 to shared memory; zeros from `end` on. */
template <cuda_type type, int D> DEVICE void bring_tile(uint8_t *to, const cache_walk &from, int first, int end)
{
    typedef tile_shape<type, D> shape;
    for (int i = thread(); i < shape::keys * (D / 8); i += THREADS) {
        int key = i / (D / 8), at = i % (D / 8) * 8, position = first + key;
        const uint8_t *row = from.first + position * from.step;
        uint8_t *place = to + key * shape::stride + 2 * at;
        if constexpr (type == CUDA_Q8_0) {
            float v[OCTET] = {};
            if (position < end)
                load_octet<type, true>(v, row, at, D);
            words4 w;
            UNROLL
            for (int j = 0; j < 4; j++)
                w.w[j] = halves(v[2 * j], v[2 * j + 1]);
            *(words4 *)place = w;
        } else {
            copy16_async(place, position < end ? row + 2 * at : from.first, position < end);
        }
    }
    copies_commit();
}

/* The warp's 16 x keys scores, in units of log2. */
template <cuda_type type, int D>
DEVICE void score_tile(const tile_memory<type, D> &s, float score[tile_shape<type, D>::keys / 8][4])
{
    typedef tile_shape<type, D> shape;
    UNROLL
    for (int n = 0; n < shape::keys / 8; n++) {
        UNROLL
        for (int j = 0; j < 4; j++)
            score[n][j] = 0;
    }
    UNROLL_4
    for (int at = 0; at < D; at += 16) {
        uint32_t q[shape::parts][4];
        UNROLL
        for (int part = 0; part < shape::parts; part++)
            load_matrices4(q[part],
                           s.q[part] + (warp_number() * 16 + lane() % 16) * shape::stride + 2 * at + lane() / 16 * 16);
        UNROLL
        for (int n = 0; n < shape::keys / 8; n += 2) {
            uint32_t k[4]; /* of 16 keys */
            load_matrices4(k,
                           s.k + (8 * n + lane() % 8 + lane() / 16 * 8) * shape::stride + 2 * at + lane() / 8 % 2 * 16);
            UNROLL
            for (int part = 0; part < shape::parts; part++) {
                multiply<shape::bfloat>(score[n], q[part], k);
                multiply<shape::bfloat>(score[n + 1], q[part], k + 2);
            }
        }
    }
}

/* Turns scores into probabilities relative to the highest score so far; limits: the last position that each of the
 * thread's two rows attends to, -1 when none. */
template <int D, int keys>
DEVICE void softmax_tile(float score[keys / 8][4], row_state<D> &r, int first, const int limits[2])
{
    UNROLL
    for (int i = 0; i < 2; i++) {
        float highest = -INFINITY;
        UNROLL
        for (int n = 0; n < keys / 8; n++) {
            UNROLL
            for (int j = 0; j < 2; j++) {
                int position = first + 8 * n + lane() % 4 * 2 + j;
                float &v = score[n][2 * i + j];
                v = position <= limits[i] ? v : -INFINITY;
                highest = fmaxf(highest, v);
            }
        }
        highest = fmaxf(highest, shuffle_xor(highest, 1));
        highest = fmaxf(highest, shuffle_xor(highest, 2));
        highest = fmaxf(highest, r.highest[i]);
        const float from = highest == -INFINITY ? 0 : highest, shrink = exp2f(r.highest[i] - from);
        float total = 0;
        UNROLL
        for (int n = 0; n < keys / 8; n++) {
            UNROLL
            for (int j = 0; j < 2; j++) {
                float &v = score[n][2 * i + j];
                v = exp2f(v - from);
                total += v;
            }
        }
        r.highest[i] = highest;
        r.total[i] = r.total[i] * shrink + total;
        UNROLL
        for (int n = 0; n < D / 8; n++) {
            UNROLL
            for (int j = 0; j < 2; j++)
                r.sum[n][2 * i + j] *= shrink;
        }
    }
}

/* Adds the tile's values by their probabilities. */
template <cuda_type type, int D>
DEVICE void sum_tile(const tile_memory<type, D> &s, float p[tile_shape<type, D>::keys / 8][4], row_state<D> &r)
{
    typedef tile_shape<type, D> shape;
    UNROLL
    for (int at = 0; at < shape::keys / 16; at++) {
        uint32_t a[shape::parts][4];
        UNROLL
        for (int i = 0; i < 4; i++) {
            float low = p[2 * at + i / 2][i % 2 * 2], high = p[2 * at + i / 2][i % 2 * 2 + 1];
            a[0][i] = pair_of<shape::bfloat>(low, high);
            if constexpr (shape::parts == 2)
                a[1][i] = pair_of<true>(rest_of(low), rest_of(high));
        }
        UNROLL
        for (int n = 0; n < D / 8; n += 2) {
            uint32_t v[4]; /* of 16 dimensions */
            load_matrices4_turned(v, s.v + (16 * at + lane() % 16) * shape::stride + 16 * n + lane() / 16 * 16);
            UNROLL
            for (int part = 0; part < shape::parts; part++) {
                multiply<shape::bfloat>(r.sum[n], a[part], v);
                multiply<shape::bfloat>(r.sum[n + 1], a[part], v + 2);
            }
        }
    }
}

/* One run of tokens of a sequence, rows [from, to) of the block, which attend to no position after `last`. */
template <cuda_type type, int D>
DEVICE void attend_run(tile_memory<type, D> &s, row_state<D> &r, const cache_walk &k, const cache_walk &v, int last,
                       const int limits[2], bool takes_part)
{
    typedef tile_shape<type, D> shape;
    bring_tile<type, D>(s.k, k, 0, last + 1);
    for (int first = 0; first <= last; first += shape::keys) {
        float score[shape::keys / 8][4];
        const bool more = first + shape::keys <= last;
        bring_tile<type, D>(s.v, v, first, last + 1);
        copies_wait<1>();
        barrier();
        if (takes_part)
            score_tile<type, D>(s, score);
        barrier();
        if (more)
            bring_tile<type, D>(s.k, k, first + shape::keys, last + 1);
        if (takes_part)
            softmax_tile<D, shape::keys>(score, r, first, limits);
        if (more)
            copies_wait<1>();
        else
            copies_wait<0>();
        barrier();
        if (takes_part)
            sum_tile<type, D>(s, score, r);
        barrier();
    }
}

/* Stores the thread's two rows; those whose place is outside as NaN. */
template <int D> DEVICE void leave_rows(const cuda_attention &a, row_state<D> &r, const int sequence[2])
{
    UNROLL
    for (int i = 0; i < 2; i++) {
        float total = r.total[i];
        total += shuffle_xor(total, 1);
        total += shuffle_xor(total, 2);
        const int64_t token = (int64_t)block_x() * ROWS + warp_number() * 16 + lane() / 4 + 8 * i;
        if (token >= a.n_tokens)
            continue;
        const float factor = sequence[i] < 0 ? NAN : 1 / total;
        float *y = a.y + (token * a.n_heads + block_y()) * D + lane() % 4 * 2;
        UNROLL
        for (int n = 0; n < D / 8; n++) {
            UNROLL
            for (int j = 0; j < 2; j++)
                y[8 * n + j] = r.sum[n][2 * i + j] * factor;
        }
    }
}

template <cuda_type type, int D> KERNEL(THREADS, 2) void attention_tiles(cuda_attention a)
{
    SHARED_DYNAMIC(uint8_t, memory);
    SHARED(int, sequence, ROWS); /* -1: outside */
    SHARED(int, position, ROWS);
    tile_memory<type, D> &s = *(tile_memory<type, D> *)memory;
    const int64_t first = (int64_t)block_x() * ROWS;
    const int n = a.n_tokens - first < ROWS ? (int)(a.n_tokens - first) : (int)ROWS;
    for (int i = thread(); i < ROWS; i += THREADS) {
        const int32_t *place = a.places.data + (first + (i < n ? i : 0)) * a.places.stride;
        bool inside = i < n && walk_of(a.k, place, first + i, block_y()).first != NULL;
        sequence[i] = inside ? place[0] : -1;
        position[i] = inside ? place[1] : -1;
    }
    bring_queries<type, D>(a, s);
    barrier();
    row_state<D> r = {};
    r.highest[0] = r.highest[1] = -INFINITY;
    const int warp_row = warp_number() * 16, row = warp_row + lane() / 4;
    for (int from = 0, to; from < n; from = to) {
        int last = -1;
        for (to = from; to < n && sequence[to] == sequence[from]; to++)
            last = position[to] > last ? position[to] : last;
        if (last < 0)
            continue;
        const int32_t place[2] = {sequence[from], position[from]};
        int limits[2];
        UNROLL
        for (int i = 0; i < 2; i++)
            limits[i] = row + 8 * i >= from && row + 8 * i < to ? position[row + 8 * i] : -1;
        attend_run<type, D>(s, r, walk_of(a.k, place, 0, block_y()), walk_of(a.v, place, 0, block_y()), last, limits,
                            warp_row < to && warp_row + 16 > from);
    }
    const int mine[2] = {sequence[row], sequence[row + 8]};
    leave_rows<D>(a, r, mine);
}

template <cuda_type type, int D> static int launch(struct cuda_stream *stream, const cuda_attention &a)
{
    grid g = GRID((a.n_tokens + ROWS - 1) / ROWS, a.n_heads, 1);
    return LAUNCH(stream, (attention_tiles<type, D>), g, THREADS, sizeof(tile_memory<type, D>), a);
}

static const struct tiles {
    cuda_type type;
    int depth;
    size_t shared;
    int (*launch)(struct cuda_stream *stream, const cuda_attention &a);
} instances[] = {
#define INSTANCE(type, depth) {CUDA_##type, depth, sizeof(tile_memory<CUDA_##type, depth>), launch<CUDA_##type, depth>},
#define DEPTHS(type)          INSTANCE(type, 64) INSTANCE(type, 96) INSTANCE(type, 128) INSTANCE(type, 256)
    DEPTHS(F16) DEPTHS(BF16) DEPTHS(Q8_0) INSTANCE(F16, 80) INSTANCE(BF16, 80)
#undef DEPTHS
#undef INSTANCE
};

static const struct tiles *find(cuda_type type, int64_t depth)
{
    for (size_t i = 0; i < sizeof instances / sizeof *instances; i++)
        if (instances[i].type == type && instances[i].depth == depth)
            return &instances[i];
    return NULL;
}

bool geul_cuda_attention_has_tiles(enum cuda_type type, int64_t depth)
{
    return find(type, depth) != NULL;
}

size_t geul_cuda_attention_tile_shared(enum cuda_type type, int64_t depth)
{
    const struct tiles *t = find(type, depth);
    return t ? t->shared : 0;
}

int geul_cuda_launch_attention_tiles(struct cuda_stream *stream, const void *args)
{
    const struct cuda_attention *a = (const struct cuda_attention *)args;
    const struct tiles *t = find(a->k.type, a->depth);
    return t ? t->launch(stream, *a) : 1; /* cudaErrorInvalidValue */
}

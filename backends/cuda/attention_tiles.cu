/* attention_tiles.cu: attention of many tokens, by tensor cores (cuda_attention.h).
 *
 * A block takes 64 tokens of one head, a warp 16 of them. Queries, multiplied by what makes scores exponents of 2, stay
 * in registers (at depth 256 in shared memory); keys and values pass by in tiles of 64 positions (32), values being
 * copied while scores are computed, and the next keys while values are summed. Softmax is the online one: sums are
 * rescaled when a larger score comes. Tokens of a block may be of several sequences: it walks through the cache once
 * for each run of them.
 *
 * A position that is not attended to has the probability 0, but its value takes part in the product: where that is NaN,
 * rows become NaN that do not know of it. So do rows of numbers that float16 cannot hold. A warp computes such rows
 * anew when it is done, alone and in float32.
 *
 * Bounded by the products and, about as much, by reading their fragments: per 16 x 64 x 16 products of a warp, 8 on the
 * tensor cores and 4 matrices of shared memory. Registers allow 3 blocks of 4 warps up to depth 96, 2 above; shared
 * memory is 18 (depth 64) to 35 KB (128), 68 at 256. */
#include "backends/cuda/cache_rows.h"

enum { ROWS = CUDA_ATTENTION_TILE, WARPS = 4, THREADS = WARPS * WARP, GROUP = 32 };
/* Tiles of positions that are worth a block of their own. */
enum { TILES_OF_PART = 4 };

template <int D> struct tile_shape {
    enum { held = D <= 128 };                                /* queries, in registers */
    enum { keys = D <= 128 ? 64 : 32, stride = 2 * D + 16 }; /* bytes of a row; eight rows lie in different banks */
};

template <int D> struct walk_memory {
    uint8_t k[tile_shape<D>::keys * tile_shape<D>::stride], v[tile_shape<D>::keys * tile_shape<D>::stride];
};
template <int D> struct query_memory {
    uint8_t q[ROWS * tile_shape<D>::stride];
};
template <int D> constexpr size_t tile_bytes()
{
    return tile_shape<D>::held
               ? sizeof(walk_memory<D>) > sizeof(query_memory<D>) ? sizeof(walk_memory<D>) : sizeof(query_memory<D>)
               : sizeof(walk_memory<D>) + sizeof(query_memory<D>);
}

/* Where the block is. */
struct tile_place {
    int64_t first; /* token */
    int n, head;
    uint8_t *q; /* shared memory */
};

/* What a thread has of its rows lane() / 4 and lane() / 4 + 8 of the warp. */
template <int D> struct row_state {
    float sum[D / 8][4], highest[2], total[2];
};

/* Two values as halves; what is too large becomes NaN, so that its row is noticed whatever it is multiplied by. */
DEVICE uint32_t checked_halves(float low, float high)
{
    uint32_t h = halves(low, high);
    if ((h & 0x7fff) == 0x7c00)
        h |= 0x200;
    if ((h & 0x7fff0000) == 0x7c000000)
        h |= 0x2000000;
    return h;
}

/* ------------------------------------------------------------------------------- shared memory -- */

/* The block's queries; zeros behind the last token. */
template <int D> DEVICE void bring_queries(const cuda_attention &a, const tile_place &b)
{
    const float factor = exponent_factor(a);
    for (int i = thread(); i < ROWS * D / 2; i += THREADS) {
        const int row = i / (D / 2), at = i % (D / 2) * 2;
        float low = 0, high = 0;
        if (row < b.n) {
            const float *q = a.q.data + (b.first + row) * a.q.token_stride + b.head * a.q.head_stride + at;
            low = q[0] * factor;
            high = q[1] * factor;
        }
        *(uint32_t *)(b.q + row * tile_shape<D>::stride + 2 * at) = checked_halves(low, high);
    }
}

template <int D> DEVICE void load_query_fragment(uint32_t q[4], const tile_place &b, int at)
{
    load_matrices4(q, b.q + (warp_number() * 16 + lane() % 16) * tile_shape<D>::stride + 2 * at + lane() / 16 * 16);
}

/* Begins to bring positions first .. first + keys - 1; zeros from `end` on. */
template <cuda_type type, int D> DEVICE void bring_type(uint8_t *to, const cache_walk &from, int first, int end)
{
    enum { OCTETS = D / OCTET, EACH = tile_shape<D>::keys * OCTETS / THREADS };
    UNROLL_4
    for (int e = 0; e < EACH; e++) {
        const int i = e * THREADS + thread(), key = i / OCTETS, at = i % OCTETS * OCTET, position = first + key;
        const uint8_t *row = from.first + position * from.step;
        uint8_t *place = to + key * tile_shape<D>::stride + 2 * at;
        if constexpr (type == CUDA_F16) {
            copy16_async(place, position < end ? row + 2 * at : from.first, position < end);
        } else {
            octet<type> loaded = {};
            if (position < end)
                loaded = load_octet<type>(row, at);
            float v[OCTET];
            widen_octet<type>(v, loaded);
            words4 w;
            UNROLL
            for (int j = 0; j < 4; j++)
                w.w[j] = checked_halves(v[2 * j], v[2 * j + 1]);
            *(words4 *)place = w;
        }
    }
}

template <int D> DEVICE void bring_tile(cuda_type type, uint8_t *to, const cache_walk &from, int first, int end)
{
    static_assert(tile_shape<D>::keys * (D / OCTET) % THREADS == 0, "no octet is left over");
    if (type == CUDA_F16)
        bring_type<CUDA_F16, D>(to, from, first, end);
    else if (type == CUDA_BF16)
        bring_type<CUDA_BF16, D>(to, from, first, end);
    else if (type == CUDA_F32)
        bring_type<CUDA_F32, D>(to, from, first, end);
    else if constexpr (D % Q8_0_VALUES == 0)
        bring_type<CUDA_Q8_0, D>(to, from, first, end);
    copies_commit();
}

/* ----------------------------------------------------------------------------------- products -- */

/* The warp's 16 x keys scores, in units of log2. */
template <int D>
DEVICE void score_tile(const walk_memory<D> &s, const tile_place &b, const uint32_t held[D / 16][4],
                       float score[tile_shape<D>::keys / 8][4])
{
    typedef tile_shape<D> shape;
    UNROLL
    for (int n = 0; n < shape::keys / 8; n++) {
        UNROLL
        for (int j = 0; j < 4; j++)
            score[n][j] = 0;
    }
    UNROLL
    for (int at = 0; at < D; at += 16) {
        uint32_t q[4];
        if constexpr (shape::held) {
            UNROLL
            for (int i = 0; i < 4; i++)
                q[i] = held[at / 16][i];
        } else {
            load_query_fragment<D>(q, b, at);
        }
        UNROLL
        for (int n = 0; n < shape::keys / 8; n += 2) {
            uint32_t k[4]; /* of 16 keys */
            load_matrices4(k,
                           s.k + (8 * n + lane() % 8 + lane() / 16 * 8) * shape::stride + 2 * at + lane() / 8 % 2 * 16);
            multiply_half(score[n], q, k);
            multiply_half(score[n + 1], q, k + 2);
        }
    }
}

/* Turns scores into probabilities relative to the highest score so far; limits: the last position that each of the
 * thread's two rows attends to, -1 when none. */
template <int D>
DEVICE void softmax_tile(float score[tile_shape<D>::keys / 8][4], row_state<D> &r, int first, const int limits[2])
{
    enum { KEYS = tile_shape<D>::keys };
    UNROLL
    for (int i = 0; i < 2; i++) {
        float highest = r.highest[i], total = 0;
        UNROLL
        for (int n = 0; n < KEYS / 8; n++) {
            UNROLL
            for (int j = 0; j < 2; j++) {
                const int position = first + 8 * n + lane() % 4 * 2 + j;
                float &v = score[n][2 * i + j];
                v = position <= limits[i] ? v : -INFINITY;
                highest = fmaxf(highest, v);
            }
        }
        highest = fmaxf(highest, shuffle_xor(highest, 1));
        highest = fmaxf(highest, shuffle_xor(highest, 2));
        const float from = finite_or_0(highest), shrink = exp2f(r.highest[i] - from);
        UNROLL
        for (int n = 0; n < KEYS / 8; n++) {
            UNROLL
            for (int j = 0; j < 2; j++) {
                float &v = score[n][2 * i + j];
                v = exp2f(v - from);
                total += v;
            }
        }
        r.highest[i] = highest;
        r.total[i] = fmaf(r.total[i], shrink, total);
        UNROLL
        for (int n = 0; n < D / 8; n++) {
            UNROLL
            for (int j = 0; j < 2; j++)
                r.sum[n][2 * i + j] *= shrink;
        }
    }
}

/* Adds the tile's values by their probabilities. */
template <int D>
DEVICE void sum_tile(const walk_memory<D> &s, const float p[tile_shape<D>::keys / 8][4], row_state<D> &r)
{
    UNROLL
    for (int at = 0; at < tile_shape<D>::keys / 16; at++) {
        uint32_t a[4];
        UNROLL
        for (int i = 0; i < 4; i++)
            a[i] = halves(p[2 * at + i / 2][i % 2 * 2], p[2 * at + i / 2][i % 2 * 2 + 1]);
        UNROLL
        for (int n = 0; n < D / 8; n += 2) {
            uint32_t v[4]; /* of 16 dimensions */
            load_matrices4_turned(v, s.v + (16 * at + lane() % 16) * tile_shape<D>::stride + 16 * n + lane() / 16 * 16);
            multiply_half(r.sum[n], a, v);
            multiply_half(r.sum[n + 1], a, v + 2);
        }
    }
}

/* One run of tokens of a sequence. */
struct run {
    cache_walk k, v;
    int first, end; /* positions that are this block's */
    int limits[2];  /* of the thread's rows, as softmax_tile() has them */
    int warp_last;  /* of the warp's rows; -1: none is of the run */
};

template <int D>
DEVICE void attend_run(const cuda_attention &a, walk_memory<D> &s, const tile_place &b, const run &u,
                       const uint32_t held[D / 16][4], row_state<D> &r)
{
    enum { KEYS = tile_shape<D>::keys };
    if (u.first >= u.end)
        return;
    bring_tile<D>(a.k.type, s.k, u.k, u.first, u.end);
    for (int first = u.first; first < u.end; first += KEYS) {
        float score[KEYS / 8][4];
        const bool more = first + KEYS < u.end, takes_part = first <= u.warp_last;
        bring_tile<D>(a.v.type, s.v, u.v, first, u.end);
        copies_wait<1>();
        barrier();
        if (takes_part)
            score_tile<D>(s, b, held, score);
        barrier();
        if (more)
            bring_tile<D>(a.k.type, s.k, u.k, first + KEYS, u.end);
        if (takes_part)
            softmax_tile<D>(score, r, first, u.limits);
        if (more)
            copies_wait<1>();
        else
            copies_wait<0>();
        barrier();
        if (takes_part)
            sum_tile<D>(s, score, r);
        barrier();
    }
}

/* ------------------------------------------------------------------------------------ results -- */

/* Leaves 32 values of a row rounded, eight in each of four lanes: v[2 * n + j] is number 8 * n + lane() % 4 * 2 + j.
 * All lanes of the warp come here; there: whether the row is. */
DEVICE void round_quad_of_lanes(const cuda_attention &a, int64_t at, const float v[8], bool there)
{
    int32_t largest = 0, sum = 0;
    UNROLL
    for (int i = 0; i < 8; i++) {
        const int32_t size = magnitude(v[i]);
        largest = size > largest ? size : largest;
    }
    const group_rounding r = rounding_for(largest_of<4>(largest));
    UNROLL
    for (int n = 0; n < 4; n++) {
        int q[2];
        UNROLL
        for (int j = 0; j < 2; j++) {
            q[j] = round_value(v[2 * n + j], r);
            sum += q[j];
        }
        if (there)
            *(uint16_t *)(a.rounded.q + at + 8 * n + lane() % 4 * 2) = (uint16_t)((q[0] & 0xff) | (q[1] & 0xff) << 8);
    }
    sum = warp_sum<4>(sum);
    if (there && lane() % 4 == 0) {
        a.rounded.scale[at / GROUP] = r.scale;
        a.rounded.sum[at / GROUP] = sum;
    }
}

/* Stores row i of the thread's two; those whose place is outside as NaN. Returns whether one of its values inside is
 * not finite. */
template <int D>
DEVICE bool leave_row(const cuda_attention &a, const tile_place &b, row_state<D> &r, int i, bool inside)
{
    const int row = warp_number() * 16 + lane() / 4 + 8 * i;
    const int64_t at = ((b.first + row) * a.n_heads + b.head) * D;
    const float total = warp_sum<4>(r.total[i]), factor = inside ? 1 / total : NAN;
    bool finite = true;
    UNROLL
    for (int n = 0; n < D / 8; n++) {
        UNROLL
        for (int j = 0; j < 2; j++) {
            float &v = r.sum[n][2 * i + j];
            v *= factor;
            finite = finite && fabsf(v) < INFINITY;
        }
        if (row < b.n && !a.rounded_only) { /* on 8 bytes, as D is even */
            words2 pair;
            memcpy(&pair, &r.sum[n][2 * i], sizeof pair);
            *(words2 *)(a.y + at + 8 * n + lane() % 4 * 2) = pair;
        }
    }
    if constexpr (D % GROUP == 0) {
        UNROLL
        for (int g = 0; g < D / GROUP; g++) {
            float v[8];
            UNROLL
            for (int n = 0; n < 8; n++)
                v[n] = r.sum[4 * g + n / 2][2 * i + n % 2];
            if (a.rounded.q)
                round_quad_of_lanes(a, at + g * GROUP, v, row < b.n);
        }
    }
    return inside && !finite;
}

/* Computes a row anew, position by position, in float32: a warp's work. */
template <int D> DEVICE void attend_again(const cuda_attention &a, int64_t token, int head)
{
    enum { EACH = (D + WARP - 1) / WARP };
    const int32_t *place = a.places.data + token * a.places.stride;
    const cache_walk k = walk_of(a.k, place, token, head), v = walk_of(a.v, place, token, head);
    const float *query = a.q.data + token * a.q.token_stride + head * a.q.head_stride;
    const float factor = exponent_factor(a);
    float sum[EACH], highest = -INFINITY, total = 0;
    UNROLL
    for (int i = 0; i < EACH; i++)
        sum[i] = 0;
    for (int position = 0; position <= place[1]; position++) {
        float score = 0;
        UNROLL
        for (int i = 0; i < EACH; i++) {
            const int d = i * WARP + lane();
            if (d < D)
                score = fmaf(query[d], value_at(a.k.type, k.first + position * k.step, d), score);
        }
        score = warp_sum(score) * factor;
        const float next = fmaxf(highest, score), from = finite_or_0(next);
        const float shrink = exp2f(highest - from), weight = exp2f(score - from);
        highest = next;
        total = fmaf(total, shrink, weight);
        UNROLL
        for (int i = 0; i < EACH; i++) {
            const int d = i * WARP + lane();
            if (d < D)
                sum[i] = fmaf(sum[i], shrink, weight * value_at(a.v.type, v.first + position * v.step, d));
        }
    }
    const int64_t at = (token * a.n_heads + head) * D;
    UNROLL
    for (int i = 0; i < EACH; i++) {
        const int d = i * WARP + lane();
        const float value = sum[i] / total;
        if (d < D && !a.rounded_only)
            a.y[at + d] = value;
        if (D % GROUP == 0 && a.rounded.q)
            round_result(a, at + i * WARP, value);
    }
}

/* Stores the warp's rows, and computes those anew that came out as NaN or infinity. */
template <int D> DEVICE void leave_rows(const cuda_attention &a, const tile_place &b, row_state<D> &r, const int *last)
{
    UNROLL
    for (int i = 0; i < 2; i++) {
        const int row = warp_number() * 16 + 8 * i;
        uint32_t broken = votes(leave_row<D>(a, b, r, i, last[row + lane() / 4] >= 0));
        warp_barrier(); /* what follows writes over what other lanes wrote */
        for (int j = 0; broken != 0 && j < 8; j++)
            if (broken >> 4 * j & 15)
                attend_again<D>(a, b.first + row + j, b.head);
    }
}

/* ---------------------------------------------------------------------------------- the parts -- */

enum { STATE_FLOATS = 4 }; /* of a thread, besides its sums */

/* What the thread has goes to memory, each number of all threads side by side. */
template <int D> DEVICE void leave_state(float *to, const row_state<D> &r)
{
    UNROLL
    for (int i = 0; i < 2; i++) {
        to[2 * i * THREADS + thread()] = r.highest[i];
        to[(2 * i + 1) * THREADS + thread()] = r.total[i];
    }
    UNROLL
    for (int n = 0; n < D / 8; n++) {
        UNROLL
        for (int j = 0; j < 4; j++)
            to[(STATE_FLOATS + 4 * n + j) * THREADS + thread()] = r.sum[n][j];
    }
}

/* Adds what another block left, which is not looked for in the first-level cache. */
template <int D> DEVICE void fold_state(row_state<D> &r, const volatile float *from)
{
    float shrink[2], part[2];
    UNROLL
    for (int i = 0; i < 2; i++) {
        const float other = from[2 * i * THREADS + thread()], highest = fmaxf(r.highest[i], other);
        shrink[i] = exp2f(r.highest[i] - finite_or_0(highest));
        part[i] = exp2f(other - finite_or_0(highest));
        r.highest[i] = highest;
        r.total[i] = fmaf(r.total[i], shrink[i], part[i] * from[(2 * i + 1) * THREADS + thread()]);
    }
    UNROLL
    for (int n = 0; n < D / 8; n++) {
        UNROLL
        for (int j = 0; j < 4; j++)
            r.sum[n][j] =
                fmaf(r.sum[n][j], shrink[j / 2], part[j / 2] * from[(STATE_FLOATS + 4 * n + j) * THREADS + thread()]);
    }
}

template <int D> DEVICE row_state<D> no_state()
{
    row_state<D> r = {};
    r.highest[0] = r.highest[1] = -INFINITY;
    return r;
}

/* ---------------------------------------------------------------------------------- the kernel -- */

/* The end of the run of one sequence that begins at row `from`; *deepest becomes the largest of its positions, -1 when
 * it is outside. */
DEVICE int end_of_run(const tile_place &b, const int *sequence, const int *last, int from, int *deepest)
{
    int to = from;
    *deepest = -1;
    for (; to < b.n && sequence[to] == sequence[from]; to++)
        *deepest = last[to] > *deepest ? last[to] : *deepest;
    return to;
}

/* Among how many blocks the positions are divided: as many as have enough to do. */
template <int D> DEVICE int parts_of(const cuda_attention &a, const tile_place &b, const int *sequence, const int *last)
{
    int64_t tiles = 0;
    for (int from = 0; a.parts > 1 && from < b.n;) {
        int deepest;
        from = end_of_run(b, sequence, last, from, &deepest);
        tiles += (deepest + tile_shape<D>::keys) / tile_shape<D>::keys;
    }
    const int64_t parts = tiles / TILES_OF_PART < a.parts ? tiles / TILES_OF_PART : a.parts;
    return parts > 1 ? (int)parts : 1;
}

/* Rows [from, to) of the block as the thread sees them, and part of n of their positions. */
template <int D>
DEVICE run run_of(const cuda_attention &a, const tile_place &b, const int *last, int from, int to, int deepest,
                  int part, int n)
{
    enum { KEYS = tile_shape<D>::keys };
    const int warp_row = warp_number() * 16, tiles = deepest / KEYS + 1;
    const int64_t token = b.first + from;
    const int32_t *place = a.places.data + token * a.places.stride;
    run u;
    u.k = walk_of(a.k, place, token, b.head);
    u.v = walk_of(a.v, place, token, b.head);
    u.first = (int)((int64_t)tiles * part / n) * KEYS;
    u.end = part + 1 < n ? (int)((int64_t)tiles * (part + 1) / n) * KEYS : deepest + 1;
    u.warp_last = -1;
    for (int row = warp_row; row < warp_row + 16; row++)
        if (row >= from && row < to && last[row] > u.warp_last)
            u.warp_last = last[row];
    UNROLL
    for (int i = 0; i < 2; i++) {
        const int row = warp_row + lane() / 4 + 8 * i;
        u.limits[i] = row >= from && row < to ? last[row] : -1;
    }
    return u;
}

template <int D> DEVICE tile_place place_of_block(const cuda_attention &a, int64_t x, uint8_t *memory)
{
    const int64_t tiles = (a.n_tokens + ROWS - 1) / ROWS;
    tile_place b; /* the last tokens, which attend to the most, come first */
    b.first = (tiles - 1 - x / a.n_heads) * ROWS;
    b.n = a.n_tokens - b.first < ROWS ? (int)(a.n_tokens - b.first) : (int)ROWS;
    b.head = (int)(x % a.n_heads);
    b.q = memory + (tile_shape<D>::held ? 0 : sizeof(walk_memory<D>));
    return b;
}

/* Block x takes a tile and head; where they have parts, the first ones of all, then the second ones. */
template <int D> KERNEL(THREADS, (D <= 96 ? 3 : 2)) void attention_tiles(cuda_attention a)
{
    SHARED_DYNAMIC(uint8_t, memory);
    SHARED(int, sequence, ROWS); /* of a cache, or the token that it begins with */
    SHARED(int, last, ROWS);     /* position; -1: outside */
    SHARED(uint32_t, order, 1);
    const int64_t tiles = (a.n_tokens + ROWS - 1) / ROWS * a.n_heads, x = block_x() % tiles;
    const int part = (int)(block_x() / tiles);
    const tile_place b = place_of_block<D>(a, x, memory);
    for (int i = thread(); i < ROWS; i += THREADS) {
        const int64_t token = b.first + (i < b.n ? i : 0);
        const int32_t *place = a.places.data + token * a.places.stride;
        const bool inside = i < b.n && walk_of(a.k, place, token, b.head).first != NULL;
        last[i] = inside ? place[1] : -1;
        sequence[i] = !inside ? -1 : a.k.n_positions > 0 ? place[0] : (int)token - place[1];
    }
    bring_queries<D>(a, b);
    barrier();
    const int parts = parts_of<D>(a, b, sequence, last);
    if (part >= parts)
        return;
    uint32_t held[D / 16][4];
    if constexpr (tile_shape<D>::held) {
        UNROLL
        for (int at = 0; at < D; at += 16)
            load_query_fragment<D>(held[at / 16], b, at);
        barrier(); /* keys come there */
    }
    row_state<D> r = no_state<D>();
    for (int from = 0, to, deepest; from < b.n; from = to) {
        to = end_of_run(b, sequence, last, from, &deepest);
        if (deepest >= 0)
            attend_run<D>(a, *(walk_memory<D> *)memory, b, run_of<D>(a, b, last, from, to, deepest, part, parts), held,
                          r);
    }
    if (parts > 1) {
        const int64_t floats = (STATE_FLOATS + D / 2) * THREADS;
        leave_state<D>(a.partial + (part * tiles + x) * floats, r);
        if (!ends_last(a.counters + x, parts, order))
            return;
        r = no_state<D>();
        for (int i = 0; i < parts; i++)
            fold_state<D>(r, a.partial + (i * tiles + x) * floats);
    }
    leave_rows<D>(a, b, r, last);
}

template <int D> static int launch(struct cuda_stream *stream, const cuda_attention &a)
{
    const int64_t blocks = (a.n_tokens + ROWS - 1) / ROWS * a.n_heads * (a.parts > 0 ? a.parts : 1);
    return LAUNCH(stream, attention_tiles<D>, GRID(blocks, 1, 1), THREADS, tile_bytes<D>(), a);
}

static const struct tiles {
    int depth;
    size_t shared;
    int (*launch)(struct cuda_stream *stream, const cuda_attention &a);
} instances[] = {
#define INSTANCE(depth) {depth, tile_bytes<depth>(), launch<depth>},
    INSTANCE(64) INSTANCE(80) INSTANCE(96) INSTANCE(128) INSTANCE(256)
#undef INSTANCE
};

static const struct tiles *find(int64_t depth)
{
    for (size_t i = 0; i < sizeof instances / sizeof *instances; i++)
        if (instances[i].depth == depth)
            return &instances[i];
    return NULL;
}

bool geul_cuda_attention_has_tiles(int64_t depth)
{
    return find(depth) != NULL;
}

size_t geul_cuda_attention_tile_shared(int64_t depth)
{
    const struct tiles *t = find(depth);
    return t ? t->shared : 0;
}

size_t geul_cuda_attention_tile_partial(const struct cuda_attention *a)
{
    const int64_t tiles = (a->n_tokens + ROWS - 1) / ROWS * a->n_heads;
    return (size_t)(tiles * (STATE_FLOATS + a->depth / 2) * THREADS) * sizeof(float);
}

int geul_cuda_launch_attention_tiles(struct cuda_stream *stream, const void *args)
{
    const struct cuda_attention *a = (const struct cuda_attention *)args;
    const struct tiles *t = find(a->depth);
    if (!t || !has_aligned_rows(a->k) || !has_aligned_rows(a->v))
        return geul_cuda_launch_attention_plain(stream, args);
    return t->launch(stream, *a);
}

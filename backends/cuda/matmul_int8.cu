/* matmul_int8.cu: products of block types by int8 tensor cores (matmul.h, tiles.h).
 *
 * A step of 128 values: while its products are computed, each thread unpacks its part of the next step's weights in
 * registers, and the next tokens are copied to the other half of their memory. What bounds it with many tokens is not
 * the tensor cores but turning each product's int32 sums into float32 by the scales of 32 (or 16) values: about three
 * instructions a sum. With few it is reading the weights. */
#include "backends/cuda/tiles.h"

#include "backends/cuda/blocks.h"

enum { GROUPS = TILE_BYTES / 32 }; /* of activations, in a step */

/* Units of blocks that a thread unpacks for a step, and scales of a weight row in it. */
template <cuda_type type> struct step_of {
    enum { row_units = TILE_BYTES / shape_of<type>::unit };
    enum { units = CUDA_TILE_ROWS * row_units / TILE_THREADS, scales = TILE_BYTES / shape_of<type>::group };
};

template <cuda_type type, int T> struct int8_memory {
    uint8_t weights[CUDA_TILE_ROWS * TILE_STRIDE], x[2][T * TILE_STRIDE];
    float scale[step_of<type>::scales][CUDA_TILE_ROWS], minimum[step_of<type>::scales][CUDA_TILE_ROWS];
    float x_scale[2][GROUPS][T], x_sum[2][step_of<type>::scales][T]; /* x_sum is multiplied by x_scale */
};

/* The place of a thread's unit i in a step: its row, and its first value in the step. */
template <cuda_type type> struct unit_place {
    int row, block_value, unit, block;
};

template <cuda_type type> DEVICE unit_place<type> place_of(int step, int i)
{
    typedef shape_of<type> shape;
    int number = thread() + i * TILE_THREADS, row = number / step_of<type>::row_units;
    int value = step * TILE_BYTES + number % step_of<type>::row_units * shape::unit;
    unit_place<type> p = {row, 0, value % shape::values / shape::unit, value / shape::values};
    p.block_value = p.block * shape::values % TILE_BYTES;
    return p;
}

template <cuda_type type> DEVICE void load_units(const cuda_matmul &a, int step, unpacked<type> u[step_of<type>::units])
{
    typedef shape_of<type> shape;
    UNROLL
    for (int i = 0; i < step_of<type>::units; i++) {
        unit_place<type> p = place_of<type>(step, i);
        int64_t row = (int64_t)block_x() * CUDA_TILE_ROWS + p.row;
        if (p.block * shape::values < a.k) {
            row = row < a.n ? row : a.n - 1;
            unpack<type>((const uint8_t *)a.weights + row * a.row_bytes + p.block * shape::bytes, p.unit, &u[i]);
            continue;
        }
        UNROLL
        for (int part = 0; part < shape::parts; part++) { /* behind the end of K */
            u[i].scale[part] = u[i].minimum[part] = 0;
            for (int j = 0; j < 4; j++)
                u[i].word[part][j] = 0;
        }
    }
}

template <cuda_type type, int T>
DEVICE void store_units(int8_memory<type, T> &s, int step, const unpacked<type> u[step_of<type>::units])
{
    typedef shape_of<type> shape;
    UNROLL
    for (int i = 0; i < step_of<type>::units; i++) {
        unit_place<type> p = place_of<type>(step, i);
        UNROLL
        for (int part = 0; part < shape::parts; part++) {
            int at = (p.block_value + part_offset<type>(p.unit, part)) % TILE_BYTES;
            words4 w;
            for (int j = 0; j < 4; j++)
                w.w[j] = u[i].word[part][j];
            *(words4 *)(s.weights + p.row * TILE_STRIDE + at) = w;
            if (at % shape::group == 0) {
                s.scale[at / shape::group][p.row] = u[i].scale[part];
                if (shape::minimum)
                    s.minimum[at / shape::group][p.row] = u[i].minimum[part];
            }
        }
    }
}

/* Begins to bring the tokens of a step to half `to` of their memory. */
template <cuda_type type, int T>
DEVICE void bring_tokens(int8_memory<type, T> &s, const cuda_matmul &a, int step, int to)
{
    const int64_t first = (int64_t)block_y() * T;
    copy_tile<T>(s.x[to], (const uint8_t *)a.rounded.q, a.k, first, a.n_tokens, (int64_t)step * TILE_BYTES);
    copies_commit();
    for (int i = thread(); i < T * GROUPS; i += TILE_THREADS) {
        int token = i / GROUPS, group = i % GROUPS;
        int64_t in_row = (int64_t)step * GROUPS + group, at = (first + token) * (a.k / 32) + in_row;
        bool there = first + token < a.n_tokens && in_row < a.k / 32;
        float scale = there ? a.rounded.scale[at] : 0;
        s.x_scale[to][group][token] = scale;
        if (shape_of<type>::minimum && shape_of<type>::group == 32)
            s.x_sum[to][group][token] = there ? scale * (float)a.rounded.sum[at] : 0;
    }
}

/* Groups of 16 with minima need the sums of 16 activations, which are taken from the tile. */
template <cuda_type type, int T> DEVICE void sum_tokens(int8_memory<type, T> &s, int half)
{
    for (int i = thread(); i < T * 2 * GROUPS; i += TILE_THREADS) {
        int token = i % T, group = i / T, sum = 0;
        words4 v = load16(s.x[half] + token * TILE_STRIDE + 16 * group);
        for (int j = 0; j < 4; j++)
            sum = dot4(0x01010101, (int)v.w[j], sum);
        s.x_sum[half][group][token] = s.x_scale[half][group / 2][token] * (float)sum;
    }
}

/* Adds the products of one group of scales, of 16 or 32 values. */
template <cuda_type type>
DEVICE void add_group(float sum[4], const int32_t d[4], const float scale[2], const float minimum[2],
                      const float x_scale[2], const float x_sum[2])
{
    UNROLL
    for (int j = 0; j < 4; j++) {
        sum[j] = fmaf((float)d[j], scale[j / 2] * x_scale[j % 2], sum[j]);
        if (shape_of<type>::minimum)
            sum[j] = fmaf(-minimum[j / 2], x_sum[j % 2], sum[j]);
    }
}

template <cuda_type type, int T>
DEVICE void multiply_step(const int8_memory<type, T> &s, int half, float sum[tile_of<T>::m][tile_of<T>::n][4])
{
    typedef tile_of<T> tile;
    const int row = warp_row<T>(), token = warp_token<T>(), g = lane() / 4, t = lane() % 4;
    const int per_group = 32 / shape_of<type>::group; /* groups of weights in one of activations */
    ROLLED
    for (int group = 0; group < GROUPS; group++) {
        uint32_t a[tile::m][4];
        float scale[tile::m][per_group][2], minimum[tile::m][per_group][2];
        UNROLL
        for (int m = 0; m < tile::m; m++) {
            load_weight_fragment(a[m], s.weights, row + 16 * m, 32 * group);
            UNROLL
            for (int part = 0; part < per_group; part++) {
                UNROLL
                for (int j = 0; j < 2; j++) {
                    scale[m][part][j] = s.scale[group * per_group + part][row + 16 * m + g + 8 * j];
                    minimum[m][part][j] =
                        shape_of<type>::minimum ? s.minimum[group * per_group + part][row + 16 * m + g + 8 * j] : 0;
                }
            }
        }
        UNROLL
        for (int i = 0; i < tile::n; i++) {
            uint32_t b[2];
            load_token_fragment(b, s.x[half], token + 8 * i, 32 * group);
            const int at = token + 8 * i + 2 * t;
            const float x_scale[2] = {s.x_scale[half][group][at], s.x_scale[half][group][at + 1]};
            UNROLL
            for (int part = 0; part < per_group; part++) {
                float x_sum[2] = {0, 0};
                UNROLL
                for (int j = 0; shape_of<type>::minimum && j < 2; j++)
                    x_sum[j] = s.x_sum[half][group * per_group + part][at + j];
                UNROLL
                for (int m = 0; m < tile::m; m++) {
                    int32_t d[4] = {0, 0, 0, 0};
                    if constexpr (shape_of<type>::group == 32)
                        multiply_int8(d, a[m], b);
                    else
                        multiply_int8_half(d, a[m] + 2 * part, b[part]);
                    add_group<type>(sum[m][i], d, scale[m][part], minimum[m][part], x_scale, x_sum);
                }
            }
        }
    }
}

/* Blocks on a multiprocessor: as many as there are registers for. Shared memory of a block, in KiB, of types with
 * groups of 32 (16): 28 (33), 33 (40), 44 (51), 66 (74) for T = 16, 32, 64, 128. So cards of 7.5 hold two blocks of 16
 * tokens and one of others, and none of 128; those of 8.6 to 8.9 two up to 64. At T = 64 two blocks leave 128
 * registers, for which nvcc moves 2 (Q4_K, Q5_K: 8) to memory, on some cards. */
template <cuda_type type, int T> constexpr int blocks_wanted()
{
    return T <= 32 || (T == 64 && shape_of<type>::group == 32) ? 2 : 1;
}

template <cuda_type type, int T> KERNEL(TILE_THREADS, (blocks_wanted<type, T>())) void matmul_int8(cuda_matmul a)
{
    SHARED_DYNAMIC(uint8_t, memory);
    int8_memory<type, T> &s = *(int8_memory<type, T> *)memory;
    float sum[tile_of<T>::m][tile_of<T>::n][4] = {};
    const tile_steps steps = steps_of(a.k, a.cut.split);
    unpacked<type> u[step_of<type>::units];
    if (steps.from < steps.to) {
        bring_tokens<type, T>(s, a, steps.from, 0);
        load_units<type>(a, steps.from, u);
    }
    for (int step = steps.from, half = 0; step < steps.to; step++, half ^= 1) {
        store_units<type, T>(s, step, u);
        copies_wait<0>();
        barrier();
        if (shape_of<type>::minimum && shape_of<type>::group == 16) {
            sum_tokens<type, T>(s, half);
            barrier();
        }
        if (step + 1 < steps.to) {
            bring_tokens<type, T>(s, a, step + 1, half ^ 1);
            load_units<type>(a, step + 1, u);
        }
        multiply_step<type, T>(s, half, sum);
        barrier(); /* before the weights are overwritten */
    }
    leave_tile<T>(*(sum_tile<T> *)memory, sum, a.cut, a.out, a.n_tokens, a.n, NULL);
}

template <cuda_type type, int T> static int launch(struct cuda_stream *stream, const cuda_matmul &a)
{
    grid g = GRID((a.n + CUDA_TILE_ROWS - 1) / CUDA_TILE_ROWS, (a.n_tokens + T - 1) / T, a.cut.split);
    return LAUNCH(stream, (matmul_int8<type, T>), g, TILE_THREADS, tile_memory<int8_memory<type, T>, T>(), a);
}

int geul_cuda_launch_matmul_int8(struct cuda_stream *stream, const void *args)
{
    const struct cuda_matmul *a = (const struct cuda_matmul *)args;
    static const struct {
        cuda_type type;
        int (*launch[4])(struct cuda_stream *stream, const cuda_matmul &a);
    } launches[] = {
#define ROW(type)                                                                                                      \
    {CUDA_##type,                                                                                                      \
     {launch<CUDA_##type, 16>, launch<CUDA_##type, 32>, launch<CUDA_##type, 64>, launch<CUDA_##type, 128>}},
        EACH_BLOCK_TYPE(ROW)
#undef ROW
    };
    for (size_t i = 0; i < sizeof launches / sizeof *launches; i++)
        if (launches[i].type == a->type)
            return launches[i].launch[which_tile(a->cut.tokens)](stream, *a);
    return 1; /* cudaErrorInvalidValue */
}

/* Of block types, those with minima need the most. */
template <cuda_type type> static size_t shared_of(int tokens)
{
    static const size_t bytes[] = {tile_memory<int8_memory<type, 16>, 16>(), tile_memory<int8_memory<type, 32>, 32>(),
                                   tile_memory<int8_memory<type, 64>, 64>(),
                                   tile_memory<int8_memory<type, 128>, 128>()};
    return bytes[which_tile(tokens)];
}

size_t geul_cuda_tile_shared(cuda_type type, int tokens)
{
    if (type == CUDA_F16 || type == CUDA_BF16) /* both sides twice; more than the sums */
        return 2 * (size_t)(CUDA_TILE_ROWS + tokens) * TILE_STRIDE;
    bool sixteen = type == CUDA_Q2_K || type == CUDA_Q3_K || type == CUDA_Q6_K;
    return sixteen ? shared_of<CUDA_Q2_K>(tokens) : shared_of<CUDA_Q4_K>(tokens);
}

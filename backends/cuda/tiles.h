/* tiles.h: for kernels: tiles of CUDA_TILE_ROWS weight rows by T tokens, multiplied 128 bytes of K at a time by 8
 * warps.
 *
 *     shared memory   weights (128 rows) and x (T rows), 128 bytes of each; rows lie 144 bytes apart, so that the 8
 *                     rows of a matrix that load_matrices reads lie in different banks
 *     warps           T = 16, 32: 8 times 16 rows, all tokens. T = 64, 128: 4 times 32 rows, 2 times T / 2 tokens
 *     a thread        sums of rows g and g + 8, tokens 2 t and 2 t + 1 of each 16 x 8 product (warp.h) */
#ifndef GEUL_CUDA_TILES_H
#define GEUL_CUDA_TILES_H

#include "backends/cuda/epilogue.h"
#include "backends/cuda/matmul.h"

enum { TILE_BYTES = 128, TILE_STRIDE = TILE_BYTES + 16, TILE_WARPS = 8, TILE_THREADS = TILE_WARPS * WARP };

template <int T> struct tile_of {
    enum { warps_along_tokens = T <= 32 ? 1 : 2, warps_along_rows = TILE_WARPS / warps_along_tokens };
    enum { rows = CUDA_TILE_ROWS / warps_along_rows, tokens = T / warps_along_tokens }; /* of a warp */
    enum { m = rows / 16, n = tokens / 8 };                                             /* products of a warp */
};

/* The number of a tile's instance in a table of launches. */
static inline int which_tile(int tokens)
{
    return tokens == 16 ? 0 : tokens == 32 ? 1 : tokens == 64 ? 2 : 3;
}

/* Where a warp's part of the tile begins. */
template <int T> DEVICE int warp_row()
{
    return warp_number() % tile_of<T>::warps_along_rows * tile_of<T>::rows;
}

template <int T> DEVICE int warp_token()
{
    return warp_number() / tile_of<T>::warps_along_rows * tile_of<T>::tokens;
}

/* Fragments of 32 bytes of K from byte `at` on: of 16 weight rows from `row` on, and of 8 tokens from `token` on. */
DEVICE void load_weight_fragment(uint32_t a[4], const uint8_t *weights, int row, int at)
{
    load_matrices4(a, weights + (row + lane() % 16) * TILE_STRIDE + at + lane() / 16 * 16);
}

DEVICE void load_token_fragment(uint32_t b[2], const uint8_t *x, int token, int at)
{
    load_matrices2(b, x + (token + lane() % 8) * TILE_STRIDE + at + lane() / 8 % 2 * 16);
}

/* Begins to copy the next 128 bytes of T rows of x: those of tokens first_token + i at byte `at` of their row_bytes,
 * zeros where there are none. */
template <int T>
DEVICE void copy_tile(uint8_t *shared, const uint8_t *x, int64_t row_bytes, int64_t first, int64_t n_rows, int64_t at)
{
    for (int i = thread(); i < T * (TILE_BYTES / 16); i += TILE_THREADS) {
        int row = i / (TILE_BYTES / 16), column = i % (TILE_BYTES / 16) * 16;
        bool there = first + row < n_rows && at + column < row_bytes;
        copy16_async(shared + row * TILE_STRIDE + column, there ? x + (first + row) * row_bytes + at + column : x,
                     there);
    }
}

/* What a block does along K: steps [from, to) of 128 bytes. */
struct tile_steps {
    int from, to;
};

DEVICE tile_steps steps_of(int64_t row_bytes, int split)
{
    int steps = (int)((row_bytes + TILE_BYTES - 1) / TILE_BYTES), z = block_z();
    tile_steps s = {(int)((int64_t)steps * z / split), (int)((int64_t)steps * (z + 1) / split)};
    return s;
}

/* Floats between two tokens of a tile of sums in shared memory: lanes of a product store to different banks. */
enum { SUM_STRIDE = CUDA_TILE_ROWS + 4 };
template <int T> struct sum_tile {
    float v[T * SUM_STRIDE];
};

/* Bytes of shared memory for a tile: the sums come when the rest is no longer needed. */
template <typename memory, int T> constexpr size_t tile_memory()
{
    return sizeof(memory) > sizeof(sum_tile<T>) ? sizeof(memory) : sizeof(sum_tile<T>);
}

/* A warp's sums go to the tile, which nobody else uses by now. */
template <int T> DEVICE void store_sums(sum_tile<T> &tile, const float sum[tile_of<T>::m][tile_of<T>::n][4])
{
    const int row = warp_row<T>() + lane() / 4, token = warp_token<T>() + lane() % 4 * 2;
    UNROLL
    for (int m = 0; m < tile_of<T>::m; m++) {
        UNROLL
        for (int i = 0; i < tile_of<T>::n; i++) {
            UNROLL
            for (int j = 0; j < 4; j++)
                tile.v[(token + 8 * i + j % 2) * SUM_STRIDE + row + 16 * m + j / 2 * 8] = sum[m][i][j];
        }
    }
}

/* The sums leave: at once, or where K is split by way of memory, where the last block of the tile adds them up. scale
 * as in cuda_matmul_half. */
template <int T>
DEVICE void leave_tile(sum_tile<T> &tile, const float sum[tile_of<T>::m][tile_of<T>::n][4], const cuda_cut &cut,
                       const cuda_epilogue &out, int64_t n_tokens, int64_t n, const float *scale)
{
    SHARED(uint32_t, order, 1);
    const int64_t first_row = (int64_t)block_x() * CUDA_TILE_ROWS, first_token = (int64_t)block_y() * T;
    volatile float *partial = cut.partial; /* what other blocks wrote is not looked for in the first-level cache */
    const bool whole = cut.split == 1;
    barrier();
    store_sums<T>(tile, sum);
    barrier();
    for (int i = thread(); !whole && i < T * CUDA_TILE_ROWS; i += TILE_THREADS) {
        int64_t row = first_row + i % CUDA_TILE_ROWS, token = first_token + i / CUDA_TILE_ROWS;
        if (row < n && token < n_tokens)
            partial[((int64_t)block_z() * n_tokens + token) * n + row] =
                tile.v[i / CUDA_TILE_ROWS * SUM_STRIDE + i % CUDA_TILE_ROWS];
    }
    if (!whole) {
        uint32_t *counter = cut.counters + block_y() * grid_x() + block_x();
        fence();
        barrier();
        if (thread() == 0) {
            order[0] = atomic_add(counter, 1);
            if (order[0] == (uint32_t)cut.split - 1)
                *counter = 0;
        }
        barrier();
        if (order[0] != (uint32_t)cut.split - 1)
            return;
        fence();
    }
    for (int i = thread(); i < T * CUDA_TILE_ROWS; i += TILE_THREADS) {
        int64_t row = first_row + i % CUDA_TILE_ROWS, token = first_token + i / CUDA_TILE_ROWS;
        if (row >= n || token >= n_tokens)
            continue;
        float v = whole ? tile.v[i / CUDA_TILE_ROWS * SUM_STRIDE + i % CUDA_TILE_ROWS] : 0;
        for (int z = 0; !whole && z < cut.split; z++)
            v += partial[((int64_t)z * n_tokens + token) * n + row];
        out.y[token * out.y_stride + row] = finish(out, scale ? v * scale[token] : v, token, row);
    }
}

#endif

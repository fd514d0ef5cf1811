/* search.c: see search.h. A tile holds 16 groups side by side, one per lane, those of a block next to each other. A
 * kernel of the host's processor searches all lanes at once; then the blocks are packed.
 *
 *   lane       0    1    2    3    4    5    6    7   ... 15      Q4_K: 8 groups of 32 to a block, 2 blocks to a tile
 *   group      0    1    2    3    4    5    6    7   ...  7
 *   block     |--------------- b -----------------|- b + 1 -|
 *   x[0]      x0  x32  x64  x96 ...                               row i of the tile has element i of every group
 *   x[1]      x1  x33  x65  x97 ...
 */
#include "quantize/search.h"

#include "backends/host.h"
#include "backends/search_tile.h"

#include <math.h>
#include <string.h>

enum { LANES = GEUL_SEARCH_LANES, BLOCKS_MAX = LANES };

/* One block of the rows, on its way through a tile. */
struct search_block {
    const float *x, *importance; /* its first element; importance may be NULL */
    float factor;                /* a power of two that brings the largest element to between 1 and 2 */
    float weight_factor;         /* brings the largest weight to 1; 0: no usable weights, all count alike */
    bool plain;                  /* left to geul_encode(): NaN, infinity, or beyond what float16 scales can reach */
};

/* The weight in the search for a weight of the importance matrix, at most 1. The power 3/4 allows for texts other than
 * those it was collected from; the small constant is for columns that were never used there. */
static float soften(float weight)
{
    return weight > 0 ? sqrtf(weight) * sqrtf(sqrtf(weight)) + 1e-6f : 1e-6f;
}

/* Fills factor, weight_factor and plain from the largest element and the largest weight. Factors of elements are powers
 * of two, so that scaling loses nothing. */
static void measure_block(struct search_block *p, int n)
{
    float largest = 0, heaviest = 0;
    bool finite = true;
    for (int i = 0; i < n; i++) {
        float size = fabsf(p->x[i]);
        finite &= size <= 65504;
        largest = size > largest ? size : largest;
    }
    for (int i = 0; p->importance && i < n; i++)
        heaviest = p->importance[i] > heaviest ? p->importance[i] : heaviest;
    int exponent = 0;
    frexpf(largest, &exponent);
    p->plain = !finite;
    p->factor = largest > 0 ? ldexpf(1, exponent > -120 ? 1 - exponent : 121) : 1;
    p->weight_factor = heaviest >= 1e-30f && heaviest <= 1e30f ? 1 / heaviest : 0;
}

/* Writes a block's groups into lanes from first on. */
static void fill_lanes(struct geul_search_tile *tile, const struct geul_block_format *f, const struct search_block *p,
                       int first)
{
    for (int l = 0; l < f->block / f->group; l++) {
        const float *x = p->x + l * f->group, *importance = p->weight_factor > 0 ? p->importance + l * f->group : NULL;
        tile->unit[first + l] = 1 / p->factor;
        for (int i = 0; i < f->group; i++) {
            tile->x[i][first + l] = x[i] * p->factor;
            tile->weight[i][first + l] = p->weight_factor > 0 ? soften(importance[i] * p->weight_factor) : 1;
        }
    }
}

/* The block that the lanes from first on describe. */
static void read_lanes(const struct geul_search_tile *tile, const struct geul_block_format *f, int first,
                       struct geul_block *block)
{
    block->d = tile->d[first] * tile->unit[first];
    block->m = tile->m[first] * tile->unit[first];
    for (int l = 0; l < f->block / f->group; l++) {
        block->scale[l] = (int16_t)tile->scale[first + l];
        block->min[l] = (int16_t)tile->min[first + l];
        for (int i = 0; i < f->group; i++)
            block->q[l * f->group + i] = (int16_t)tile->q[i][first + l];
    }
}

/* The sum of squared errors of a block, each times its column's importance. */
static double block_error(const struct geul_block_format *f, const struct search_block *p,
                          const struct geul_block *block)
{
    float value[GEUL_BLOCK_MAX];
    double sum = 0;
    geul_block_values(f, block, value);
    for (int i = 0; i < f->block; i++) {
        double r = (double)p->x[i] - (double)value[i];
        sum += (p->importance ? (double)p->importance[i] : 1) * r * r;
    }
    return sum;
}

/* The sum of squared errors, each times its column's importance, of values that a plain type holds as finite ones. */
static double plain_error(enum geul_type type, const float *x, const uint8_t *out, int64_t n, int64_t k,
                          const float *importance)
{
    const size_t bytes = geul_type_bytes(type);
    double sum = 0;
    for (int64_t i = 0; i < n; i++) {
        float value;
        geul_decode(type, out + (size_t)i * bytes, &value, 1);
        double r = (double)x[i] - (double)value;
        sum += isfinite(r) ? (importance ? (double)importance[i % k] : 1) * r * r : 0;
    }
    return sum;
}

double geul_search_rows(enum geul_type type, const float *x, void *out, int64_t rows, int64_t k,
                        const float *importance)
{
    const struct geul_block_format *f = geul_block_format(type);
    if (!f) {
        geul_encode(type, x, out, rows * k);
        return type == GEUL_TYPE_F32 ? 0 : plain_error(type, x, out, rows * k, k, importance);
    }
    geul_search_kernel *kernel = geul_host_search();
    const int groups = f->block / f->group, per_tile = LANES / groups;
    const int64_t per_row = k / f->block, blocks = rows * per_row;
    const size_t bytes = geul_type_bytes(type);
    double error = 0;
    for (int64_t b = 0; b < blocks; b += per_tile) {
        struct geul_search_tile tile;
        struct search_block in_tile[BLOCKS_MAX];
        struct geul_block block;
        int n = blocks - b < per_tile ? (int)(blocks - b) : per_tile;
        memset(&tile, 0, sizeof tile);
        for (int i = 0; i < n; i++) {
            int64_t at = b + i;
            in_tile[i] = (struct search_block){.x = x + at * f->block,
                                               .importance = importance ? importance + at % per_row * f->block : NULL};
            measure_block(&in_tile[i], f->block);
            if (!in_tile[i].plain)
                fill_lanes(&tile, f, &in_tile[i], i * groups);
        }
        for (int l = 0; l < LANES; l++) /* lanes without a group: zeros with weight 0, whose results nobody reads */
            tile.unit[l] = tile.unit[l] > 0 ? tile.unit[l] : 1;
        kernel(f, &tile);
        for (int i = 0; i < n; i++) {
            uint8_t *to = (uint8_t *)out + (size_t)(b + i) * bytes;
            if (in_tile[i].plain) {
                geul_encode(type, in_tile[i].x, to, f->block);
                continue;
            }
            read_lanes(&tile, f, i * groups, &block);
            geul_block_pack(type, &block, to);
            error += block_error(f, &in_tile[i], &block);
        }
    }
    return error;
}

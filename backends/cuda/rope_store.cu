/* rope_store.cu: see rope_store.h. A block takes a token, whose angles it computes once, and a warp heads of the parts,
 * 32 dimensions at a time; generating, this is latency alone.
 *
 * Angles are products of a position and a frequency in double, brought to an eighth of a turn from the nearest quarter
 * there, so that late positions are as exact as early ones: sine and cosine, those of float32, are off by about 2^-24.
 * Double is slow on consumer cards: these few operations are all there is of it. */
#include "backends/cuda/rope_store.h"

#include "backends/cuda/round_group.h"

enum { WARPS = 8, THREADS = WARPS * WARP, Q8_0_BYTES = 34, ENOUGH = 512 /* blocks */ };

void geul_cuda_rope_frequencies(struct cuda_rope_store *a)
{
    for (int i = 0; i < CUDA_ROPE_TABLE; i++)
        a->frequency[i] = i < a->n_rot / 2 ? pow((double)a->base, -2.0 * i / a->n_rot) : 0;
}

/* Cosines, then sines, of the pairs at a position. */
DEVICE void fill_angles(const cuda_rope_store &a, float *angles, int position)
{
    const double quarter = 1.5707963267948966;
    const int half = a.n_rot / 2;
    for (int i = thread(); i < half; i += THREADS) {
        double frequency =
            i < CUDA_ROPE_TABLE ? a.frequency[i] : pow((double)a.base, -2.0 * (double)i / (double)a.n_rot);
        double angle = (double)position * frequency, quarters = rint(angle * (1 / quarter));
        float part = (float)fma(quarters, -quarter, angle);
        float cosine = cosf(part), sine = sinf(part);
        const int turned = (int)((int64_t)quarters & 3);
        angles[i] = turned == 0 ? cosine : turned == 1 ? -sine : turned == 2 ? -cosine : sine;
        sine = turned == 0 ? sine : turned == 1 ? cosine : turned == 2 ? -sine : -cosine;
        angles[half + i] = a.back ? -sine : sine;
    }
}

/* Dimension d of the head x, rotated. */
DEVICE float rotated(const cuda_rope_store &a, const float *x, int d, const float *angles)
{
    const int half = a.n_rot / 2;
    if (d >= 2 * half)
        return x[d];
    float cosine = angles[d % half], sine = angles[half + d % half];
    return d < half ? x[d] * cosine - x[d + half] * sine : x[d] * cosine + x[d - half] * sine;
}

/* The head's pairs, in place too: whoever writes a pair has read both. */
DEVICE void rotate_head(const cuda_rope_store &a, float *y, const float *x, const float *angles)
{
    const int half = a.n_rot / 2;
    for (int i = lane(); i < half; i += WARP) {
        float cosine = angles[i], sine = angles[half + i], low = x[i], high = x[i + half];
        y[i] = low * cosine - high * sine;
        y[i + half] = high * cosine + low * sine;
    }
    for (int i = 2 * half + lane(); i < (int)a.depth; i += WARP)
        y[i] = x[i];
}

/* 32 values as a Q8_0 block, as the reference encodes them (core/block_choose.c: halves away from zero; a value that is
 * not finite damages the block). */
DEVICE void store_q8_0(uint8_t *block, float v)
{
    const int32_t largest = largest_of<WARP>(magnitude(v));
    const float amax = float_of((uint32_t)largest);
    const bool finite = largest < 0x7f800000;
    float d = finite ? amax / 127.0f : NAN, inverse = d > 0 ? 1.0f / d : 0.0f, size = fabsf(v * inverse);
    int q = size >= 127 ? 127 : size > 0 ? (int)size : 0;
    q += q < 127 && size - (float)q >= 0.5f;
    block[2 + lane()] = (uint8_t)(int8_t)(v < 0 ? -q : q);
    if (lane() == 0)
        *(uint16_t *)block = finite ? float_to_half(d) : 0x7e00;
}

DEVICE void store_value(void *row, cuda_type type, int d, float v)
{
    if (type == CUDA_F32)
        ((float *)row)[d] = v;
    else
        ((uint16_t *)row)[d] = type == CUDA_F16 ? float_to_half(v) : float_to_bfloat(v);
}

DEVICE void store_head(const cuda_rope_store &a, const cuda_rope_part &part, const float *x, const int32_t *place,
                       int head, const float *angles)
{
    const cuda_cache &c = part.cache;
    uint8_t *row =
        (uint8_t *)c.data + place[0] * c.sequence_stride + head * c.head_stride + place[1] * c.position_stride;
    for (int first = 0; first < (int)a.depth; first += WARP) {
        int d = first + lane();
        float v = d >= (int)a.depth ? 0 : part.rotates ? rotated(a, x, d, angles) : x[d];
        if (c.type == CUDA_Q8_0)
            store_q8_0(row + first / WARP * Q8_0_BYTES, v);
        else if (d < (int)a.depth)
            store_value(row, c.type, d, v);
    }
}

DEVICE bool is_inside(const cuda_cache &c, const int32_t *place)
{
    return c.data && place[0] >= 0 && place[0] < c.n_sequences && place[1] >= 0 && place[1] < c.n_positions;
}

/* Whether a later token of the batch has the same place: it stores then, as on the CPU. For all threads of the block.
 */
DEVICE bool is_overwritten(const cuda_rope_store &a, int64_t token, const int32_t *place, float *spare)
{
    bool later = false;
    for (int64_t i = token + 1 + thread(); i < a.n_tokens; i += THREADS) {
        const int32_t *other = a.places.data + i * a.places.stride;
        later = later || (other[0] == place[0] && other[1] == place[1]);
    }
    return block_max(later ? 1 : 0, spare) > 0;
}

DEVICE bool has_caches(const cuda_rope_store &a)
{
    bool any = false;
    for (int i = 0; i < a.n_parts; i++)
        any = any || a.part[i].cache.data;
    return any;
}

KERNEL(THREADS, 4) void rope_store(cuda_rope_store a)
{
    SHARED(float, spare, 32);
    SHARED_DYNAMIC(float, angles);
    const int64_t token = block_x();
    const int32_t *place = a.places.data + token * a.places.stride;
    fill_angles(a, angles, place[1]);
    barrier();
    const bool stores = has_caches(a) && !is_overwritten(a, token, place, spare);
    for (int i = block_y() * WARPS + warp_number(); i < a.n_parts * (int)a.n_heads; i += grid_y() * WARPS) {
        const int head = i % (int)a.n_heads;
        const cuda_rope_part &part = a.part[i / (int)a.n_heads];
        const float *x = part.x.data + token * part.x.token_stride + head * part.x.head_stride;
        if (part.out.data)
            rotate_head(a, part.out.data + token * part.out.token_stride + head * part.out.head_stride, x, angles);
        if (stores && is_inside(part.cache, place))
            store_head(a, part, x, place, head, angles);
    }
}

int geul_cuda_launch_rope_store(struct cuda_stream *stream, const void *args)
{
    const struct cuda_rope_store *a = (const struct cuda_rope_store *)args;
    /* With few tokens their heads are spread over blocks. */
    const int64_t warps = a->n_heads * a->n_parts,
                  spread = (ENOUGH + a->n_tokens - 1) / (a->n_tokens ? a->n_tokens : 1);
    return LAUNCH(stream, rope_store, GRID(a->n_tokens, blocks_for(warps, WARPS, spread), 1), THREADS,
                  sizeof(float) * (size_t)(a->n_rot > 0 ? a->n_rot : 1), *a);
}

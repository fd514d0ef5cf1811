/* wrapper_checks.cu: see wrapper_checks.h. */
#include "tests/cuda_host/wrapper_checks.h"

#include "backends/cuda/warp.h"

#include <string.h>

/* Defines the launch function of a check: one block of 64 threads unless it says otherwise. */
#define LAUNCHES(name, blocks, n_threads, shared)                                                                      \
    static int launch_##name(struct cuda_stream *s, const uint32_t *in, uint32_t *out)                                 \
    {                                                                                                                  \
        return LAUNCH(s, name, blocks, n_threads, shared, in, out);                                                    \
    }

static float as_float(uint32_t bits)
{
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

static uint32_t as_bits(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

DEVICE float device_float(uint32_t bits)
{
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

DEVICE uint32_t device_bits(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

/* ------------------------------------------------------------------------------------ places -- */

KERNEL(64, 1) void places(const uint32_t *in, uint32_t *out)
{
    int block = (block_z() * grid_y() + block_y()) * grid_x() + block_x();
    out[block * 64 + thread()] = in[0] + (uint32_t)(((block * 64 + thread()) << 8) + warp_number() * 32 + lane()) +
                                 ((uint32_t)(grid_z() * 100 + threads()) << 20);
}
LAUNCHES(places, GRID(2, 3, 2), 64, 0)

static void expect_places(const uint32_t *in, uint32_t *out)
{
    for (uint32_t i = 0; i < 12 * 64; i++)
        out[i] = in[0] + (i << 8) + i % 64 + ((200u + 64) << 20);
}

/* ------------------------------------------------------------------------------- collectives -- */

KERNEL(64, 1) void collectives(const uint32_t *in, uint32_t *out)
{
    uint32_t v = in[thread()], *o = out + 4 * thread();
    o[0] = shuffle(v, (lane() + 5) % WARP);
    o[1] = shuffle_xor(v, 9);
    o[2] = votes(v & 1);
    o[3] = (uint32_t)warp_sum<8>((int32_t)(v & 0xff));
}
LAUNCHES(collectives, GRID(1, 1, 1), 64, 0)

static void expect_collectives(const uint32_t *in, uint32_t *out)
{
    for (int i = 0; i < 64; i++) {
        int warp = i / 32 * 32, lane = i % 32;
        out[4 * i] = in[warp + (lane + 5) % 32];
        out[4 * i + 1] = in[warp + (lane ^ 9)];
        out[4 * i + 2] = out[4 * i + 3] = 0;
        for (int j = 0; j < 32; j++)
            out[4 * i + 2] |= (in[warp + j] & 1) << j;
        for (int j = 0; j < 8; j++)
            out[4 * i + 3] += in[i / 8 * 8 + j] & 0xff;
    }
}

/* Whole numbers, so that every order of the sum gives the same. */
KERNEL(128, 1) void reductions(const uint32_t *in, uint32_t *out)
{
    SHARED(float, spare, 32);
    float x = (float)(in[thread()] & 0xffff);
    float sum = block_sum(x, spare);
    barrier();
    float most = block_max(x, spare);
    out[2 * thread()] = device_bits(sum);
    out[2 * thread() + 1] = device_bits(most);
}
LAUNCHES(reductions, GRID(1, 1, 1), 128, 0)

static void expect_reductions(const uint32_t *in, uint32_t *out)
{
    float sum = 0, most = 0;
    for (int i = 0; i < 128; i++) {
        float x = (float)(in[i] & 0xffff);
        sum += x;
        most = x > most ? x : most;
    }
    for (int i = 0; i < 128; i++) {
        out[2 * i] = as_bits(sum);
        out[2 * i + 1] = as_bits(most);
    }
}

/* -------------------------------------------------------------------------------- arithmetic -- */

KERNEL(64, 1) void arithmetic(const uint32_t *in, uint32_t *out)
{
    uint32_t a = in[thread()], b = in[64 + thread()], *o = out + 3 * thread();
    o[0] = (uint32_t)dot4((int)a, (int)b, 7);
    o[1] = (uint32_t)round_to_int((float)(int32_t)(a % 4001) * 0.5f - 1000.0f);
    o[2] = permute_bytes(a, b, (a ^ b) & 0x7777);
}
LAUNCHES(arithmetic, GRID(1, 1, 1), 64, 0)

static void expect_arithmetic(const uint32_t *in, uint32_t *out)
{
    memset(out, 0, 192 * sizeof *out);
    for (int i = 0; i < 64; i++) {
        int32_t sum = 7;
        for (int k = 0; k < 32; k += 8)
            sum += (int8_t)(in[i] >> k) * (int8_t)(in[64 + i] >> k);
        out[3 * i] = (uint32_t)sum;
        out[3 * i + 1] = (uint32_t)(int32_t)lrintf((float)(int32_t)(in[i] % 4001) * 0.5f - 1000.0f);
        for (int k = 0; k < 4; k++) {
            uint32_t from = (in[i] ^ in[64 + i]) >> 4 * k & 7, word = from < 4 ? in[i] : in[64 + i];
            out[3 * i + 2] |= (word >> 8 * (from % 4) & 0xff) << 8 * k;
        }
    }
}

/* Conversions of 256 numbers: random bits are mostly large or small; the second half is of a usual size. */
DEVICE uint32_t usual_size(uint32_t bits, int i)
{
    return i < 128 ? bits : (bits & 0x807fffffu) | (112 + bits % 32) << 23;
}

KERNEL(256, 1) void conversions(const uint32_t *in, uint32_t *out)
{
    int i = thread();
    float x = device_float(usual_size(in[i], i));
    out[4 * i] = float_to_half(x);
    out[4 * i + 1] = float_to_bfloat(x);
    out[4 * i + 2] = device_bits(half_to_float((uint16_t)in[i]));
    out[4 * i + 3] = halves(half_to_float((uint16_t)(in[i] >> 16 & 0x7bff)), 1.5f) ^
                     bfloats(bfloat_to_float((uint16_t)(in[i] & 0x7f7f)), -2.0f);
}
LAUNCHES(conversions, GRID(1, 1, 1), 256, 0)

/* Written out here and not taken from core/half.c: the program for the card has no other file. */
static float widen(uint16_t h)
{
    int exponent = h >> 10 & 31;
    float fraction = (float)(h & 0x3ff) / 1024;
    float x = exponent == 0    ? ldexpf(fraction, -14)
              : exponent == 31 ? (h & 0x3ff ? NAN : INFINITY)
                               : ldexpf(1 + fraction, exponent - 15);
    return h & 0x8000 ? -x : x;
}

/* To the nearest half, ties to even: the one whose distance is least. */
static uint16_t narrow(float x)
{
    if (x != x)
        return 0x7e00;
    uint16_t sign = (uint16_t)(as_bits(x) >> 16 & 0x8000);
    double size = fabs((double)x);
    if (size >= 65520)
        return (uint16_t)(sign | 0x7c00);
    int low = 0, high = 0x7c00; /* widen(low) <= size < what high stands for */
    while (high - low > 1) {
        int middle = (low + high) / 2;
        if ((double)widen((uint16_t)middle) <= size)
            low = middle;
        else
            high = middle;
    }
    double above = high == 0x7c00 ? 65536 : (double)widen((uint16_t)high);
    double under = size - (double)widen((uint16_t)low), over = above - size;
    return (uint16_t)(sign | (under < over || (under == over && low % 2 == 0) ? low : high));
}

static uint16_t narrow_bfloat(float x)
{
    uint32_t bits = as_bits(x);
    if (x != x)
        return 0x7fff;
    return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

static void expect_conversions(const uint32_t *in, uint32_t *out)
{
    for (int i = 0; i < 256; i++) {
        float x = as_float(i < 128 ? in[i] : (in[i] & 0x807fffffu) | (112 + in[i] % 32) << 23);
        out[4 * i] = narrow(x);
        out[4 * i + 1] = narrow_bfloat(x);
        out[4 * i + 2] = as_bits(widen((uint16_t)in[i]));
        uint32_t two_halves = (in[i] >> 16 & 0x7bff) | 0x3e00u << 16;
        out[4 * i + 3] = two_halves ^ ((in[i] & 0x7f7f) | 0xc000u << 16);
    }
}

/* ------------------------------------------------------------------------------------ memory -- */

KERNEL(32, 1) void loads(const uint32_t *in, uint32_t *out)
{
    words4 a = load16(in + 4 * thread()), b = load16_once(in + 4 * thread());
    words2 c = load8(in + 2 * thread());
    for (int i = 0; i < 4; i++)
        out[4 * thread() + i] = a.w[i] + 3 * b.w[3 - i] + 5 * c.w[i % 2];
}
LAUNCHES(loads, GRID(1, 1, 1), 32, 0)

static void expect_loads(const uint32_t *in, uint32_t *out)
{
    for (int i = 0; i < 128; i++)
        out[i] = in[i] + 3 * in[i / 4 * 4 + 3 - i % 4] + 5 * in[i / 4 * 2 + i % 2];
}

/* Each thread copies 16 bytes in each of two groups and reads those of its neighbour; every third is not valid. */
KERNEL(64, 1) void copies(const uint32_t *in, uint32_t *out)
{
    SHARED_DYNAMIC(uint32_t, tile);
    copy16_async(tile + 4 * thread(), in + 4 * thread(), thread() % 3 != 0);
    copies_commit();
    copy16_async(tile + 256 + 4 * thread(), in + 256 + 4 * thread(), true);
    copies_commit();
    copies_wait<1>();
    barrier();
    int from = 4 * ((thread() + 1) % 64);
    for (int i = 0; i < 4; i++)
        out[4 * thread() + i] = tile[from + i];
    copies_wait<0>();
    barrier();
    for (int i = 0; i < 4; i++)
        out[4 * thread() + i] += tile[256 + from + i];
}
LAUNCHES(copies, GRID(1, 1, 1), 64, 512 * sizeof(uint32_t))

static void expect_copies(const uint32_t *in, uint32_t *out)
{
    for (int i = 0; i < 256; i++) {
        int from = (i / 4 + 1) % 64;
        out[i] = (from % 3 ? in[4 * from + i % 4] : 0) + in[256 + 4 * from + i % 4];
    }
}

/* The block that comes last sums what all have left. */
KERNEL(32, 1) void last_block(const uint32_t *in, uint32_t *out)
{
    SHARED(uint32_t, order, 1);
    if (thread() == 0) {
        out[1 + block_x()] = in[block_x()] & 0xffff;
        fence();
        order[0] = atomic_add(out + 100, 1);
    }
    barrier();
    if (order[0] == (uint32_t)grid_x() - 1 && thread() == 0) {
        uint32_t sum = 0;
        for (int i = 0; i < grid_x(); i++)
            sum += ((volatile uint32_t *)out)[1 + i];
        out[0] = sum;
    }
}
LAUNCHES(last_block, GRID(50, 1, 1), 32, 0)

static void expect_last_block(const uint32_t *in, uint32_t *out)
{
    out[0] = 0;
    for (int i = 0; i < 50; i++)
        out[0] += out[1 + i] = in[i] & 0xffff;
    out[100] = 50;
}

/* ---------------------------------------------------------------------------------- matrices -- */

/* Four, then two matrices of 8 x 8 elements of 16 bits, as they are and turned. */
KERNEL(32, 1) void matrices(const uint32_t *in, uint32_t *out)
{
    SHARED(uint32_t, tile, 128);
    for (int i = thread(); i < 128; i += 32)
        tile[i] = in[i];
    barrier();
    uint32_t r[12];
    load_matrices4(r, tile + 4 * lane());
    load_matrices4_turned(r + 4, tile + 4 * lane());
    load_matrices2(r + 8, tile + 4 * (lane() % 16));
    load_matrices2_turned(r + 10, tile + 4 * (lane() % 16));
    for (int i = 0; i < 12; i++)
        out[12 * lane() + i] = r[i];
}
LAUNCHES(matrices, GRID(1, 1, 1), 32, 0)

/* Element (row, column) of matrix m. */
static uint32_t element(const uint32_t *in, int m, int row, int column)
{
    return in[32 * m + 4 * row + column / 2] >> 16 * (column % 2) & 0xffff;
}

static void expect_matrices(const uint32_t *in, uint32_t *out)
{
    for (int lane = 0; lane < 32; lane++)
        for (int i = 0; i < 12; i++) {
            int m = i % 4 % (i < 8 ? 4 : 2), g = lane / 4, t = lane % 4;
            bool turned = (i >= 4 && i < 8) || i >= 10;
            uint32_t low = turned ? element(in, m, 2 * t, g) : element(in, m, g, 2 * t);
            uint32_t high = turned ? element(in, m, 2 * t + 1, g) : element(in, m, g, 2 * t + 1);
            out[12 * lane + i] = low | high << 16;
        }
}

/* A (16 x K) and B (K x 8) are made of bytes -4..3 of in, so that every product of 16-bit numbers is exact. */
DEVICE int number_of(const uint32_t *in, int i)
{
    return (int)(in[i / 4] >> 8 * (i % 4) & 7) - 4;
}

enum { A_AT = 0, B_AT = 16 * 32 };

KERNEL(32, 1) void products_int8(const uint32_t *in, uint32_t *out)
{
    int g = lane() / 4, t = lane() % 4, d[4] = {1, 2, 3, 4};
    uint32_t a[4], b[2];
    for (int i = 0; i < 4; i++) {
        a[i] = 0;
        for (int k = 0; k < 4; k++)
            a[i] |= (uint32_t)(number_of(in, A_AT + (g + i % 2 * 8) * 32 + i / 2 * 16 + 4 * t + k) & 255) << 8 * k;
    }
    for (int i = 0; i < 2; i++) {
        b[i] = 0;
        for (int k = 0; k < 4; k++)
            b[i] |= (uint32_t)(number_of(in, B_AT + (i * 16 + 4 * t + k) * 8 + g) & 255) << 8 * k;
    }
    multiply_int8(d, a, b);
    for (int i = 0; i < 4; i++)
        out[(g + i / 2 * 8) * 8 + 2 * t + i % 2] = (uint32_t)d[i];
}
LAUNCHES(products_int8, GRID(1, 1, 1), 32, 0)

KERNEL(32, 1) void products_int8_half(const uint32_t *in, uint32_t *out)
{
    int g = lane() / 4, t = lane() % 4, d[4] = {1, 2, 3, 4};
    uint32_t a[2] = {0, 0}, b = 0;
    for (int k = 0; k < 4; k++) {
        for (int i = 0; i < 2; i++)
            a[i] |= (uint32_t)(number_of(in, A_AT + (g + i * 8) * 32 + 4 * t + k) & 255) << 8 * k;
        b |= (uint32_t)(number_of(in, B_AT + (4 * t + k) * 8 + g) & 255) << 8 * k;
    }
    multiply_int8_half(d, a, b);
    for (int i = 0; i < 4; i++)
        out[(g + i / 2 * 8) * 8 + 2 * t + i % 2] = (uint32_t)d[i];
}
LAUNCHES(products_int8_half, GRID(1, 1, 1), 32, 0)

/* Places of the registers: row of a[i] and k of the lower half of it. */
template <bool bfloat> DEVICE void products(const uint32_t *in, uint32_t *out)
{
    int g = lane() / 4, t = lane() % 4;
    float d[4] = {1, 2, 3, 4};
    uint32_t a[4], b[2];
    for (int i = 0; i < 4; i++) {
        int at = A_AT + (g + i % 2 * 8) * 32 + i / 2 * 8 + 2 * t;
        float low = (float)number_of(in, at), high = (float)number_of(in, at + 1);
        a[i] = bfloat ? bfloats(low, high) : halves(low, high);
    }
    for (int i = 0; i < 2; i++) {
        int k = i * 8 + 2 * t;
        float low = (float)number_of(in, B_AT + k * 8 + g), high = (float)number_of(in, B_AT + (k + 1) * 8 + g);
        b[i] = bfloat ? bfloats(low, high) : halves(low, high);
    }
    if (bfloat)
        multiply_bfloat(d, a, b);
    else
        multiply_half(d, a, b);
    for (int i = 0; i < 4; i++)
        out[(g + i / 2 * 8) * 8 + 2 * t + i % 2] = device_bits(d[i]);
}

KERNEL(32, 1) void products_half(const uint32_t *in, uint32_t *out)
{
    products<false>(in, out);
}
LAUNCHES(products_half, GRID(1, 1, 1), 32, 0)

KERNEL(32, 1) void products_bfloat(const uint32_t *in, uint32_t *out)
{
    products<true>(in, out);
}
LAUNCHES(products_bfloat, GRID(1, 1, 1), 32, 0)

static int product_at(const uint32_t *in, int row, int column, int depth)
{
    int sum = row / 8 * 2 + column % 2 + 1; /* what d started with */
    for (int k = 0; k < depth; k++) {
        int a = (int)(in[(A_AT + row * 32 + k) / 4] >> 8 * (k % 4) & 7) - 4;
        int at = B_AT + k * 8 + column;
        sum += a * ((int)(in[at / 4] >> 8 * (at % 4) & 7) - 4);
    }
    return sum;
}

static void expect_products_int8(const uint32_t *in, uint32_t *out)
{
    for (int i = 0; i < 128; i++)
        out[i] = (uint32_t)product_at(in, i / 8, i % 8, 32);
}

static void expect_products_int8_half(const uint32_t *in, uint32_t *out)
{
    for (int i = 0; i < 128; i++)
        out[i] = (uint32_t)product_at(in, i / 8, i % 8, 16);
}

static void expect_products_half(const uint32_t *in, uint32_t *out)
{
    for (int i = 0; i < 128; i++)
        out[i] = as_bits((float)product_at(in, i / 8, i % 8, 16));
}

/* ------------------------------------------------------------------------------------- table -- */

/* clang-format off */
static const struct wrapper_check checks[] = {
    {"places",          1,   12 * 64, launch_places,          expect_places,        false},
    {"collectives",     64,  256,     launch_collectives,     expect_collectives,   false},
    {"reductions",      128, 256,     launch_reductions,      expect_reductions,    false},
    {"arithmetic",      128, 192,     launch_arithmetic,      expect_arithmetic,    false},
    {"conversions",     256, 1024,    launch_conversions,     expect_conversions,   false},
    {"loads",           128, 128,     launch_loads,           expect_loads,         false},
    {"copies",          512, 256,     launch_copies,          expect_copies,        false},
    {"last_block",      50,  101,     launch_last_block,      expect_last_block,    false},
    {"matrices",        128, 384,     launch_matrices,        expect_matrices,      false},
    {"products_int8",   192, 128,     launch_products_int8,   expect_products_int8, false},
    {"products_int8_half", 192, 128, launch_products_int8_half, expect_products_int8_half, false},
    {"products_half",   192, 128,     launch_products_half,   expect_products_half, false},
    {"products_bfloat", 192, 128,     launch_products_bfloat, expect_products_half, true},
};
/* clang-format on */
enum { N_CHECKS = sizeof checks / sizeof *checks };

const struct wrapper_check *wrapper_check_at(int i)
{
    return i >= 0 && i < N_CHECKS ? &checks[i] : NULL;
}

void wrapper_check_fill(const struct wrapper_check *check, uint32_t *in)
{
    uint32_t state = 0x9e3779b9u; /* xorshift */
    for (int i = 0; i < check->n_in; i++) {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        in[i] = state;
    }
}

int wrapper_check_compare(const struct wrapper_check *check, const uint32_t *in, const uint32_t *got)
{
    static uint32_t want[WRAPPER_WORDS];
    memset(want, 0, sizeof want);
    check->expect(in, want);
    for (int i = 0; i < check->n_out; i++) {
        bool both_nan = false;
        if (check->expect == expect_conversions) {
            const uint32_t highest[] = {0x7c00, 0x7f80, 0x7f800000u, 0xffffffffu}; /* infinity of word i % 4 */
            uint32_t sign = i % 4 == 2 ? 0x80000000u : 0x8000;
            both_nan = (got[i] & ~sign) > highest[i % 4] && (want[i] & ~sign) > highest[i % 4];
        }
        if (got[i] != want[i] && !both_nan)
            return i;
    }
    return -1;
}

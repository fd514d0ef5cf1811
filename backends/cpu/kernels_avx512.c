/* kernels_avx512.c: AVX-512 F, BW, DQ, VL: the float32 kernels, 16 wide. int8 products stay with AVX2 or VNNI. */
#include <immintrin.h>
#include <stddef.h>
#include <stdint.h>

#define VF_WIDTH   16
#define VF_ROWS    2
#define VF_TOKENS  12
#define VF_QUERIES 4
#define VF_MIX     4
#include "backends/cpu/vector_avx512.h"
#include "backends/cpu/kernels_float.h"
#include "backends/cpu/search_lanes.h"

const struct geul_cpu_kernels geul_cpu_kernels_avx512 = {FLOAT_KERNELS, .search = search, .panel = {FLOAT_PANELS}};

#!/bin/bash
# Proves that each source rule of tools/check_tree can fail: a scratch tree that breaks one rule at a time.
set -u
cd "$(dirname "$0")/.."
command -v python3 >/dev/null || { echo "needs python3"; exit 77; }
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
passed=0 failed=0

# A tree with every folder of tools/floors in which nothing is wrong.
clean_tree()
{
    rm -rf "$scratch/tree"
    mkdir -p "$scratch/tree/include" "$scratch/tree/tools"
    cp tools/floors "$scratch/tree/tools/floors"
    : >"$scratch/tree/include/geul.h"
    for folder in $(awk '!/^#/ && NF && $1 !~ /^include/ { print $1 }' tools/floors); do
        mkdir -p "$scratch/tree/$folder"
        : >"$scratch/tree/$folder/$(tr / _ <<<"$folder").h"
    done
    : >"$scratch/tree/core/tensor.h"
    : >"$scratch/tree/backends/backend.h"
}

# Writes stdin to FILE in an otherwise clean tree and expects the violation TEXT, or none of FILE when TEXT is "".
expect() # expect FILE TEXT
{
    clean_tree
    expect_too "$@"
}

# The same in the tree as it is.
expect_too() # expect_too FILE TEXT
{
    local said code
    mkdir -p "$scratch/tree/$(dirname "$1")"
    cat >"$scratch/tree/$1"
    said=$(tools/check_tree --root "$scratch/tree")
    code=$?
    if { [ -n "$2" ] && grep -qF "$2" <<<"$said"; } || { [ -z "$2" ] && ! grep -q "^$1:" <<<"$said"; }; then
        passed=$((passed + 1))
    else
        printf 'FAIL  %s: expected "%s", got (exit code %s):\n%s\n' "$1" "$2" "$code" "$said"
        failed=$((failed + 1))
    fi
}

expect core/a.c 'core/a.c:1: core/ may not include "models/neox.h"' <<<'#include "models/neox.h"'
expect train/a.c 'train/a.c:1: train/ may not include "journal/journal.h"' <<<'#include "journal/journal.h"'
expect quantize/a.c 'quantize/a.c:1: quantize/ may not include "convert/convert.h"' <<<'#include "convert/convert.h"'
expect convert/a.c '' <<<'#include "quantize/quantize.h"'
expect examples/a.c 'examples are built on the public headers' <<<'#include "core/tensor.h"'
expect examples/a.c '' <<<'#include <geul_tools.h>'
expect core/a.c 'on no floor' <<<'#include "tensor.h"'
expect core/a.c '' <<<'#include "backends/backend.h"'
expect models/a.c '' <<<'#include "core/tensor.h"'
expect backends/cpu/a.c 'one backend includes' <<<'#include "backends/cuda/b.h"'
expect backends/cuda/a.c 'one backend includes' <<<'#include "backends/cpu/b.h"'
expect backends/cuda/a.c '' <<<'#include "backends/backend.h"'
expect_too backends/cuda/a.c '' <<<'#include "tests/cuda_host/warp_host.h"'
expect backends/a.c 'one backend includes' <<<'#include "backends/cuda/b.h"'
expect backends/cpu/a.c 'on no floor' <<<'#include "tests/cuda_host/warp_host.h"'
expect models/a.c '<jansson.h> belongs to the tools' <<<'#include <jansson.h>'
expect convert/a.c '' <<<'#include <jansson.h>'
expect models/a.c 'models/a.c:1: use_avx2' <<<'int use_avx2;'
expect models/a.c '' <<<'int x; /* avx2 */ const char *s = "cuda"; int gptneox;'
expect models/a.c 'GEUL_CUDA' <<<'#ifdef GEUL_CUDA'
expect models/a.c 'models/a.c:1: geul_cpu_open' <<<'void *device = geul_cpu_open(0);'
expect models/a.c '"backends/cpu/cpu.h" of one backend' <<<'#include "backends/cpu/cpu.h"'
expect models/a.c '' <<<'#include "backends/host.h"'
expect backends/a.c 'one backend includes' <<<'#include "backends/cpu/cpu.h"'
expect models/a.c 'models/a.c:1: use core/team.h' <<<'#pragma omp parallel for'
expect command/a.c 'command/a.c:1: use core/team.h' <<<'#include <omp.h>'
expect core/team.c '' <<<'#pragma omp parallel'
expect models/a.c 'the limit is 1500' < <(yes 'int x;' | head -n 1501)
expect models/a.c '' < <(yes 'int x;' | head -n 1500)
expect models/a.c 'models/a.c:2: long_one has 61 lines' < <(printf 'int long_one(int a)\n{\n'; yes 'a++;' | head -n 59; echo '}')
expect models/a.c '' < <(printf 'int long_one(int a)\n{\n'; yes 'a++;' | head -n 58; echo '}')
expect models/tensor.h 'has the same file name as' <<<''
expect models/a.c 'finish it' <<<"/* TO""DO: later */"

# Kernels of CUDA: only warp_cuda.h and runtime.cu are its own.
expect backends/cuda/a.cu 'a.cu:1: __shfl_xor_sync: no intrinsic' <<<'DEVICE float f(float v) { return __shfl_xor_sync(~0u, v, 1); }'
expect backends/cuda/a.cu 'a.cu:1: __shared__: no intrinsic' <<<'__shared__ float x[32];'
expect backends/cuda/a.cu 'a.cu:1: __CUDA_ARCH__: no intrinsic' <<<'#if __CUDA_ARCH__ >= 800'
expect backends/cuda/a.cu 'a.cu:2: <<<: use LAUNCH()' < <(printf '\nvoid f() { k<<<1, 32>>>(); }\n')
expect backends/cuda/a.cu 'a.cu:1: threadIdx: use thread()' <<<'int i = threadIdx.x;'
expect backends/cuda/a.cu 'a.cu:1: asm: no PTX' <<<'void f() { asm volatile("bar.sync 0;"); }'
expect backends/cuda/a.cu 'a.cu:1: atomicAdd: use atomic_add()' <<<'void f(float *p) { atomicAdd(p, 1.0f); }'
expect backends/cuda/a.c '' <<<'__typeof__(1) f(void);'
expect backends/cuda/a.c 'a.c:1: cudaMalloc: no call' <<<'void f(void) { cudaMalloc(0, 0); }'
expect backends/cuda/a.h 'a.h:1: __ldg: no intrinsic' <<<'#define READ(p) __ldg(p)'
expect backends/cuda/a.cu 'a.cu:1: includes <cuda_fp16.h>' <<<'#include <cuda_fp16.h>'
expect backends/cuda/a.cu 'a.cu:1: includes "backends/backend.h"' <<<'#include "backends/backend.h"'
expect backends/cuda/a.cu 'a.cu:1: includes "backends/cuda/cuda.h"' <<<'#include "backends/cuda/cuda.h"'
expect backends/cuda/a.cu '' < <(printf '#include <math.h>\n#include "backends/cuda/a.h" /* __ldg */\nextern "C" int f(int thread);\n')
expect_too backends/cuda/warp_cuda.h '' <<<'#define DEVICE static __device__'
expect_too backends/cuda/runtime.cu '' < <(printf '#include <cuda_runtime.h>\nint f() { return cudaGetLastError(); }\n')
expect backends/cuda/a.cu 'a.cu:2: LAUNCH() of k with 256 threads, its KERNEL() says WARP*4' \
    < <(printf 'template <int n> KERNEL(WARP * 4, 1) void k(int a)\nint f() { return LAUNCH(s, (k<4>), GRID(1, 1, 1), 256, 0, 1); }\n')
expect backends/cuda/a.cu 'a.cu:1: LAUNCH() of j, which is no KERNEL()' <<<'int f() { return LAUNCH(s, j, GRID(1, 1, 1), 256, 0, 1); }'
expect backends/cuda/a.cu '' < <(printf 'KERNEL(WARP * 4, 1) void k(int a)\nint f() { return LAUNCH(s, k, GRID(f(1, 2), 1, 1), 4 * n, 0); }\n')
expect backends/cuda/a.cu '' < <(printf 'KERNEL(WARP * 4, 1) void k(int a)\nint f() { return LAUNCH(s, k, g, WARP *4, 0, 1); }\n')
expect backends/cuda/a.cu 'the limit is 1500' < <(yes 'int x;' | head -n 1501)
expect backends/cuda/a.cu 'a.cu:2: long_one has 121 lines' < <(printf 'KERNEL(32, 1) void long_one(int a)\n{\n'; yes 'a++;' | head -n 119; echo '}')
expect tests/cuda_host/backends_cuda.h 'has the same file name as' <<<'int x;'

# A table whose rows a page for users does not name.
clean_tree
expect_too docs/training.md '' <<<'one or another'
expect_too include/geul_optimizers.def 'docs/training.md:1: says nothing of other,' \
    < <(printf 'OPTIMIZER(ONE, "one")\nOPTIMIZER(OTHER, "other")\n')
clean_tree
expect_too docs/compatibility.md '' <<<'f32, q4_0'
expect_too docs/quantization.md '' <<<'f32, q4_0'
expect_too README.md '' <<<'f32, q4_0'
expect_too include/geul_types.def '' < <(printf 'TYPE(F32, "f32", 0, 1, 4, f32)\nTYPE(I32, "i32", 26, 1, 4, none)\n')
expect_too include/geul_types.def 'README.md:1: says nothing of q3_0,' <<<'TYPE(Q3_0, "q3_0", 200, 32, 14, extreme)'

# Ways round the rule of includes.
expect core/a.c 'core/ may not include "models/neox.h"' <<<'#include"models/neox.h"'
expect core/a.c 'core/ may not include "models/neox.h"' <<<'  #  include  "models/neox.h"  /* why */'
expect core/a.c 'core/ may not include "models/neox.h"' < <(printf '#include \\\n"models/neox.h"\n')
expect core/a.c 'write the path from the root' <<<'#include "core/../models/neox.h"'
expect core/a.c 'on no floor' < <(printf '#define H "models/neox.h"\n#include H\n')
expect core/a.c 'a file of this tree: write it in quotes' <<<'#include <core/tensor.h>'
expect examples/a.c 'examples are built on the public headers' <<<'#include <core/tensor.h>'
expect core/a.c 'the header of a library above' <<<'#include "geul_tools.h"'
expect convert/a.c '' <<<'#include "geul_tools.h"'
expect include/geul.h 'the header of a library above' <<<'#include "geul_tools.h"'
expect models/a.c '<jansson.h> belongs to the tools' <<<'#include<jansson.h>'

# A circle of folders: core/ may use train/, which is above it.
clean_tree
sed 's#^core .*#core libgeul train#' tools/floors >"$scratch/floors"
expect_too tools/floors 'core/ may include train, which has no row above: a circle of folders' <"$scratch/floors"

# A circle of files: two headers, and a .c that uses a header whose .c uses it.
clean_tree
expect_too models/a.h '' <<<'#include "models/b.h"'
expect_too models/b.h 'a circle of files: models/a -> models/b -> models/a' <<<'#include "models/a.h"'
clean_tree
expect_too models/a.c '' <<<'#include "models/b.h"'
expect_too models/b.c 'a circle of files: models/a -> models/b -> models/a' <<<'#include "models/a.h"'
clean_tree
expect_too core/tensor.c '' <<<'#include "backends/backend.h"'
expect_too backends/backend.h '' <<<'#include "core/tensor.h"'

clean_tree
expect_too models/c.h '' <<<'#include <models/a.h>'
expect_too models/b.h '' <<<'#include "models/c.h"'
expect_too models/a.h 'a circle of files: models/a -> models/b -> models/c -> models/a' <<<'#include "models/b.h"'

# Symbols: a header that declares what no library exports, and one without the mark.
expect include/geul.h 'geul_planted is not marked GEUL_API' <<<'int geul_planted(int a);'
expect include/geul.h 'planted is not marked GEUL_API' <<<'extern int planted(int a);'
if [ -f "${GEUL_BUILD:-build}/libgeul-tools.so" ] && command -v nm >/dev/null; then
    clean_tree
    cp include/*.h include/*.def "$scratch/tree/include/"
    ln -s "$(realpath "${GEUL_BUILD:-build}")" "$scratch/tree/build"
    sed 's/^GEUL_API const char \*geul_version(void);/&\nGEUL_API int geul_planted(int a);/' include/geul.h >"$scratch/geul.h"
    expect_too include/geul.h 'geul_planted is declared but libgeul.so does not export it' <"$scratch/geul.h"
    sed '/^GEUL_API const char \*geul_version(void);/d' include/geul.h >"$scratch/geul.h"
    expect_too include/geul.h 'libgeul.so:0: exports geul_version, which no public header declares' <"$scratch/geul.h"
fi
echo "$passed passed, $failed failed, 0 skipped"
[ "$failed" = 0 ]

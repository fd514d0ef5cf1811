#!/bin/bash
# Proves that each source rule of tools/check_tree can fail: a scratch tree that breaks one rule at a time.
set -u
cd "$(dirname "$0")/.."
command -v python3 >/dev/null || { echo "needs python3"; exit 77; }
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
passed=0 failed=0

# Writes stdin to FILE in an otherwise clean tree and expects the violation TEXT, or a clean tree when TEXT is "".
expect() # expect FILE TEXT
{
    rm -rf "$scratch/tree"
    mkdir -p "$scratch/tree/include" "$scratch/tree/core" "$scratch/tree/$(dirname "$1")"
    : >"$scratch/tree/include/geul.h"
    : >"$scratch/tree/core/tensor.h"
    cat >"$scratch/tree/$1"
    local said code
    said=$(tools/check_tree --root "$scratch/tree" | grep -v LONG_FUNCTIONS)
    code=$?
    if { [ -n "$2" ] && grep -qF "$2" <<<"$said"; } || { [ -z "$2" ] && ! grep -q "^$1:" <<<"$said"; }; then
        passed=$((passed + 1))
    else
        printf 'FAIL  %s: expected "%s", got (exit code %s):\n%s\n' "$1" "$2" "$code" "$said"
        failed=$((failed + 1))
    fi
}

expect core/a.c 'core/a.c:1: core/ includes "models/neox.h" from a floor above' <<<'#include "models/neox.h"'
expect core/a.c 'on no floor' <<<'#include "tensor.h"'
expect core/a.c '' <<<'#include "backends/backend.h"'
expect models/a.c '' <<<'#include "core/tensor.h"'
expect backends/cpu/a.c 'one backend includes' <<<'#include "backends/cuda/b.h"'
expect models/a.c '<jansson.h> belongs to the tools' <<<'#include <jansson.h>'
expect convert/a.c '' <<<'#include <jansson.h>'
expect models/a.c 'models/a.c:1: use_avx2' <<<'int use_avx2;'
expect models/a.c '' <<<'int x; /* avx2 */ const char *s = "cuda"; int gptneox;'
expect models/a.c 'GEUL_CUDA' <<<'#ifdef GEUL_CUDA'
expect models/a.c 'models/a.c:1: geul_cpu_open' <<<'void *device = geul_cpu_open(0);'
expect models/a.c '"backends/cpu/cpu.h" of one backend' <<<'#include "backends/cpu/cpu.h"'
expect models/a.c '' <<<'#include "backends/host.h"'
expect backends/a.c 'one backend includes' <<<'#include "backends/cpu/cpu.h"'
expect models/a.c 'the limit is 1500' < <(yes 'int x;' | head -n 1501)
expect models/a.c '' < <(yes 'int x;' | head -n 1500)
expect models/a.c 'models/a.c:2: long_one has 61 lines' < <(printf 'int long_one(int a)\n{\n'; yes 'a++;' | head -n 59; echo '}')
expect models/a.c '' < <(printf 'int long_one(int a)\n{\n'; yes 'a++;' | head -n 58; echo '}')
expect models/tensor.h 'has the same file name as' <<<''
expect models/a.c 'finish it' <<<"/* TO""DO: later */"
echo "$passed passed, $failed failed, 0 skipped"
[ "$failed" = 0 ]

#!/bin/bash
# Runs every program of examples/, which are linked to the shared libraries, on small inputs.
set -u
cd "$(dirname "$0")/../.."
build=${GEUL_BUILD:-$PWD/build}
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
passed=0 failed=0

check() # check NAME PATTERN COMMAND...: succeeds and prints a line like PATTERN
{
    local name=$1 pattern=$2 said
    shift 2
    if said=$("$@" 2>&1) && grep -qE -- "$pattern" <<<"$said"; then
        passed=$((passed + 1))
    else
        printf 'FAIL  %s: expected "%s", got:\n%s\n' "$name" "$pattern" "$said"
        failed=$((failed + 1))
    fi
}

mini=share/geul-mini.gguf
check tensors '^y = 2\.00. x \+ (1\.00.|0\.99.)$' "$build/example-tensors"
check completion '요' "$build/example-completion" $mini "오늘 날씨가"
printf '안녕\n심심해\n' >"$scratch/questions"
check chat '요' "$build/example-chat" $mini <"$scratch/questions"
printf '안녕\t반가워요.\n잘 자\t좋은 꿈 꾸세요.\n' >"$scratch/pairs.tsv"
check training '^step 1: loss [0-9.]+$' "$build/example-training" $mini "$scratch/pairs.tsv" "$scratch/adapter.gguf"
check 'training: its adapter' 'LoRA, rank 8' "$build/geul" info -m "$scratch/adapter.gguf"

# What examples/quantizing.c makes is what the command makes, byte for byte.
golden=tests/golden/quantizable
check quantizing 'bits per weight' "$build/example-quantizing" $golden "$scratch/f16.gguf" "$scratch/small.gguf" q4_k_m
check 'quantizing: convert' '' "$build/geul" convert $golden -o "$scratch/f16-too.gguf" --type f16
check 'quantizing: quantize' '' "$build/geul" quantize "$scratch/f16.gguf" "$scratch/small-too.gguf" q4_k_m
check 'quantizing: same f16' '' cmp "$scratch/f16.gguf" "$scratch/f16-too.gguf"
check 'quantizing: same q4_k_m' '' cmp "$scratch/small.gguf" "$scratch/small-too.gguf"
for example in "$build"/example-*; do
    grep -q "${example##*/}" "$0" || { echo "FAIL  ${example##*/} is not run here"; failed=$((failed + 1)); }
done
echo "$passed passed, $failed failed, 0 skipped"
[ "$failed" = 0 ]

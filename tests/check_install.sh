#!/bin/bash
# Installs to a scratch folder, then compiles and runs a program against it by pkg-config and by find_package(Geul).
set -eu
cd "$(dirname "$0")/.."
build=${GEUL_BUILD:-$PWD/build}
if ! grep -q '^GEUL_SANITIZE:[A-Z]*=$' "$build/CMakeCache.txt"; then
    echo "a sanitized library is not for installing"
    exit 77
fi
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
DESTDIR=$scratch/root cmake --install "$build" --prefix /opt/geul >"$scratch/log" || { cat "$scratch/log"; exit 1; }
prefix=$scratch/root/opt/geul
lib=$(dirname "$(find "$prefix" -name libgeul.a)")
# shellcheck disable=SC2013
for file in bin/geul $(awk '$1 ~ /^include\// { print $1 }' tools/floors); do
    [ -f "$prefix/$file" ] || { echo "not installed: $file"; exit 1; }
done

# Without -m the installed program finds the model that was installed with it, wherever the tree has been moved.
mv "$scratch/root" "$scratch/moved"
said=$(echo 안녕 | "$scratch/moved/opt/geul/bin/geul" chat --temp 0 2>&1) || { echo "chat: $said"; exit 1; }
mv "$scratch/moved" "$scratch/root"
case $said in
*"/moved/opt/geul/share/geul/geul-mini.gguf (comes with geul"*안녕하세요*) echo "chat: answers with the installed model" ;;
*) echo "chat: unexpected output: $said"; exit 1 ;;
esac

mkdir "$scratch/consumer"
cat >"$scratch/consumer/consumer.c" <<'END'
#include <geul.h>
#include <stdio.h>
int main(void)
{
    struct geul_context *ctx = geul_context_new(NULL);
    struct geul_model *model = geul_model_load(ctx, "/nonexistent.gguf", NULL);
    printf("geul %s: %s\n", geul_version(), geul_error(ctx));
    geul_context_free(ctx);
    return model != NULL;
}
END
cat >"$scratch/consumer/CMakeLists.txt" <<'END'
cmake_minimum_required(VERSION 3.20)
project(consumer LANGUAGES C)
find_package(Geul 0.1 REQUIRED)
add_executable(consumer consumer.c)
target_link_libraries(consumer Geul::geul)
add_executable(quantizing quantizing.c)
target_link_libraries(quantizing Geul::tools)
END

cp examples/quantizing.c "$scratch/consumer/"

export PKG_CONFIG_PATH=$lib/pkgconfig
check() # check HOW PROGRAM
{
    local said
    said=$(LD_LIBRARY_PATH=$lib "$2") || { echo "$1: the program failed: $said"; exit 1; }
    case $said in
    "geul $(pkg-config --modversion geul): "*/nonexistent.gguf*) echo "$1: $said" ;;
    *) echo "$1: unexpected output: $said"; exit 1 ;;
    esac
}
cd "$scratch/consumer"
# shellcheck disable=SC2046
"${CC:-cc}" consumer.c -o by-pkg-config $(pkg-config --cflags --libs geul)
check "pkg-config" ./by-pkg-config
# shellcheck disable=SC2046
"${CC:-cc}" consumer.c -o static $(pkg-config --cflags geul) "$lib/libgeul.a" $(pkg-config --static --libs-only-l geul | sed 's/-lgeul//')
check "libgeul.a" ./static
cmake -S . -B by-cmake -DCMAKE_PREFIX_PATH="$prefix" >"$scratch/log" && cmake --build by-cmake >>"$scratch/log" ||
    { cat "$scratch/log"; exit 1; }
check "find_package" by-cmake/consumer

# libgeul-tools in the same three ways: without arguments its example says how it is called.
check_tools() # check_tools HOW PROGRAM
{
    local said code=0
    said=$(LD_LIBRARY_PATH=$lib "$2" 2>&1) || code=$?
    [ "$code" = 2 ] && [[ $said = "usage: quantizing "* ]] || { echo "$1: unexpected output: $said"; exit 1; }
    echo "$1: geul-tools $(pkg-config --modversion geul-tools)"
}
# shellcheck disable=SC2046
"${CC:-cc}" quantizing.c -o tools-by-pkg-config $(pkg-config --cflags --libs geul-tools)
check_tools "pkg-config" ./tools-by-pkg-config
# shellcheck disable=SC2046
"${CC:-cc}" quantizing.c -o tools-static $(pkg-config --cflags geul-tools) "$lib/libgeul-tools.a" "$lib/libgeul.a" \
    $(pkg-config --static --libs-only-l geul-tools | sed 's/-lgeul[^ ]*//g')
check_tools "libgeul-tools.a" ./tools-static
check_tools "find_package" by-cmake/quantizing

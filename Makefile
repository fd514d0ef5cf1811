# The front door. Everything here is a short name for a CMake preset or a script; see `make help`.
PREFIX ?= /usr/local
DESTDIR ?=
FUZZ_SECONDS ?= 20
JOBS ?= $(shell nproc 2>/dev/null || echo 2)
MODEL ?= share/geul-mini.gguf
BENCH ?= --synthetic 1.3b:q8_0 -p 256 -n 32 -r 3

MAKEFLAGS += --no-print-directory

# $(call build,PRESET,FOLDER[,TARGETS]): configures when there is nothing to build with yet, then builds.
generator = $(if $(shell command -v ninja),Ninja,Unix Makefiles)
define build
	@test -f $(2)/build.ninja || test -f $(2)/Makefile || \
	    { rm -f $(2)/CMakeCache.txt; cmake --preset $(1) -G "$(generator)" -Wno-dev; }
	@cmake --build $(2) -j $(JOBS) $(if $(3),--target $(3))
endef

.PHONY: help setup run build test cuda debug asan clang fuzz tsan bench install format format-check clean

help:
	@echo 'make run       set up this machine, build, and chat with the shipped model'
	@echo 'make test      set up, build, run every test (ARGS=... names parts: unit aarch64 tree scripts)'
	@echo 'make build     leaves build/geul'
	@echo 'make cuda      build/libgeul-cuda.so, for NVIDIA cards (needs nvcc of CUDA 12.8 or later, no card)'
	@echo 'make install   PREFIX=$(PREFIX) DESTDIR=$(DESTDIR)'
	@echo 'make debug     build-debug/, without optimisation'
	@echo 'make asan      the tests under the address and undefined-behaviour sanitizers (build-asan/)'
	@echo 'make tsan      the tests of threads under the thread sanitizer (build-tsan/, needs clang)'
	@echo 'make clang     build with clang (build-clang/)'
	@echo 'make fuzz      every fuzz target for FUZZ_SECONDS=$(FUZZ_SECONDS) each (build-fuzz/, needs clang)'
	@echo 'make bench     geul bench $(BENCH)      (BENCH=...)'
	@echo 'make format    clang-format over all sources'
	@echo 'make format-check  whether clang-format 14 would change anything (CI does that)'
	@echo 'make clean     removes the build folders'

setup:
	@tools/setup

run: setup
	$(call build,release,build,geul)
	@tools/start $(MODEL)

build: setup
	$(call build,release,build)

test: build
	@tests/run build $(ARGS)

# Configured again, in case nvcc has come since.
cuda: setup
	@test -f build/libgeul-cuda.so || test ! -f build/CMakeCache.txt || cmake build >/dev/null
	$(call build,release,build,geul-cuda)
	@tools/check_cuda build

debug: setup
	$(call build,debug,build-debug)

asan: setup
	$(call build,asan,build-asan)
	@tests/run build-asan unit scripts

# libomp is not instrumented: what happens inside it is ignored, and core/team.c orders what passes through it.
tsan: setup
	$(call build,tsan,build-tsan,geul-thread-tests)
	@TSAN_OPTIONS=ignore_noninstrumented_modules=1 build-tsan/geul-thread-tests

clang: setup
	$(call build,clang,build-clang)

fuzz: setup
	$(call build,fuzz,build-fuzz)
	@tests/fuzz/run_fuzz build-fuzz $(FUZZ_SECONDS)

bench: build
	build/geul bench $(BENCH)

# Programs find the new library at once only when the loader's cache knows it.
install: build
	DESTDIR=$(DESTDIR) cmake --install build --prefix $(PREFIX)
	@test -n "$(DESTDIR)" || test "$$(id -u)" != 0 || ! command -v ldconfig >/dev/null || ldconfig

format:
	git ls-files -co --exclude-standard '*.c' '*.h' '*.cu' | xargs clang-format -i

# Other versions of clang-format would format some lines differently.
format-check:
	@clang-format --version | grep -q 'version 14\.' || \
	    { echo '0 passed, 0 failed, 1 skipped'; exit 0; }; \
	git ls-files -co --exclude-standard '*.c' '*.h' '*.cu' | xargs clang-format --dry-run --Werror

clean:
	rm -rf build build-debug build-asan build-clang build-tsan build-fuzz build-aarch64

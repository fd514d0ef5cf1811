/* cuda_module.c: what libgeul-cuda.so exports. */
#include "backends/module.h"

extern const struct geul_backend geul_backend_cuda;

extern const struct geul_module geul_backend_module;
__attribute__((visibility("default"))) const struct geul_module geul_backend_module = GEUL_MODULE(&geul_backend_cuda);

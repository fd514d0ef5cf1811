/* fuse.c: which nodes are computed together, in the order in which the patterns are tried. */
#include "backends/cuda/cuda.h"

cuda_pattern *const geul_cuda_patterns[] = {NULL};

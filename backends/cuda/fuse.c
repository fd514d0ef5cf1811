/* fuse.c: which nodes are computed together, in the order in which the patterns are tried. */
#include "backends/cuda/cuda_rope.h"

cuda_pattern *const geul_cuda_patterns[] = {geul_cuda_fuse_rope_stores, NULL};

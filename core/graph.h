/* graph.h: the ordered nodes behind geul_graph. */
#ifndef GEUL_GRAPH_H
#define GEUL_GRAPH_H

#include "core/tensor.h"

struct geul_graph {
    struct geul_context *ctx;
    int n_nodes;
    struct geul_tensor **nodes; /* operands before users; VIEW nodes included, leaves not */
    int n_leaves;
    struct geul_tensor **leaves;
    struct geul_schedule *schedule; /* set by geul_runtime_plan() */
    uint64_t planned;               /* the number of the plan that this is of; 0: none yet */
};

#endif

/* tensors.c: a graph and its gradient: fits y = a x + b to four points by following the gradient of the squared error.
 *
 *     cc tensors.c $(pkg-config --cflags --libs geul) -o tensors
 *     ./tensors */
#include <geul_tensor.h>

#include <stdio.h>

int main(void)
{
    const float points[4][2] = {{0, 1}, {1, 1}, {2, 1}, {3, 1}}, wanted[4] = {1, 3, 5, 7}; /* x and 1; y = 2 x + 1 */
    float line[2] = {0, 0}, errors[4], slope[2];
    struct geul_context *ctx = geul_context_new(NULL);
    struct geul_runtime *rt = geul_runtime_new(ctx, NULL);

    /* The prediction x (4, 2) times line (2, 1), and the gradient of its error: both are ordinary nodes. */
    struct geul_tensor *x = geul_input(ctx, GEUL_TYPE_F32, 2, (int64_t[]){4, 2}, "x");
    struct geul_tensor *w = geul_input(ctx, GEUL_TYPE_F32, 2, (int64_t[]){2, 1}, "line");
    struct geul_tensor *minus_y = geul_input(ctx, GEUL_TYPE_F32, 2, (int64_t[]){4, 1}, "-y");
    struct geul_tensor *error = geul_add(ctx, geul_matmul(ctx, x, w), minus_y);
    struct geul_gradients *g = geul_gradients_new(ctx);
    geul_gradients_want(g, w, NULL);
    geul_gradients_flow(g, error, geul_scale(ctx, error, 0.5f), NULL); /* of the mean of squares: 2 e / 4 */
    struct geul_tensor *outputs[] = {error, geul_gradients_of(g, w)};

    struct geul_graph *graph = geul_graph_new(ctx, outputs, 2);
    bool ok = graph && geul_runtime_plan(rt, graph) == GEUL_OK;
    for (int step = 0; ok && step < 400; step++) {
        float negative[4];
        for (int i = 0; i < 4; i++)
            negative[i] = -wanted[i];
        ok = geul_tensor_write(x, points, sizeof points) == GEUL_OK &&
             geul_tensor_write(w, line, sizeof line) == GEUL_OK &&
             geul_tensor_write(minus_y, negative, sizeof negative) == GEUL_OK &&
             geul_runtime_run(rt, graph) == GEUL_OK && geul_tensor_read(error, errors, sizeof errors) == GEUL_OK &&
             geul_tensor_read(outputs[1], slope, sizeof slope) == GEUL_OK;
        for (int i = 0; ok && i < 2; i++)
            line[i] -= 0.1f * slope[i];
    }
    if (ok)
        printf("y = %.3f x + %.3f\n", (double)line[0], (double)line[1]);
    else
        fprintf(stderr, "%s\n", geul_error(ctx));
    geul_runtime_free(rt);
    geul_context_free(ctx);
    return ok ? 0 : 1;
}

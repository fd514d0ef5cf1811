/* fuzz_imatrix.c: any bytes as an importance matrix, in either form; every sum that was accepted is then read. */
#include "quantize/imatrix.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* The sum of what an entry holds; aborts where it is not what imatrix.h promises. */
static double walk_entry(const struct geul_imatrix *m, const struct geul_imatrix_entry *e)
{
    const struct geul_imatrix_entry *found = geul_imatrix_find(m, e->name);
    double sum = e->rows + (double)strlen(e->name);
    if (!found || found > e || strcmp(found->name, e->name) != 0 || e->columns < 1 || !(e->rows >= 0))
        abort();
    for (int64_t i = 0; i < e->columns; i++) {
        if (!(e->sums[i] >= 0) || !isfinite(e->sums[i]))
            abort();
        sum += (double)e->sums[i];
    }
    return sum;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct geul_context *ctx = geul_context_new(NULL);
    struct geul_imatrix *m = geul_imatrix_parse(ctx, data, size, "fuzz");
    double sum = 0;
    if ((m != NULL) != (geul_error_status(ctx) == GEUL_OK) || (m && m->n_entries < 1))
        abort();
    for (int64_t i = 0; m && i < m->n_entries; i++)
        sum += walk_entry(m, &m->entries[i]);
    if (m)
        sum += (double)strlen(m->dataset);
    geul_imatrix_free(m);
    geul_context_free(ctx);
    return sum == 0.5; /* keeps the reads; other results than 0 would only leave an input out */
}

/* fuzz_rows.c: any bytes as rows of training data: as JSON (lines, objects over several lines, an array), as a table,
 * as a plain text and as CP949; every row must be what geul_tools.h promises. */
#include "corpus/rows.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Aborts where a row is not whole. */
static void check_row(const struct geul_row *row)
{
    bool learned = row->kind == GEUL_ROW_TEXT;
    if (row->line < 1 || (row->input && (row->input_turn < 0 || row->input_turn >= row->n_turns)))
        abort();
    if (row->kind == GEUL_ROW_TEXT && (row->length == 0 || memchr(row->text, 0, row->length)))
        abort();
    if (row->kind == GEUL_ROW_TURNS && row->n_turns < 1)
        abort();
    for (int i = 0; i < row->n_turns; i++) {
        learned |= row->learned[i];
        if (!*row->turns[i].question || !*row->turns[i].answer)
            abort();
    }
    if (!learned)
        abort();
}

static void read_as(const uint8_t *data, size_t size, const char *name, const char *encoding)
{
    struct geul_context *ctx = geul_context_new(NULL);
    struct geul_row_problems problems = {.ctx = ctx};
    struct geul_rows *rows = geul_rows_open_memory(ctx, data, size, name, encoding, &problems);
    const struct geul_row *row;
    int64_t n = 0;
    for (; rows && geul_rows_next(rows, &row) == GEUL_OK && row; n++)
        check_row(row);
    if (n == 0 && problems.n == 0 && geul_error_status(ctx) == GEUL_OK)
        abort();
    geul_rows_close(rows);
    geul_row_problems_clear(&problems);
    geul_context_free(ctx);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    read_as(data, size, "fuzz.jsonl", NULL);
    read_as(data, size, "fuzz.csv", NULL);
    read_as(data, size, "fuzz.tsv", "cp949");
    read_as(data, size, "fuzz.txt", NULL);
    return 0;
}

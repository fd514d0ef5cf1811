/* fuzz_journal.c: any bytes as log.csv (first byte even) or log.jsonl; cut at a step, read back, shown as a page. */
#include "journal/log_entry.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Aborts where a history is not what log_entry.h promises. */
static void check(const struct geul_log_history *h)
{
    for (size_t i = 1; i < h->n_points; i++)
        if (h->points[i].step <= h->points[i - 1].step)
            abort();
    for (size_t i = 1; i < h->n_evaluations; i++)
        if (h->evaluations[i].step <= h->evaluations[i - 1].step)
            abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 2)
        return 0;
    struct geul_context *ctx = geul_context_new(NULL);
    geul_log_parse parse = data[0] % 2 ? geul_log_jsonl.parse : geul_log_csv.parse;
    struct geul_journal_options o = {.size = sizeof o, .title = "fuzz", .total_steps = data[1]};
    struct geul_log_history h = {.ctx = ctx};
    struct geul_log_text page = {.ctx = ctx};
    const char *log = (const char *)data + 2;
    size_t resume_size;
    if (geul_log_lines_resume_size(ctx, parse, log, size - 2, data[1], &resume_size) != GEUL_OK ||
        resume_size > size - 2 || geul_log_lines_read(&h, parse, log, size - 2) != GEUL_OK ||
        geul_error_status(ctx) != GEUL_OK)
        abort();
    check(&h);
    geul_log_report_page(&page, &h, &o);
    if (page.failed || memchr(page.bytes.data, '\0', page.bytes.length))
        abort();
    geul_log_text_free(&page);
    geul_log_history_free(&h);
    geul_context_free(ctx);
    return 0;
}

/* row_notes.c: see row_notes.h. */
#include "command/row_notes.h"

#include "command/report.h"

void geul_row_notes_print(const struct geul_row_problems *p)
{
    for (int i = 0; i < p->n_texts; i++)
        geul_report_note("%s", p->texts[i]);
    if (p->n > p->n_texts)
        geul_report_note("and %lld more rows like these", (long long)(p->n - p->n_texts));
    if (p->n > 0)
        geul_report_note("%lld row%s left out", (long long)p->n, p->n == 1 ? " was" : "s were");
}

/* row_notes.c: see row_notes.h. */
#include "command/row_notes.h"

#include "command/report.h"

void geul_row_notes_print(const struct geul_row_problems *p)
{
    const int64_t n = geul_row_problems_count(p);
    const char *text;
    int shown = 0;
    for (; (text = geul_row_problems_text(p, shown)); shown++)
        geul_report_note("%s", text);
    if (n > shown)
        geul_report_note("and %lld more rows like these", (long long)(n - shown));
    if (n > 0)
        geul_report_note("%lld row%s left out", (long long)n, n == 1 ? " was" : "s were");
}

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
    for (int i = 0; (text = geul_row_problems_note(p, i)); i++)
        geul_report_note("%s", text);
}

void geul_row_notes_print_forms(const struct geul_row_problems *p)
{
    const char *text;
    for (int i = 0; (text = geul_row_problems_form(p, i)); i++)
        geul_report_note("%s", text);
}

void geul_row_notes_print_nfc(int64_t not_nfc, bool applied)
{
    if (not_nfc == 0)
        return;
    const char *rows = not_nfc == 1 ? "row has" : "rows have";
    if (applied)
        geul_report_note("%lld %s decomposed characters (NFD), which were composed (NFC); --nfc off keeps them",
                         (long long)not_nfc, rows);
    else
        geul_report_note("%lld %s decomposed characters (NFD); --nfc on composes them", (long long)not_nfc, rows);
}

/* shard_files.c: see shard_files.h. */
#include "command/shard_files.h"

#include "command/model_args.h"
#include "command/progress.h"
#include "command/report.h"
#include "command/row_notes.h"
#include "command/terminal.h"

#include "core/os.h"
#include "geul_tools.h"

#include <stdio.h>

/* Prints the sum of what was written. Returns the exit code. */
static int print_summary(const struct geul_shard_files *how, const struct geul_shards_report *r, int64_t left_out,
                         double seconds)
{
    double rate = seconds > 0 ? (double)r->tokens / seconds : 0;
    char time[32];
    if (how->json)
        return geul_report_json_line(
            json_pack("{s:I, s:I, s:i, s:I, s:o, s:o, s:o}", "documents", (json_int_t)r->documents, "tokens",
                      (json_int_t)r->tokens, "files", r->files, "left_out", (json_int_t)left_out, "prefix",
                      geul_report_json_name(how->prefix), "seconds", geul_report_json_real(seconds),
                      "tokens_per_second", geul_report_json_real(rate)));
    printf("%lld document%s, %lld tokens, %.0f tokens/s, %s\n", (long long)r->documents, r->documents == 1 ? "" : "s",
           (long long)r->tokens, rate, geul_progress_time(seconds, time, sizeof time));
    printf("%d file%s: %s-00000.geulshard", r->files, r->files == 1 ? "" : "s", how->prefix);
    if (r->files > 1)
        printf(" to %s-%05d.geulshard", how->prefix, r->files - 1);
    putchar('\n');
    return 0;
}

/* Prints what is to be said about the rows. */
static void print_notes(const struct geul_row_problems *problems, const struct geul_shards_report *r)
{
    geul_row_notes_print(problems);
    geul_row_notes_print_nfc(r->not_nfc, r->nfc_applied);
    if (r->marked > 0)
        geul_report_note("%lld answers that are marked as not to be learned are in the shards like all others: shards "
                         "have no masks",
                         (long long)r->marked);
}

int geul_shard_files_write(struct geul_context *ctx, const struct geul_tokenizer *tok,
                           const struct geul_shard_files *how)
{
    struct geul_template *t = NULL;
    if (how->template_name && !geul_template_open(ctx, NULL, how->template_name, &t))
        return 1;
    struct geul_row_problems *problems = geul_row_problems_new(ctx);
    struct geul_shards_options options = {.size = sizeof options,
                                          .prompt_template = t,
                                          .shard_tokens = (uint64_t)how->shard_tokens,
                                          .problems = problems,
                                          .progress = geul_progress_callback,
                                          .encoding = how->encoding,
                                          .nfc = how->nfc};
    struct geul_shards_report report = {.size = sizeof report};
    geul_interrupt_catch(1);
    geul_terminate_catch();
    geul_progress_start("tokenizing", NULL);
    double start = geul_os_seconds();
    enum geul_status status = GEUL_ERROR_MEMORY;
    if (problems)
        status = geul_shards_write(ctx, tok, how->paths, how->n_paths, how->prefix, &options, &report);
    double seconds = geul_os_seconds() - start;
    geul_progress_hide();
    if (status == GEUL_OK)
        print_notes(problems, &report);
    int code = status == GEUL_OK ? print_summary(how, &report, geul_row_problems_count(problems), seconds)
                                 : geul_report_failure(ctx);
    geul_row_problems_free(problems);
    geul_template_free(t);
    return code;
}

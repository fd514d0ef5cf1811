/* quantizing.c: converts a Hugging Face directory to a GGUF file of 16-bit weights, and quantizes that.
 *
 *     cc quantizing.c $(pkg-config --cflags --libs geul-tools) -o quantizing
 *     ./quantizing polyglot-ko-1.3b polyglot-f16.gguf polyglot-q4_k_m.gguf q4_k_m */
#include <geul_tools.h>

#include <inttypes.h>
#include <stdio.h>

static bool show(void *user, uint64_t done, uint64_t total)
{
    fprintf(stderr, "\r%s %3.0f %%", (const char *)user, 100 * (double)done / (double)total);
    return true; /* false would stop */
}

int main(int argc, char **argv)
{
    if (argc != 5 || !geul_mix_find(argv[4])) {
        fprintf(stderr, "usage: quantizing DIR F16.gguf OUT.gguf TYPE\n");
        return 2;
    }
    struct geul_context *ctx = geul_context_new(NULL);
    struct geul_convert_options convert = {
        .size = sizeof convert, .type = GEUL_TYPE_F16, .progress = show, .user = "converting"};
    struct geul_quantize_options how = {
        .size = sizeof how, .mix = geul_mix_find(argv[4]), .progress = show, .user = "quantizing"};
    bool ok = geul_convert_hf(ctx, argv[1], argv[2], &convert) == GEUL_OK;
    struct geul_quantize *q = ok ? geul_quantize_new(ctx, argv[2], &how) : NULL;
    ok = q && geul_quantize_write(q, argv[3]) == GEUL_OK;
    struct geul_quantize_summary sum = {.size = sizeof sum};
    if (ok)
        geul_quantize_get_summary(q, &sum);
    fprintf(stderr, "\n%s\n", geul_error(ctx));
    printf("%s: %" PRIu64 " bytes, %.2f bits per weight\n", argv[3], sum.to_bytes, sum.to_bpw);
    geul_quantize_free(q);
    geul_context_free(ctx);
    return ok ? 0 : 1;
}

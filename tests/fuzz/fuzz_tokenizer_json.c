/* libFuzzer target: tokenizer.json. What loads must also tokenize and survive the way through a GGUF spec. */
#include "geul_tools.h"
#include "convert/tokenizer_json.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char text[] = "가\u0301 a<|endoftext|>b \xFF 123's\n\n  끝";
    struct geul_context *ctx = geul_context_new(NULL);
    struct geul_tokenizer_spec spec;
    geul_tokenizer_spec_init(&spec);
    struct geul_tokenizer *tok = NULL;
    if (geul_tokenizer_spec_from_json(ctx, (const char *)data, size, &spec) == GEUL_OK)
        tok = geul_tokenizer_new(ctx, &spec, geul_regex_pcre2());
    geul_tokenizer_spec_free(ctx, &spec);
    int32_t *ids;
    size_t count, length;
    if (tok && geul_tokenize(ctx, tok, text, sizeof text, true, &ids, &count) == GEUL_OK) {
        geul_text_free(ctx, geul_detokenize(ctx, tok, ids, count, false, &length));
        geul_tokens_free(ctx, ids);
    }
    geul_tokenizer_free(tok);
    geul_context_free(ctx);
    return 0;
}

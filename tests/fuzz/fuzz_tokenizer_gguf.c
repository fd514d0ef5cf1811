/* fuzz_tokenizer_gguf.c: any bytes as a GGUF file with a tokenizer. What loads splits any text into ids that it has. */
#include "tests/fuzz/frame.h"

#include "geul_tools.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char text[] = "가\u0301 ab a<|endoftext|>b<|sep|> \xFF 123's\n\n  끝";
    char path[64];
    struct fuzz_memory memory = {.most = 64 << 20};
    struct geul_context *ctx = fuzz_context(&memory);
    struct geul_tokenizer *tok = geul_tokenizer_load(ctx, fuzz_file(data, size, path), geul_regex_pcre2());
    if ((tok != NULL) != (geul_error_status(ctx) == GEUL_OK))
        abort();
    for (int special = 0; tok && special < 2; special++) {
        int32_t *ids;
        size_t count, length;
        if (geul_tokenize(ctx, tok, text, sizeof text, special, &ids, &count) != GEUL_OK)
            break;
        for (size_t i = 0; i < count; i++)
            if (ids[i] < 0 || ids[i] >= geul_tokenizer_size(tok))
                abort();
        geul_text_free(ctx, geul_detokenize(ctx, tok, ids, count, false, &length));
        geul_tokens_free(ctx, ids);
    }
    if (tok && geul_token_end(tok) >= geul_tokenizer_size(tok))
        abort();
    geul_tokenizer_free(tok);
    geul_context_free(ctx);
    if (memory.used != 0)
        abort();
    return 0;
}

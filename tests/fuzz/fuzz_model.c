/* fuzz_model.c: any bytes as a whole model: loaded, evaluated and asked for text. */
#include "tests/fuzz/frame.h"

#include "geul_tools.h"

static bool check_logits(void *user, int item, const float *logits, int n_vocab)
{
    float *sum = user;
    *sum += logits[0] + logits[n_vocab - 1];
    return item < 2;
}

/* Texts that come out are whole, and ids are the model's. */
static void generate(struct geul_session *s, int n_vocab)
{
    static const struct geul_sampling greedy = {.temperature = 0, .top_p = 1, .typical_p = 1, .repeat_penalty = 1};
    const struct geul_generation how = {.sampling = &greedy, .max_tokens = 3, .seq = 1};
    struct geul_generation_result r;
    if (geul_generate(s, "ab a<|endoftext|> 가", &how, &r) != GEUL_OK)
        return;
    for (int i = 0; i < r.n_generated; i++)
        if (r.tokens[i] < 0 || r.tokens[i] >= n_vocab)
            abort();
    geul_tokens_free(geul_session_context(s), r.tokens);
    geul_text_free(geul_session_context(s), r.text);
}

static void evaluate(struct geul_session *s, int n_vocab)
{
    float sum = 0;
    const struct geul_batch_item items[] = {{0, 0, false}, {n_vocab - 1, 0, true}, {n_vocab / 2, 1, true}};
    int lengths[2] = {geul_session_length(s, 0), geul_session_length(s, 1)};
    if (geul_session_eval(s, items, 3, check_logits, &sum) == GEUL_OK)
        return;
    if (geul_session_length(s, 0) != lengths[0] || geul_session_length(s, 1) != lengths[1])
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char path[64];
    struct fuzz_memory memory = {.most = 32 << 20};
    struct geul_context *ctx = fuzz_context(&memory);
    const struct geul_model_options options = {.n_threads = 1, .regex = geul_regex_pcre2()};
    const struct geul_session_options session = {.n_context = 16, .n_sequences = 2, .n_batch = 8};
    struct geul_model *model = geul_model_load(ctx, fuzz_file(data, size, path), &options);
    if ((model != NULL) != (geul_error_status(ctx) == GEUL_OK))
        abort();
    struct geul_session *s = model ? geul_session_new(ctx, model, &session) : NULL;
    if (s) {
        int n_vocab = geul_model_get_shape(model)->n_vocab;
        evaluate(s, n_vocab);
        if (geul_model_get_tokenizer(model))
            generate(s, n_vocab);
    }
    geul_session_free(s);
    geul_model_free(model);
    geul_context_free(ctx);
    if (memory.used != 0) /* a context gives back all that it took */
        abort();
    return 0;
}

/* completion.c: continues a text, printing it as it comes.
 *
 *     cc completion.c $(pkg-config --cflags --libs geul) -o completion
 *     ./completion share/geul-mini.gguf "오늘 날씨가" */
#include <geul.h>

#include <stdio.h>

static bool print_text(void *user, const char *text, size_t length)
{
    (void)user;
    fwrite(text, 1, length, stdout);
    fflush(stdout);
    return true; /* false would stop */
}

int main(int argc, char **argv)
{
    struct geul_context *ctx = geul_context_new(NULL);
    struct geul_model *model = argc == 3 ? geul_model_load(ctx, argv[1], NULL) : NULL;
    struct geul_session *session = model ? geul_session_new(ctx, model, NULL) : NULL;
    struct geul_sampling sampling = geul_sampling_default();
    struct geul_generation how = {.sampling = &sampling, .max_tokens = 64, .on_text = print_text};
    bool ok = session && geul_generate(session, argv[2], &how, NULL) == GEUL_OK;
    puts("");
    if (!ok)
        fprintf(stderr, "completion MODEL.gguf TEXT: %s\n", geul_error(ctx));
    geul_session_free(session);
    geul_model_free(model);
    geul_context_free(ctx);
    return ok ? 0 : 1;
}

/* chat.c: a conversation, one question a line. The session keeps the conversation, so only new tokens are computed.
 *
 *     cc chat.c $(pkg-config --cflags --libs geul) -o chat
 *     ./chat share/geul-mini.gguf */
#include <geul.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { TURNS_MAX = 32, LINE_MAX_BYTES = 1024 };

static bool print_text(void *user, const char *text, size_t length)
{
    (void)user;
    fwrite(text, 1, length, stdout);
    fflush(stdout);
    return true;
}

/* Answers the last turn and keeps the answer in it. */
static bool answer(struct geul_context *ctx, struct geul_session *session, const struct geul_template *form,
                   struct geul_turn *turns, int n)
{
    struct geul_generation how = {.max_tokens = 128, .on_text = print_text};
    struct geul_generation_result result;
    how.stop = geul_template_stops(form, &how.n_stop);
    char *prompt = geul_template_apply(ctx, form, turns, n, NULL);
    bool ok = prompt && geul_generate(session, prompt, &how, &result) == GEUL_OK;
    geul_text_free(ctx, prompt);
    puts("");
    if (!ok)
        return false;
    turns[n - 1].answer = result.text;
    geul_tokens_free(ctx, result.tokens);
    return true;
}

int main(int argc, char **argv)
{
    struct geul_context *ctx = geul_context_new(NULL);
    struct geul_model *model = argc == 2 ? geul_model_load(ctx, argv[1], NULL) : NULL;
    struct geul_session *session = model ? geul_session_new(ctx, model, NULL) : NULL;
    const char *name = model ? geul_model_get_template(model) : NULL;
    struct geul_template *form = session ? geul_template_new(ctx, name ? name : "koalpaca") : NULL;
    struct geul_turn turns[TURNS_MAX];
    static char lines[TURNS_MAX][LINE_MAX_BYTES];
    bool ok = form != NULL;
    int n = 0;
    while (ok && n < TURNS_MAX && fgets(lines[n], LINE_MAX_BYTES, stdin)) {
        lines[n][strcspn(lines[n], "\n")] = '\0';
        turns[n] = (struct geul_turn){.question = lines[n]};
        ok = answer(ctx, session, form, turns, ++n);
    }
    if (!ok)
        fprintf(stderr, "chat MODEL.gguf: %s\n", geul_error(ctx));
    for (int i = 0; i < n; i++)
        geul_text_free(ctx, (char *)turns[i].answer);
    geul_template_free(form);
    geul_session_free(session);
    geul_model_free(model);
    geul_context_free(ctx);
    return ok ? 0 : 1;
}

/* chat_turns.c: the conversation as data: turns, the prompt they make, and their file. */
#include "command/chat/chat.h"

#include "command/report.h"

#include "core/os.h"
#include "formats/json_file.h"

#include <stdlib.h>
#include <string.h>

char *geul_chat_text(const struct geul_chat *c, const char *text)
{
    size_t length = strlen(text);
    char *copy = strdup(text);
    if (copy && !geul_nfc_prompt((struct geul_loaded *)(uintptr_t)&c->loaded, c->nfc, &copy, &length)) {
        free(copy);
        return NULL;
    }
    return copy;
}

bool geul_chat_push(struct geul_chat *c, const char *question)
{
    if (c->n_turns == c->turns_size) {
        int size = 2 * c->turns_size + 16;
        struct geul_chat_turn *grown = realloc(c->turns, (size_t)size * sizeof *grown);
        if (!grown)
            return false;
        c->turns = grown;
        c->turns_size = size;
    }
    char *copy = geul_chat_text(c, question);
    if (!copy)
        return false;
    c->turns[c->n_turns++] = (struct geul_chat_turn){copy, NULL};
    return true;
}

void geul_chat_drop_first(struct geul_chat *c)
{
    free(c->turns[0].question);
    free(c->turns[0].answer);
    c->n_turns--;
    memmove(c->turns, c->turns + 1, (size_t)c->n_turns * sizeof *c->turns);
}

void geul_chat_drop_last(struct geul_chat *c)
{
    c->n_turns--;
    free(c->turns[c->n_turns].question);
    free(c->turns[c->n_turns].answer);
}

void geul_chat_drop_all(struct geul_chat *c)
{
    while (c->n_turns > 0)
        geul_chat_drop_last(c);
}

/* Appends s to the malloc()ed text. false when memory is short; the text is then freed. */
static bool append(char **text, size_t *length, const char *s)
{
    size_t n = strlen(s);
    char *grown = realloc(*text, *length + n + 1);
    if (!grown) {
        free(*text);
        *text = NULL;
        return false;
    }
    memcpy(grown + *length, s, n + 1);
    *text = grown;
    *length += n;
    return true;
}

/* A base model's prompt: the whole conversation, a line per text. */
static char *plain_prompt(const struct geul_chat *c, int first)
{
    char *text = NULL;
    size_t length = 0;
    bool ok = append(&text, &length, c->system ? c->system : "");
    if (ok && c->system)
        ok = append(&text, &length, "\n");
    for (int i = first; ok && i < c->n_turns; i++) {
        ok = append(&text, &length, c->turns[i].question);
        if (ok && c->turns[i].answer)
            ok = append(&text, &length, c->turns[i].answer) && append(&text, &length, "\n");
    }
    return text;
}

char *geul_chat_prompt(const struct geul_chat *c, int first)
{
    if (!c->form)
        return plain_prompt(c, first);
    int n = c->n_turns - first;
    struct geul_turn *turns = calloc((size_t)n, sizeof *turns);
    if (!turns)
        return NULL;
    for (int i = 0; i < n; i++)
        turns[i] = (struct geul_turn){c->turns[first + i].question, c->turns[first + i].answer};
    char *text = geul_template_apply(c->loaded.ctx, c->form, turns, n, c->system);
    char *copy = text ? strdup(text) : NULL;
    geul_text_free(c->loaded.ctx, text);
    free(turns);
    return copy;
}

bool geul_chat_save(const struct geul_chat *c, const char *path)
{
    json_t *turns = json_array();
    for (int i = 0; i < c->n_turns; i++) {
        const struct geul_chat_turn *t = &c->turns[i];
        json_array_append_new(turns, json_pack("{s:o, s:o}", "question",
                                               geul_report_json_text(t->question, strlen(t->question)), "answer",
                                               geul_report_json_text(t->answer, strlen(t->answer))));
    }
    json_t *system = c->system ? geul_report_json_text(c->system, strlen(c->system)) : json_null();
    json_t *json = json_pack("{s:s, s:o, s:o}", "template", c->form ? geul_template_name(c->form) : "", "system",
                             system, "turns", turns);
    geul_error_clear(c->loaded.ctx);
    bool ok = json && geul_json_save(c->loaded.ctx, path, json, false) == GEUL_OK;
    json_decref(json);
    if (!ok)
        geul_report_failure(c->loaded.ctx);
    return ok;
}

/* Whether every turn has a question and an answer. */
static bool turns_fit(const json_t *turns)
{
    bool fit = json_is_array(turns);
    for (size_t i = 0; fit && i < json_array_size(turns); i++) {
        const json_t *t = json_array_get(turns, i);
        fit = json_is_string(json_object_get(t, "question")) && json_is_string(json_object_get(t, "answer"));
    }
    return fit;
}

bool geul_chat_load(struct geul_chat *c, const char *path)
{
    geul_error_clear(c->loaded.ctx);
    json_t *json = geul_json_load(c->loaded.ctx, path);
    geul_os_forget_input(c->loaded.ctx, path); /* /save may go on in it */
    if (!json) {
        geul_report_failure(c->loaded.ctx);
        return false;
    }
    const json_t *turns = json_object_get(json, "turns");
    if (!turns_fit(turns)) {
        geul_report_error("%s is not a conversation: it needs \"turns\", each with \"question\" and \"answer\"", path);
        json_decref(json);
        return false;
    }
    /* The file is known to be good, so the current conversation may be discarded. */
    geul_chat_drop_all(c);
    free(c->system);
    const char *system = json_string_value(json_object_get(json, "system"));
    c->system = system ? geul_chat_text(c, system) : NULL;
    for (size_t i = 0; i < json_array_size(turns); i++) {
        const json_t *t = json_array_get(turns, i);
        if (!geul_chat_push(c, json_string_value(json_object_get(t, "question"))))
            break;
        c->turns[c->n_turns - 1].answer = strdup(json_string_value(json_object_get(t, "answer")));
        if (!c->turns[c->n_turns - 1].answer)
            geul_chat_drop_last(c);
    }
    json_decref(json);
    return true;
}

/* chat_complete.c: what Tab may put before the cursor. */
#include "command/chat/chat.h"

#include "command/options.h"
#include "command/paths.h"

#include "core/os.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* What was typed of a word, and where what begins with it goes. */
struct beginning {
    const char *text;
    size_t n;
    struct geul_line_choices *choices;
};

static void offer_setting(void *user, const char *name, size_t n)
{
    const struct beginning *b = user;
    if (n >= b->n && memcmp(name, b->text, b->n) == 0)
        geul_line_choices_add(b->choices, name, n);
}

/* A path's last part, in a directory; the rest of the path is typed before it. */
struct listing {
    struct beginning name;
    const char *typed, *directory; /* typed: up to its last "/" */
};

static void offer_file(void *user, const char *name)
{
    const struct listing *l = user;
    char path[4096], item[4096];
    struct stat st;
    bool hidden = name[0] == '.' && (l->name.n == 0 || l->name.text[0] != '.');
    if (hidden || strcmp(name, ".") == 0 || strcmp(name, "..") == 0 || strncmp(name, l->name.text, l->name.n) != 0)
        return;
    snprintf(path, sizeof path, "%s/%s", l->directory, name);
    bool is_directory = stat(path, &st) == 0 && S_ISDIR(st.st_mode);
    int n = snprintf(item, sizeof item, "%s%s%s", l->typed, name, is_directory ? "/" : "");
    if (n > 0 && (size_t)n < sizeof item && !strpbrk(name, "\n\r\033"))
        geul_line_choices_add(l->name.choices, item, (size_t)n);
}

static void offer_files(const char *word, size_t n, struct geul_line_choices *choices)
{
    char *path = strndup(word, n), *slash = path ? strrchr(path, '/') : NULL;
    if (!path)
        return;
    size_t head = slash ? (size_t)(slash + 1 - path) : 0;
    char *typed = strndup(path, head), *directory = typed ? geul_path_expand(typed) : NULL;
    struct listing l = {{path + head, n - head, choices}, typed, directory && *directory ? directory : "."};
    struct geul_context *ctx = directory ? geul_context_new(NULL) : NULL;
    if (ctx)
        geul_os_list(ctx, l.directory, offer_file, &l); /* what cannot be read offers nothing */
    geul_context_free(ctx);
    free(directory);
    free(typed);
    free(path);
}

void geul_chat_complete(const char *text, size_t cursor, struct geul_line_choices *choices)
{
    enum geul_chat_argument takes;
    size_t name = strcspn(text, " \t\n");
    if (text[0] != '/')
        return;
    if (name > cursor)
        name = cursor;
    struct beginning b = {text, name, choices};
    const char *command;
    if (cursor == name) {
        for (int i = 0; (command = geul_chat_command_at(i, &takes)); i++)
            if (strncmp(command, text, name) == 0)
                geul_line_choices_add(choices, command, strlen(command));
        return;
    }
    size_t begin = name + strspn(text + name, " \t");
    if (begin > cursor)
        begin = cursor;
    choices->begin = begin;
    b.text = text + begin;
    b.n = cursor - begin;
    for (int i = 0; (command = geul_chat_command_at(i, &takes)); i++) {
        if (strlen(command) != name || memcmp(command, text, name) != 0)
            continue;
        if (takes == GEUL_CHAT_FILE)
            offer_files(b.text, b.n, choices);
        else if (takes == GEUL_CHAT_SETTING)
            geul_option_each_setting(geul_chat_options, offer_setting, &b);
    }
}

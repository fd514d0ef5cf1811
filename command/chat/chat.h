/* chat.h: a conversation with a model. */
#ifndef GEUL_CHAT_H
#define GEUL_CHAT_H

#include "command/chat/draft_args.h"
#include "command/generation.h"

/* A finished or waiting turn; both texts are malloc()ed, answer is NULL while it waits. */
struct geul_chat_turn {
    char *question, *answer;
};

struct geul_chat_settings {
    struct geul_sampling_args sampling;
    int n_predict;
};

struct geul_chat {
    struct geul_loaded loaded;
    struct geul_drafter drafter;
    struct geul_template *form; /* NULL: a base model, whose texts are simply continued */
    struct geul_chat_settings settings;
    char *system; /* malloc()ed context for the first turn, or NULL */
    struct geul_chat_turn *turns;
    int n_turns, turns_size;
    uint64_t n_answers; /* added to the seed, so that /retry gives another answer */
    bool json;          /* one JSON object a line instead of text */
    bool ignore_eos;    /* answers continue after the end token */
    bool done;          /* /exit */
    enum geul_nfc nfc;  /* for what the user writes */
    int code;           /* exit code so far */
};

/* chat_turns.c: the conversation as data. */

/* A malloc()ed copy of what the user wrote, in NFC where that applies; NULL when memory is short. */
char *geul_chat_text(const struct geul_chat *c, const char *text);
/* Appends a waiting turn. false when memory is short. */
bool geul_chat_push(struct geul_chat *c, const char *question);
void geul_chat_drop_first(struct geul_chat *c);
void geul_chat_drop_last(struct geul_chat *c);
void geul_chat_drop_all(struct geul_chat *c);
/* The prompt for turns first..n_turns-1, of which the last waits; free with free(). NULL when memory is short. */
char *geul_chat_prompt(const struct geul_chat *c, int first);
/* Writes the conversation to a JSON file; reads one, which replaces the current one. false after a message. */
bool geul_chat_save(const struct geul_chat *c, const char *path);
bool geul_chat_load(struct geul_chat *c, const char *path);

/* chat_answer.c: answers the last, waiting turn: prints the answer and keeps it, or says why not and drops the turn. */
void geul_chat_answer(struct geul_chat *c);

/* chat_commands.c: carries out a line that begins with "/". */
void geul_chat_command(struct geul_chat *c, const char *line);
/* The rows that /set changes in struct geul_chat_settings. */
extern const struct geul_option geul_chat_options[];

/* chat_line.c: lines from the terminal, with editing and history, or from a pipe. */
struct geul_chat_line;
/* Never fails: without a terminal it reads plain lines, without a writable directory it keeps no history. */
struct geul_chat_line *geul_chat_line_new(struct geul_context *ctx);
void geul_chat_line_free(struct geul_chat_line *l);
bool geul_chat_line_terminal(const struct geul_chat_line *l);
/* The next line, valid until the next call; "" after Ctrl-C; NULL at the end, and after a message about a line that is
 * no text. */
const char *geul_chat_line_read(struct geul_chat_line *l);
/* Whether a line was no text. */
bool geul_chat_line_failed(const struct geul_chat_line *l);

#endif

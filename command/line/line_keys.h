/* line_keys.h: keys from the terminal on stdin. */
#ifndef GEUL_LINE_KEYS_H
#define GEUL_LINE_KEYS_H

#include <stdbool.h>
#include <stdint.h>

/* A key is a code point, or one of these; Alt adds GEUL_KEY_ALT. */
enum {
    GEUL_KEY_NONE = 0x110000, /* a key that has no meaning here */
    GEUL_KEY_UP,
    GEUL_KEY_DOWN,
    GEUL_KEY_LEFT,
    GEUL_KEY_RIGHT,
    GEUL_KEY_WORD_LEFT,
    GEUL_KEY_WORD_RIGHT,
    GEUL_KEY_HOME,
    GEUL_KEY_END,
    GEUL_KEY_DELETE,
    GEUL_KEY_PASTE_BEGIN,
    GEUL_KEY_PASTE_END,
    /* No keys, but what a reader has to know: */
    GEUL_KEY_INTERRUPTED, /* Ctrl-C */
    GEUL_KEY_CLOSED,      /* the end of the input, or SIGTERM or SIGHUP */
    GEUL_KEY_SUSPENDED,   /* Ctrl-Z: call geul_line_keys_suspend() */
    GEUL_KEY_RESIZED,
    GEUL_KEY_CONTINUED, /* the shell has used the terminal in between */
    GEUL_KEY_ALT = 0x1000000,
};
#define GEUL_KEY_CTRL(letter) ((letter)&0x1f)

struct geul_line_keys;
/* NULL when memory is short. Free with geul_line_keys_free(). */
struct geul_line_keys *geul_line_keys_new(void);
void geul_line_keys_free(struct geul_line_keys *k);

/* Between these two the terminal hands over every key at once, without showing it, and signals are caught. paste: lets
 * the terminal mark what is pasted. */
bool geul_line_keys_begin(struct geul_line_keys *k, bool paste);
void geul_line_keys_end(struct geul_line_keys *k);
/* The next key. */
int32_t geul_line_keys_read(struct geul_line_keys *k);
/* Whether more input is there already. */
bool geul_line_keys_pending(struct geul_line_keys *k);
/* Stops the program until the shell continues it. */
void geul_line_keys_suspend(struct geul_line_keys *k);

#endif

/* line_keys.c: see line_keys.h.
 *
 * Input is UTF-8 whatever the locale says; what is not becomes U+FFFD. Signal handlers only set flags, which are looked
 * at between keys, and at least every POLL_MS while none comes. Ctrl-C stays a signal, because the rest of the program
 * knows it as one (terminal.h). The handlers of the other signals are there only while a line is read: during an answer
 * Ctrl-Z and SIGTERM do what they always do. */
#include "command/line/line_keys.h"

#include "command/line/cluster.h"
#include "command/line/line_view.h"
#include "command/terminal.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <termios.h>
#include <unistd.h>

enum { POLL_MS = 100, ESCAPE = 0x1b };
/* In place of a byte: */
enum { CLOSED = -1, INTERRUPTED = -2, SIGNALLED = -3 };

static const int signals[] = {SIGWINCH, SIGCONT, SIGTSTP, SIGTERM, SIGHUP};
enum { N_SIGNALS = sizeof signals / sizeof *signals };

struct geul_line_keys {
    unsigned char input[4096];
    size_t at, n; /* of input */
    bool paste;
    struct termios before;
    struct sigaction actions[N_SIGNALS]; /* of the time before */
};

static volatile sig_atomic_t resized, continued, suspended, closed;

static void on_signal(int number)
{
    if (number == SIGWINCH)
        resized = 1;
    else if (number == SIGCONT)
        continued = 1;
    else if (number == SIGTSTP)
        suspended = 1;
    else
        closed = 1;
}

/* ---- the terminal's mode ------------------------------------------------------------------- */

static void write_text(const char *text)
{
    geul_line_view_write(text, strlen(text));
}

static bool set_mode(struct geul_line_keys *k)
{
    struct termios raw = k->before;
    raw.c_iflag &= ~(tcflag_t)(ICRNL | INLCR | IGNCR | IXON | ISTRIP);
    raw.c_lflag &= ~(tcflag_t)(ICANON | ECHO | IEXTEN);
    raw.c_cc[VMIN] = 1;
    raw.c_cc[VTIME] = 0;
    if (tcsetattr(STDIN_FILENO, TCSADRAIN, &raw) != 0)
        return false;
    if (k->paste)
        write_text("\033[?2004h");
    return true;
}

static void reset_mode(struct geul_line_keys *k)
{
    if (k->paste)
        write_text("\033[?2004l");
    tcsetattr(STDIN_FILENO, TCSADRAIN, &k->before);
}

bool geul_line_keys_begin(struct geul_line_keys *k, bool paste)
{
    struct sigaction action = {.sa_handler = on_signal};
    sigemptyset(&action.sa_mask);
    k->paste = paste;
    if (tcgetattr(STDIN_FILENO, &k->before) != 0 || !set_mode(k))
        return false;
    resized = continued = suspended = closed = 0;
    for (int i = 0; i < N_SIGNALS; i++)
        sigaction(signals[i], &action, &k->actions[i]);
    return true;
}

void geul_line_keys_end(struct geul_line_keys *k)
{
    for (int i = 0; i < N_SIGNALS; i++)
        sigaction(signals[i], &k->actions[i], NULL);
    reset_mode(k);
}

void geul_line_keys_suspend(struct geul_line_keys *k)
{
    geul_line_keys_end(k);
    raise(SIGTSTP); /* returns when the shell continues the program */
    geul_line_keys_begin(k, k->paste);
    continued = 1;
}

/* ---- bytes --------------------------------------------------------------------------------- */

/* The next byte, or CLOSED or INTERRUPTED; with between, SIGNALLED as soon as another signal was caught. */
static int read_byte(struct geul_line_keys *k, bool between)
{
    struct pollfd input = {.fd = STDIN_FILENO, .events = POLLIN};
    while (k->at == k->n) {
        if (geul_interrupted())
            return INTERRUPTED;
        if (closed)
            return CLOSED;
        if (between && (resized || continued || suspended))
            return SIGNALLED;
        int ready = poll(&input, 1, POLL_MS); /* a signal right before this call is noticed when it times out */
        ssize_t n = ready > 0 ? read(STDIN_FILENO, k->input, sizeof k->input) : 0;
        if (ready > 0 && n == 0)
            return CLOSED;
        if ((ready < 0 || n < 0) && errno != EINTR && errno != EAGAIN)
            return CLOSED;
        k->at = 0;
        k->n = n > 0 ? (size_t)n : 0;
    }
    return k->input[k->at++];
}

bool geul_line_keys_pending(struct geul_line_keys *k)
{
    struct pollfd input = {.fd = STDIN_FILENO, .events = POLLIN};
    return k->at < k->n || poll(&input, 1, 0) > 0;
}

/* What a failed read_byte() means to the reader of keys. */
static int32_t key_of_failure(struct geul_line_keys *k, int failure)
{
    if (failure == INTERRUPTED)
        return GEUL_KEY_INTERRUPTED;
    if (failure == CLOSED)
        return GEUL_KEY_CLOSED;
    volatile sig_atomic_t *flag = suspended ? &suspended : continued ? &continued : &resized;
    *flag = 0;
    if (flag == &continued) /* the shell has restored its own mode */
        set_mode(k);
    return flag == &suspended ? GEUL_KEY_SUSPENDED : flag == &continued ? GEUL_KEY_CONTINUED : GEUL_KEY_RESIZED;
}

/* The code point that begins with the byte. */
static int32_t read_character(struct geul_line_keys *k, int first)
{
    char bytes[4] = {(char)first};
    size_t n = 1, length = first >= 0xf0 ? 4 : first >= 0xe0 ? 3 : first >= 0xc0 ? 2 : 1, end;
    for (; n < length; n++) {
        int byte = read_byte(k, false);
        if (byte < 0)
            return key_of_failure(k, byte);
        if ((byte & 0xc0) != 0x80) {
            k->at--; /* begins something else */
            break;
        }
        bytes[n] = (char)byte;
    }
    return geul_cluster_decode(bytes, n, 0, &end);
}

/* ---- escape sequences ---------------------------------------------------------------------- */

/* ESC [ number ; modifier final, as the usual terminals send them, whatever TERM says: over ssh and inside tmux it
 * often names another terminal. With ESC O the numbers are 0. */
static const struct {
    char final;
    int number; /* of "~" */
    int32_t key, with_modifier;
} sequences[] = {
    {'A', 0, GEUL_KEY_UP, GEUL_KEY_UP},
    {'B', 0, GEUL_KEY_DOWN, GEUL_KEY_DOWN},
    {'C', 0, GEUL_KEY_RIGHT, GEUL_KEY_WORD_RIGHT},
    {'D', 0, GEUL_KEY_LEFT, GEUL_KEY_WORD_LEFT},
    {'c', 0, GEUL_KEY_WORD_RIGHT, GEUL_KEY_WORD_RIGHT}, /* rxvt */
    {'d', 0, GEUL_KEY_WORD_LEFT, GEUL_KEY_WORD_LEFT},
    {'H', 0, GEUL_KEY_HOME, GEUL_KEY_HOME},
    {'F', 0, GEUL_KEY_END, GEUL_KEY_END},
    {'M', 0, '\r', GEUL_KEY_ALT | '\r'}, /* Enter of the keypad */
    {'~', 1, GEUL_KEY_HOME, GEUL_KEY_HOME},
    {'~', 3, GEUL_KEY_DELETE, GEUL_KEY_DELETE},
    {'~', 4, GEUL_KEY_END, GEUL_KEY_END},
    {'~', 7, GEUL_KEY_HOME, GEUL_KEY_HOME},
    {'~', 8, GEUL_KEY_END, GEUL_KEY_END},
    {'~', 200, GEUL_KEY_PASTE_BEGIN, GEUL_KEY_PASTE_BEGIN},
    {'~', 201, GEUL_KEY_PASTE_END, GEUL_KEY_PASTE_END},
};

static int32_t key_of_sequence(int final, int number, int modifier)
{
    for (size_t i = 0; i < sizeof sequences / sizeof *sequences; i++)
        if (sequences[i].final == final && (final != '~' || sequences[i].number == number))
            return modifier > 1 ? sequences[i].with_modifier : sequences[i].key;
    return GEUL_KEY_NONE;
}

/* Reads what follows ESC [ or ESC O. */
static int32_t read_sequence(struct geul_line_keys *k, bool bracket)
{
    int numbers[2] = {0}, i = 0, byte = read_byte(k, false);
    if (bracket && byte == '[') /* a function key of the Linux console */
        return (byte = read_byte(k, false)) < 0 ? key_of_failure(k, byte) : GEUL_KEY_NONE;
    for (; byte >= 0x20 && byte < 0x40; byte = read_byte(k, false)) {
        if (byte == ';')
            i++;
        else if (byte >= '0' && byte <= '9' && i < 2 && numbers[i] < 10000)
            numbers[i] = 10 * numbers[i] + byte - '0';
    }
    return byte < 0 ? key_of_failure(k, byte) : key_of_sequence(byte, numbers[0], numbers[1]);
}

int32_t geul_line_keys_read(struct geul_line_keys *k)
{
    int byte = read_byte(k, true);
    int32_t alt = 0;
    while (byte == ESCAPE) {
        byte = read_byte(k, false);
        if (byte == '[' || byte == 'O')
            return read_sequence(k, byte == '[');
        alt = GEUL_KEY_ALT;
    }
    if (byte < 0)
        return key_of_failure(k, byte);
    int32_t c = read_character(k, byte);
    return c < GEUL_KEY_NONE ? c | alt : c;
}

struct geul_line_keys *geul_line_keys_new(void)
{
    return calloc(1, sizeof(struct geul_line_keys));
}

void geul_line_keys_free(struct geul_line_keys *k)
{
    free(k);
}

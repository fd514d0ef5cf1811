/* terminal.c: signals and the shape of the terminal. */
#include "command/terminal.h"

#include "core/os.h"

#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/ioctl.h>
#include <unistd.h>

static volatile sig_atomic_t interrupts, most_interrupts, last_signal;
/* Contexts that an interrupt cancels; NULL where there is none. */
enum { MOST_CANCELLED = 8 };
static struct geul_context *_Atomic cancelled[MOST_CANCELLED];

void geul_terminal_start(void)
{
    for (int fd = 0; fd <= 2; fd++)
        if (fcntl(fd, F_GETFD) < 0)
            (void)!open("/dev/null",
                        fd == 0 ? O_WRONLY
                                : O_RDONLY); /* opened for the opposite direction, so that using it is an error */
    signal(SIGPIPE, SIG_IGN);
    signal(SIGXFSZ, SIG_IGN); /* a file too large for `ulimit -f` is a failed write, like a full disk */
}

int geul_terminal_width(int fd)
{
    struct winsize size;
    if (ioctl(fd, TIOCGWINSZ, &size) == 0 && size.ws_col > 0)
        return size.ws_col;
    return 80;
}

bool geul_terminal_on_stderr(void)
{
    return isatty(STDERR_FILENO);
}

static void on_interrupt(int signal_number)
{
    last_signal = signal_number;
    if (++interrupts > most_interrupts) {
        geul_outfile_remove_all();
        _exit(128 + signal_number);
    }
    for (int i = 0; i < MOST_CANCELLED; i++) {
        struct geul_context *ctx = cancelled[i];
        if (ctx)
            geul_context_cancel(ctx);
    }
}

static void catch_signal(int signal_number)
{
    struct sigaction action = {.sa_handler = on_interrupt};
    sigemptyset(&action.sa_mask);
    sigaction(signal_number, &action, NULL);
}

void geul_interrupt_catch(int patience)
{
    most_interrupts = patience;
    catch_signal(SIGINT);
}

void geul_terminate_catch(void)
{
    static const int numbers[] = {SIGTERM, SIGHUP};
    struct sigaction before;
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) /* nohup has one of them ignored, and so it stays */
        if (sigaction(numbers[i], NULL, &before) == 0 && before.sa_handler != SIG_IGN)
            catch_signal(numbers[i]);
}

int geul_interrupt_code(void)
{
    return 128 + (last_signal ? last_signal : SIGINT);
}

bool geul_interrupted(void)
{
    return interrupts > 0;
}

void geul_interrupt_clear(void)
{
    interrupts = 0;
    for (int i = 0; i < MOST_CANCELLED; i++) {
        struct geul_context *ctx = cancelled[i];
        if (ctx)
            geul_context_uncancel(ctx);
    }
}

/* Puts `to` in the place of `from`, where there is such a place. */
static void replace_cancelled(struct geul_context *from, struct geul_context *to)
{
    for (int i = 0; i < MOST_CANCELLED; i++)
        if (cancelled[i] == from) {
            cancelled[i] = to;
            return;
        }
}

void geul_interrupt_cancels(struct geul_context *ctx)
{
    replace_cancelled(NULL, ctx);
}

void geul_interrupt_spares(struct geul_context *ctx)
{
    replace_cancelled(ctx, NULL);
}

/* terminal.c: signals and the shape of the terminal. */
#include "command/terminal.h"

#include "core/os.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <unistd.h>

static volatile sig_atomic_t interrupts, most_interrupts, last_signal;

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

int geul_terminal_width(void)
{
    struct winsize size;
    if (ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0)
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
}

static void catch (int signal_number)
{
    struct sigaction action = {.sa_handler = on_interrupt}, before;
    sigemptyset(&action.sa_mask);
    /* what was started with a signal ignored, by nohup for instance, ignores it still */
    if (sigaction(signal_number, NULL, &before) == 0 && before.sa_handler != SIG_IGN)
        sigaction(signal_number, &action, NULL);
}

void geul_interrupt_catch(int patience)
{
    most_interrupts = patience;
    catch (SIGINT);
}

void geul_terminate_catch(void)
{
    catch (SIGTERM);
    catch (SIGHUP);
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
}

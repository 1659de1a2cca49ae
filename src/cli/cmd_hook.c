/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * rbxj hook: reads a line, answers it, reads the next. Nothing is batched: a hook that is killed leaves what
 * it has acknowledged and at most the one request that it had in hand.
 */
#include "cli/cli.h"
#include "cli/hook.h"

#include "base/cleanup.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

const struct cli_option hook_options[] = {
    {0},
};

/* Lines as they come in, in bounded memory. */
struct input {
    char *buffer; /* HOOK_LINE_MAX and a newline */
    size_t start, len;
    size_t looked_at; /* no newline before that */
    bool too_long;    /* in a line that was refused: dropped up to its end */
    bool ended;
};

enum { BUFFER_SIZE = HOOK_LINE_MAX + 1 };

/* The other side may have made our end non-blocking. */
static int wait_for(int fd, short events)
{
    struct pollfd p = {.fd = fd, .events = events};
    return poll(&p, 1, -1) < 0 && errno != EINTR ? -errno : 0;
}

/* Waits for more. 0 or -errno. */
static int read_more(struct input *in)
{
    if (in->start) {
        memmove(in->buffer, in->buffer + in->start, in->len - in->start);
        in->len -= in->start;
        in->looked_at -= in->start;
        in->start = 0;
    }
    for (;;) {
        ssize_t n = read(STDIN_FILENO, in->buffer + in->len, BUFFER_SIZE - in->len);
        if (n >= 0) {
            in->ended = n == 0;
            in->len += (size_t)n;
            return 0;
        }
        int r = errno == EINTR ? 0 : errno == EAGAIN ? wait_for(STDIN_FILENO, POLLIN) : -errno;
        if (r < 0)
            return r;
    }
}

enum line { LINE, LINE_TOO_LONG, LINE_END };

/* The next line, without its newline; of one that is too long that is told as soon as it is known, and the
 * rest of it dropped. An enum line, or -errno. */
static int next_line(struct input *in, const char **ret, size_t *ret_len)
{
    for (;;) {
        char *from = in->buffer + in->looked_at;
        char *newline = memchr(from, '\n', in->len - in->looked_at);
        in->looked_at = newline ? (size_t)(newline - in->buffer) + 1 : in->len;
        bool last = !newline && in->ended;
        if (newline || last) {
            bool dropped = in->too_long;
            *ret = in->buffer + in->start;
            *ret_len = in->looked_at - in->start - (newline ? 1 : 0);
            in->start = in->looked_at;
            in->too_long = false;
            if (last && (*ret_len == 0 || dropped))
                return LINE_END;
            if (!dropped)
                return LINE;
            continue;
        }
        bool full = in->len - in->start == BUFFER_SIZE;
        if (full || in->too_long)
            in->start = in->len;
        if (full && !in->too_long) {
            in->too_long = true;
            return LINE_TOO_LONG;
        }
        int r = read_more(in);
        if (r < 0)
            return r;
    }
}

/* A line, with one write(2) where the system takes it in one. 0 or -errno. */
static int reply(char *text)
{
    size_t len = strlen(text);
    text[len++] = '\n'; /* in place of the NUL */
    while (len) {
        ssize_t n = write(STDOUT_FILENO, text, len);
        if (n >= 0) {
            text += n;
            len -= (size_t)n;
            continue;
        }
        int r = errno == EINTR ? 0 : errno == EAGAIN ? wait_for(STDOUT_FILENO, POLLOUT) : -errno;
        if (r < 0)
            return r;
    }
    return 0;
}

static enum status serve(struct hook *hook, struct input *in)
{
    for (;;) {
        const char *line = NULL;
        size_t len = 0;
        int r = next_line(in, &line, &len);
        if (r < 0) {
            print_problem("hook: reading standard input: %s", strerror(-r));
            return STATUS_SYSTEM;
        }
        if (r == LINE_END)
            return STATUS_DONE;
        _cleanup_free_ char *text = r == LINE ? hook_answer(hook, line, len) : hook_answer_too_long();
        r = reply(text);
        if (r < 0) {
            print_problem("hook: writing to standard output: %s; the last reply did not get out",
                          strerror(-r));
            return STATUS_SYSTEM;
        }
    }
}

int cmd_hook(struct cli *cli, int argc, char **argv)
{
    struct hook hook = {0};
    const char *value;
    hook_note_parent(&hook);
    if (cli_next(cli, argc, argv, &value) == CLI_LEAVE || cli_no_operands(cli, argc, argv) == CLI_LEAVE)
        return cli->status;
    (void)signal(SIGPIPE, SIG_IGN);
    /* What it inherited it would keep for as long as somebody has the other end of its input: a lock of the
     * supervisor's, for instance, and the box would be held when that one has died (K7). */
    (void)close_range(STDERR_FILENO + 1, ~0U, 0);
    struct input input = {.buffer = malloc(BUFFER_SIZE)};
    if (!input.buffer) {
        print_problem("hook: out of memory");
        return STATUS_SYSTEM;
    }
    struct rbxj_error error = {0};
    enum status status;
    int rc = rbxj_open(&cli->options, &hook.handle, &error);
    if (rc < 0) {
        print_failure(&cli->style, "hook", rc, &error);
        status = status_of(rc);
    } else {
        status = serve(&hook, &input);
    }
    rbxj_close(hook.handle);
    free(input.buffer);
    return status;
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "cli/notify.h"

#include "base/cleanup.h"
#include "base/config.h"
#include "base/fd.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/uio.h>
#include <systemd/sd-daemon.h>

/* Over the deadline: for what is at work when it comes, and for the last commit. */
enum { GRACE_US = 30 * 1000000 };

int notify_send(const char *format, ...)
{
    static atomic_bool deaf;
    char text[1000];
    struct iovec part = {.iov_base = text};
    const char *name = getenv("NOTIFY_SOCKET");
    va_list args;
    va_start(args, format);
    (void)vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    part.iov_len = strlen(text);
    if (!name || (name[0] != '/' && name[0] != '@')) { /* none, or one that is not on this machine */
        int r = sd_notify(0, text);
        return r < 0 ? r : 0;
    }
    return fd_send_datagram(name, &part, 1, &deaf);
}

void notify_boot(const struct rbxj_options *options)
{
    _cleanup_(config_clear) struct config config = {0};
    struct rbxj_error error = {0};
    if (!getenv("NOTIFY_SOCKET") || config_load(options, &config, &error) < 0)
        return; /* the replay fails by the same error, and says so */
    (void)notify_send("STATUS=looking for what dead boxes left behind\n"
                      "EXTEND_TIMEOUT_USEC=%" PRId64,
                      config.boot_deadline_ns / 1000 + GRACE_US);
}

void notify_progress(size_t done, size_t total)
{
    (void)notify_send("STATUS=undoing: %zu of %zu boxes", done, total);
}

void notify_result(const struct rbxj_result *result)
{
    struct rbxj_result_info info;
    rbxj_result_info(result, &info);
    (void)notify_send("STATUS=%zu stale boxes: %zu undone, %zu already gone, %zu left", info.boxes,
                      info.undone, info.already_gone, info.left);
}

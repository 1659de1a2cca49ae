/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "cli/notify.h"

#include "base/cleanup.h"
#include "base/config.h"

#include <inttypes.h>
#include <systemd/sd-daemon.h>

/* Over the deadline: for what is at work when it comes, and for the last commit. */
enum { GRACE_US = 30 * 1000000 };

void notify_boot(const struct rbxj_options *options)
{
    _cleanup_(config_clear) struct config config = {0};
    struct rbxj_error error = {0};
    if (!getenv("NOTIFY_SOCKET") || config_load(options, &config, &error) < 0)
        return; /* the replay fails by the same error, and says so */
    (void)sd_notifyf(0,
                     "STATUS=looking for what dead boxes left behind\n"
                     "EXTEND_TIMEOUT_USEC=%" PRId64,
                     config.boot_deadline_ns / 1000 + GRACE_US);
}

void notify_progress(size_t done, size_t total)
{
    (void)sd_notifyf(0, "STATUS=undoing: %zu of %zu boxes", done, total);
}

void notify_result(const struct rbxj_result *result)
{
    struct rbxj_result_info info;
    rbxj_result_info(result, &info);
    (void)sd_notifyf(0, "STATUS=%zu stale boxes: %zu undone, %zu already gone, %zu left", info.boxes,
                     info.undone, info.already_gone, info.left);
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "journal/hint.h"

#include "base/cleanup.h"
#include "journal/journal.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/inotify.h>

#define COMES (IN_CREATE | IN_MOVED_TO | IN_ONLYDIR)

enum { ABOVE, RUNTIME, FOLDER };

int hint_open(struct hint *h, const char *runtime_dir, struct rbxj_error *e)
{
    *h = (struct hint){.fd = -1, .wd = {-1, -1, -1}};
    (void)snprintf(h->runtime_dir, sizeof(h->runtime_dir), "%s", runtime_dir);
    return journal_boot_folder(runtime_dir, h->folder, sizeof(h->folder), e);
}

void hint_close(struct hint *h)
{
    cleanup_closep(&h->fd);
    h->fd = -1;
}

/* Of what is there now; the one that was there before is let go. 0 or a negative errno. */
static int arm(struct hint *h, int which, const char *path, uint32_t mask)
{
    int wd = inotify_add_watch(h->fd, path, mask), r = wd < 0 ? -errno : 0;
    if (h->wd[which] >= 0 && h->wd[which] != wd)
        (void)inotify_rm_watch(h->fd, h->wd[which]); /* the kernel may have done so itself */
    h->wd[which] = wd;
    return r;
}

/* Up to where there is something: that is where the next one down will be made. */
static int arm_above(struct hint *h)
{
    char path[RECORD_PATH_MAX];
    int r = -ENOENT;
    (void)strcpy(path, h->runtime_dir);
    h->far = false;
    for (char *slash; r == -ENOENT && (slash = strrchr(path, '/'));) {
        slash[slash == path] = 0;
        r = arm(h, ABOVE, path, COMES);
        h->far = h->far || r == -ENOENT;
        if (slash == path)
            break;
    }
    return r;
}

/* From the top: what is made below one that is armed is seen there. */
int hint_arm(struct hint *h)
{
    if (h->fd < 0 && (h->fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK)) < 0)
        return -errno;
    int r = arm_above(h);
    if (r == 0)
        r = arm(h, RUNTIME, h->runtime_dir, COMES);
    if (r == 0)
        r = arm(h, FOLDER, h->folder, COMES | IN_MODIFY);
    return r == -ENOENT ? 0 : r;
}

/* What is told of one that was let go is over. */
static bool concerns(const struct hint *h, const struct inotify_event *event)
{
    const char *name = strrchr(h->runtime_dir, '/');
    if (event->mask & IN_Q_OVERFLOW || event->wd == h->wd[RUNTIME] || event->wd == h->wd[FOLDER])
        return true;
    if (event->wd != h->wd[ABOVE])
        return false;
    return h->far || event->len == 0 || (name && strcmp(event->name, name + 1) == 0);
}

bool hint_read(struct hint *h)
{
    _Alignas(struct inotify_event) char buf[16 * (sizeof(struct inotify_event) + NAME_MAX + 1)];
    bool look = false;
    for (ssize_t n; (n = read(h->fd, buf, sizeof(buf))) > 0;)
        for (ssize_t at = 0; at < n;) {
            const struct inotify_event *event = (const void *)(buf + at);
            look = look || concerns(h, event);
            at += (ssize_t)(sizeof(*event) + event->len);
        }
    return look;
}

/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * What a lock file says.
 */
#include "reaper/lock_content.h"

#include "base/doc.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

size_t lock_own_line(const struct undo *u, const struct record *r, char buf[LOCK_LINE_MAX])
{
    int n = snprintf(buf, LOCK_LINE_MAX,
                     "{\"rbxj\":\"%" PRIu64 ":%" PRIu32 "\",\"pid\":%d,\"box_id\":\"%s\",\"created_at\":{"
                     "\"secs_since_epoch\":%" PRId64 ",\"nanos_since_epoch\":%" PRId64 "}}\n",
                     r->incarnation, r->seq, u->box->supervisor.pid, u->box->name, r->time_ns / 1000000000,
                     r->time_ns % 1000000000);
    return (size_t)n;
}

/* The stamp in a lock file's JSON: 1 there is one, 0 none, or -ENOMEM. */
static int json_stamp(const char *text, size_t len, uint64_t *incarnation, uint32_t *seq, bool *ret_is_json)
{
    cJSON *json = NULL;
    int res = memchr(text, 0, len) ? -EBADMSG : doc_parse(text, len, &json);
    if (res == -ENOMEM)
        return res;
    const char *stamp = doc_get_text(json, "rbxj");
    bool found = stamp && stamp_parse(stamp, incarnation, seq);
    *ret_is_json = json != NULL; /* a pid file is one, too */
    cJSON_Delete(json);
    return found;
}

/* The size is on disk and the content is not: what a power cut leaves where nobody flushed (ext4, XFS). */
static bool is_nuls(const char *text, size_t len)
{
    return text[0] == 0 && memcmp(text, text + 1, len - 1) == 0;
}

int lock_judge_content(const struct undo *u, const struct record *r, int fd)
{
    char text[LOCK_CONTENT_MAX + 1], line[LOCK_LINE_MAX];
    uint64_t incarnation;
    uint32_t seq;
    bool is_json = false;
    ssize_t n = pread(fd, text, sizeof(text), 0);
    if (n < 0) /* not to be taken for an empty one */
        return -errno;
    size_t len = (size_t)n, own = lock_own_line(u, r, line);
    if ((r->flags & REC_BEFORE_PRESENT) && len == r->content_len &&
        (len == 0 || memcmp(text, r->content, len) == 0))
        return CONTENT_BEFORE;
    if (len == 0 || (!u->same_boot && is_nuls(text, len)))
        return CONTENT_EMPTY;
    if ((r->flags & REC_EVIDENCE) && r->content_len == len && memcmp(text, r->content, len) == 0)
        return CONTENT_OURS; /* as it was when it was adopted */
    int stamp = len <= LOCK_CONTENT_MAX ? json_stamp(text, len, &incarnation, &seq, &is_json) : 0;
    if (stamp < 0)
        return stamp;
    if (stamp)
        return incarnation == r->incarnation && seq == r->seq ? CONTENT_OURS : CONTENT_OTHER_BOX;
    if (len < own && memcmp(text, line, len) == 0)
        return CONTENT_PREFIX;
    return len <= LOCK_CONTENT_MAX && is_json ? CONTENT_JSON : CONTENT_CORRUPT;
}

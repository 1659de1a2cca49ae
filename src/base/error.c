/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "base/error.h"

#include "base/cleanup.h"
#include "base/utf8.h"

#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#define NAME(code) ((code)-RBXJ_E_BAD_REQUEST)

static const char *const names[] = {
    [NAME(RBXJ_E_BAD_REQUEST)] = "bad_request",
    [NAME(RBXJ_E_NO_SUCH_BOX)] = "no_such_box",
    [NAME(RBXJ_E_BOX_LIVE)] = "box_live",
    [NAME(RBXJ_E_BOX_STALE)] = "box_stale",
    [NAME(RBXJ_E_PROTECTED_PATH)] = "protected_path",
    [NAME(RBXJ_E_EXISTS)] = "exists",
    [NAME(RBXJ_E_QUARANTINED)] = "quarantined",
    [NAME(RBXJ_E_JOURNAL_BUSY)] = "journal_busy",
    [NAME(RBXJ_E_JOURNAL_FULL)] = "journal_full",
    [NAME(RBXJ_E_DISK_FULL)] = "disk_full",
    [NAME(RBXJ_E_JOURNAL_DAMAGED)] = "journal_damaged",
    [NAME(RBXJ_E_PERMISSION)] = "permission",
    [NAME(RBXJ_E_IO)] = "io",
    [NAME(RBXJ_E_BUSY)] = "busy",
    [NAME(RBXJ_E_FORKED)] = "forked",
    [NAME(RBXJ_E_FOREIGN)] = "foreign",
    [NAME(RBXJ_E_LEFT)] = "left",
};

/* The own code that says what an errno means to a caller. */
static int code_of_errno(int errnum)
{
    switch (errnum) {
    case EPERM:
    case EACCES:
    case EROFS:
        return RBXJ_E_PERMISSION;
    case ENOSPC:
    case EDQUOT:
        return RBXJ_E_DISK_FULL;
    default:
        return RBXJ_E_IO;
    }
}

const char *rbxj_strerror(int code)
{
    /* A success may be positive; so may somebody pass the code of an error object, which is. */
    if (code < 0)
        code = code < -RBXJ_E_LEFT ? RBXJ_E_IO : -code;
    else if (code < RBXJ_E_BAD_REQUEST)
        return "ok";
    if (code < RBXJ_E_BAD_REQUEST)
        code = code == EBUSY ? RBXJ_E_BUSY : code == EINVAL ? RBXJ_E_BAD_REQUEST : code_of_errno(code);
    size_t i = (size_t)(code - RBXJ_E_BAD_REQUEST);
    return i < ARRAY_LEN(names) ? names[i] : "io";
}

const char *errno_name(int errnum)
{
    const char *name = strerrorname_np(errnum);
    return errnum != 0 && name ? name : "";
}

void escape_bytes(char *buf, size_t size, const char *bytes, size_t len)
{
    static const char hex[] = "0123456789abcdef";
    const uint8_t *p = (const uint8_t *)bytes, *end = p + len;
    size_t used = 0;

    if (size == 0)
        return;
    while (p < end) {
        size_t n = utf8_printable(p, (size_t)(end - p));
        if (used + (n > 0 ? n : 4) >= size) /* neither a character nor an escape is ever cut in two */
            break;
        if (n > 0) {
            memcpy(buf + used, p, n);
            used += n;
            p += n;
        } else {
            const char escape[] = {'\\', 'x', hex[*p >> 4], hex[*p & 15]};
            memcpy(buf + used, escape, sizeof(escape));
            used += sizeof(escape);
            p++;
        }
    }
    buf[used] = '\0';
}

/* Formats into buf, escaped. A path may be longer than that: what does not fit is cut. */
static void format_escaped(char *buf, size_t size, const char *format, va_list args)
{
    char raw[1024];
    int n = vsnprintf(raw, sizeof(raw), format, args);

    if (n < 0)
        n = 0;
    escape_bytes(buf, size, raw, (size_t)n < sizeof(raw) ? (size_t)n : sizeof(raw) - 1);
}

static void set(struct rbxj_error *e, int code, int errnum, const char *format, va_list args)
{
    char why[100] = "";

    if (!e || e->code != 0)
        return;
    if (errnum != 0) {
        const char *text = strerrordesc_np(errnum);
        if (text)
            (void)snprintf(why, sizeof(why), ": %s", text);
        else
            (void)snprintf(why, sizeof(why), ": errno %d", errnum);
    }
    e->code = code;
    e->errnum = errnum;
    e->detail[0] = '\0';
    /* The reason is the last thing to lose when a path is too long. */
    format_escaped(e->message, sizeof(e->message) - strlen(why), format, args);
    memcpy(e->message + strlen(e->message), why, strlen(why) + 1);
}

int error_set(struct rbxj_error *e, int code, int errnum, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    set(e, code, errnum, format, args);
    va_end(args);
    return -code;
}

int error_sys(struct rbxj_error *e, int errnum, const char *format, ...)
{
    int code = code_of_errno(errnum);
    va_list args;

    va_start(args, format);
    set(e, code, errnum, format, args);
    va_end(args);
    return -code;
}

int error_pass(struct rbxj_error *e, const struct rbxj_error *from)
{
    if (e && e->code == 0)
        *e = *from;
    return -from->code;
}

void error_detail(struct rbxj_error *e, const char *format, ...)
{
    va_list args;

    if (!e || e->detail[0] != '\0')
        return;
    va_start(args, format);
    format_escaped(e->detail, sizeof(e->detail), format, args);
    va_end(args);
}

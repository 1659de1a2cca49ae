/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "base/config_dirs.h"

#include "base/cleanup.h"
#include "base/error.h"
#include "base/fd.h"
#include "base/proctext.h"

#include <string.h>

#define ENVIRONMENT_MAX (1 << 20)

/* realpath(3) of what exists, and the rest as it is: no "..", which could not be resolved. */
static char *resolve(const char *path)
{
    _cleanup_free_ char *head = strdup(path);
    char *resolved = NULL;

    if (!head)
        return NULL;
    for (;;) {
        free(resolved);
        resolved = realpath(*head ? head : ".", NULL);
        if (resolved || errno != ENOENT || !*head)
            break;
        char *slash = strrchr(head, '/');
        if (slash == head)
            slash[1] = '\0';
        else if (slash)
            *slash = '\0';
        else
            *head = '\0';
    }
    if (!resolved)
        return NULL;

    const char *rest = path + strlen(head);
    while (*rest) {
        rest += strspn(rest, "/");
        int len = (int)strcspn(rest, "/");
        if (len == 2 && strncmp(rest, "..", 2) == 0) {
            free(resolved);
            errno = ENOENT;
            return NULL;
        }
        if (len > 0 && !(len == 1 && *rest == '.')) {
            char *longer = NULL;
            int n = asprintf(&longer, "%s/%.*s", strcmp(resolved, "/") == 0 ? "" : resolved, len, rest);
            free(resolved);
            if (n < 0)
                return NULL;
            resolved = longer;
        }
        rest += len;
    }
    return resolved;
}

/* A variable of the environment; one that is empty, or not absolute where that is asked for, is none
 * (XDG). */
static const char *variable(const char *name, bool absolute)
{
    const char *value = secure_getenv(name);
    return value && *value && (!absolute || *value == '/') ? value : NULL;
}

static int default_dir(bool state, char **ret, struct rbxj_error *e)
{
    const char *base, *home = variable("HOME", true);
    int n;

    if (geteuid() == 0)
        n = asprintf(ret, "%s", state ? "/var/lib/rbxj" : "/run/rbxj");
    else if ((base = variable(state ? "XDG_STATE_HOME" : "XDG_RUNTIME_DIR", true)))
        n = asprintf(ret, "%s/rbxj", base);
    else if (state && home)
        n = asprintf(ret, "%s/.local/state/rbxj", home);
    else
        return error_set(
            e, RBXJ_E_BAD_REQUEST, 0, "no %s directory: none of %s is set", state ? "state" : "runtime",
            state ? "RBXJ_STATE_DIR, XDG_STATE_HOME, HOME" : "RBXJ_RUNTIME_DIR, XDG_RUNTIME_DIR");
    if (n < 0) {
        *ret = NULL;
        return error_sys(e, ENOMEM, "configuration");
    }
    return 0;
}

static int one_dir(const char *option, bool state, char **ret, struct rbxj_error *e)
{
    const char *given = option && *option ? option
                                          : variable(state ? "RBXJ_STATE_DIR" : "RBXJ_RUNTIME_DIR", false);
    _cleanup_free_ char *standard = NULL;
    int r = given ? 0 : default_dir(state, &standard, e);

    if (r < 0)
        return r;
    *ret = resolve(given ? given : standard);
    if (*ret)
        return 0;
    return error_sys(e, errno, "%s directory %s", state ? "state" : "runtime", given ? given : standard);
}

int config_dirs(const struct rbxj_options *options, char **ret_state, char **ret_runtime,
                struct rbxj_error *e)
{
    _cleanup_free_ char *state = NULL, *runtime = NULL;
    int r = one_dir(options ? options->state_dir : NULL, true, &state, e);

    if (r == 0)
        r = one_dir(options ? options->runtime_dir : NULL, false, &runtime, e);
    if (r < 0)
        return r;
    *ret_state = steal_ptr(state);
    *ret_runtime = steal_ptr(runtime);
    return 0;
}

int config_in_container(void)
{
    static const char *const marks[] = {
        "/run/systemd/container",
        "/run/host/container-manager",
        "/run/.containerenv",
        "/.dockerenv",
    };
    _cleanup_free_ char *environment = NULL;

    for (size_t i = 0; i < ARRAY_LEN(marks); i++)
        if (access(marks[i], F_OK) == 0)
            return 1;
    if (access("/proc/vz", F_OK) == 0 && access("/proc/bc", F_OK) < 0) /* OpenVZ, and not its host */
        return 1;
    ssize_t len = fd_read_all(AT_FDCWD, "/proc/1/environ", ENVIRONMENT_MAX, &environment);
    if (len < 0 && errno_is_want((int)-len))
        return (int)len;
    return len > 0 && proctext_names_container(environment, (size_t)len);
}

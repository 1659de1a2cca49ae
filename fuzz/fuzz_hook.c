/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Whatever lines the hook gets: one JSON object with "ok" for each, and after one that failed the journal
 * holds what it held.
 *
 * Requests are real ones, and what they name is acquired and undone. So this process first locks itself in,
 * for good: namespaces of its own, of which the root is an empty tmpfs with /proc, the programs (read-only)
 * and the directories that the fuzzer itself was given; no process in it but its own; and no capability.
 */
#include "fuzz.h"

#include "base/cleanup.h"
#include "base/fd.h"
#include "cli/hook.h"
#include "reaper/handle.h"

#include <cjson/cJSON.h>
#include <errno.h>
#include <limits.h>
#include <linux/capability.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>

static void must(bool good, const char *what)
{
    if (good)
        return;
    (void)fprintf(stderr, "fuzz_hook: %s: %s\n", what, strerror(errno));
    _exit(1);
}

/* ---- locked in ---- */

#define NEW_ROOT "/dev/shm"

static void make_directories(const char *path)
{
    char at[PATH_MAX];
    (void)snprintf(at, sizeof(at), "%s", path);
    for (char *slash = at; (slash = strchr(slash + 1, '/'));) {
        *slash = '\0';
        (void)mkdir(at, 0700);
        *slash = '/';
    }
    must(mkdir(at, 0700) == 0 || errno == EEXIST, at);
}

/* Shows a directory under the same name in the new root. */
static void show(const char *path, bool writable)
{
    char real[PATH_MAX], at[2 * PATH_MAX];
    struct mount_attr read_only = {.attr_set = MOUNT_ATTR_RDONLY};
    if (!realpath(path, real))
        return;
    (void)snprintf(at, sizeof(at), NEW_ROOT "%s", path[0] == '/' ? path : real);
    make_directories(at);
    must(mount(real, at, NULL, MS_BIND, NULL) == 0, path);
    must(writable || mount_setattr(AT_FDCWD, at, 0, &read_only, sizeof(read_only)) == 0, path);
}

/* What is behind the prefix of an option, or NULL. */
static const char *option_value(const char *arg, const char *prefix)
{
    return strncmp(arg, prefix, strlen(prefix)) == 0 ? arg + strlen(prefix) : NULL;
}

/* The corpora, of which the first is added to; where a crash is written to; where the dictionary is. */
static void show_own_directories(int argc, char **argv)
{
    bool first = true;
    for (int i = 1; i < argc; i++) {
        char path[PATH_MAX];
        const char *artifacts = option_value(argv[i], "-artifact_prefix="),
                   *dictionary = option_value(argv[i], "-dict="), *value = artifacts ? artifacts : dictionary;
        struct stat st;
        if (!value && argv[i][0] == '-')
            continue;
        (void)snprintf(path, sizeof(path), "%s", value ? value : argv[i]);
        char *slash = strrchr(path, '/');
        if (slash && (value || (stat(path, &st) == 0 && !S_ISDIR(st.st_mode))))
            *slash = '\0';
        show(path, artifacts || (!value && first));
        first = first && value;
    }
}

static void enter_new_root(int argc, char **argv)
{
    static const char *const programs[] = {"/usr", "/lib", "/lib64", "/bin"};
    char here[PATH_MAX], at[2 * PATH_MAX];
    must(getcwd(here, sizeof(here)) != NULL, "working directory");
    must(mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0, "making mounts private");
    must(mount("fuzz", NEW_ROOT, "tmpfs", MS_NOSUID | MS_NODEV, "mode=0700,size=256m") == 0, NEW_ROOT);
    (void)snprintf(at, sizeof(at), NEW_ROOT "%s", here);
    make_directories(at);
    for (size_t i = 0; i < ARRAY_LEN(programs); i++)
        show(programs[i], false);
    show_own_directories(argc, argv);
    make_directories(NEW_ROOT "/proc");
    must(mount("proc", NEW_ROOT "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC | MS_RDONLY, NULL) == 0,
         "/proc");
    must(chdir(NEW_ROOT) == 0 && syscall(SYS_pivot_root, ".", ".") == 0, "pivot_root");
    must(umount2(".", MNT_DETACH) == 0 && chdir("/") == 0 && chdir(here) == 0, "leaving the old root");
}

static void drop_capabilities(void)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct none[_LINUX_CAPABILITY_U32S_3] = {0};
    must(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0, "no new privileges");
    must(syscall(SYS_capset, &header, none) == 0, "dropping capabilities");
}

/* Ends as the child ended. */
static void wait_for(pid_t child)
{
    int status = 0;
    must(child > 0 && waitpid(child, &status, 0) == child, "fork");
    _exit(WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status));
}

static void lock_in(int argc, char **argv)
{
    if (geteuid() != 0) {
        (void)fprintf(stderr, "fuzz_hook: skipped: it needs root to lock itself in\n");
        _exit(0);
    }
    must(unshare(CLONE_NEWNS | CLONE_NEWPID) == 0, "unshare");
    pid_t init = fork();
    if (init != 0)
        wait_for(init);
    must(prctl(PR_SET_PDEATHSIG, SIGKILL) == 0, "death signal");
    enter_new_root(argc, argv);
    must(mkdir("/s", 0700) == 0 && mkdir("/r", 0700) == 0 && mkdir("/w", 0700) == 0, "scratch directories");
    drop_capabilities();
    pid_t fuzzer = fork(); /* the hook has a parent then: pid 1 */
    if (fuzzer != 0)
        wait_for(fuzzer);
}

/* ---- the hook ---- */

static struct hook hook;
static const char *const scratch[] = {"/w/a", "/w/b", "/w/c"};

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    static const char config[] = "[journal]\ndurability=resource\n[incidents]\nkeep=10\n";
    struct rbxj_options options = {.state_dir = "/s", .runtime_dir = "/r", .config = "/rbxj.conf"};
    struct rbxj_error error = {0};
    lock_in(*argc, *argv);
    int fd = open("/rbxj.conf", O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    must(fd >= 0 && fd_write_all(fd, config, strlen(config)) == 0 && close(fd) == 0, "configuration");
    must(unsetenv("RBXJ_DURABILITY") == 0, "environment");
    hook_note_parent(&hook);
    if (rbxj_open(&options, &hook.handle, &error) < 0) {
        (void)fprintf(stderr, "fuzz_hook: %s\n", error.message);
        _exit(1);
    }
    return 0;
}

static size_t journaled(void)
{
    struct snapshot snapshot;
    if (journal_snapshot(hook.handle->journal, &snapshot, NULL) < 0)
        abort();
    size_t n = snapshot.len;
    for (size_t i = 0; i < snapshot.len; i++)
        n += snapshot.boxes[i].len;
    snapshot_clear(&snapshot);
    return n;
}

static void ask(const char *line, size_t len)
{
    size_t before = journaled();
    _cleanup_free_ char *reply = hook_answer(&hook, line, len);
    cJSON *json = cJSON_ParseWithOpts(reply, NULL, true);
    const cJSON *ok = cJSON_GetObjectItemCaseSensitive(json, "ok");
    const cJSON *error = cJSON_GetObjectItemCaseSensitive(json, "error");
    const char *code = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(error, "code"));
    if (!cJSON_IsBool(ok) || strchr(reply, '\n') || cJSON_IsTrue(ok) == (code != NULL))
        abort();
    if (code && (strcmp(code, "journal_damaged") == 0 || journaled() != before))
        abort();
    cJSON_Delete(json);
}

/* Nothing is left of the boxes, however they were left. */
static void reset(void)
{
    struct snapshot snapshot;
    struct journal *journal = hook.handle->journal;
    if (journal_snapshot(journal, &snapshot, NULL) < 0)
        abort();
    for (size_t i = 0; i < snapshot.len; i++) {
        const struct snapshot_box *box = &snapshot.boxes[i];
        (void)rbxj_undo(hook.handle, box->box.name, NULL, NULL);
        for (size_t k = 0; k < box->len; k++)
            (void)journal_drop(journal, box->box.incarnation, box->records[k].seq, NULL);
        (void)journal_end(journal, box->box.incarnation, NULL);
    }
    snapshot_clear(&snapshot);
    hook.handle->begun_len = 0;
    for (size_t i = 0; i < ARRAY_LEN(scratch); i++)
        if (unlink(scratch[i]) < 0)
            (void)rmdir(scratch[i]);
    if (journaled())
        abort();
}

/* Lines; "+d0" stands for a supervisor that makes scratch[0] a directory, "+f1" scratch[1] a file. */
static void play(const char *line, size_t len)
{
    if (len != 3 || line[0] != '+' || line[2] < '0' || line[2] > '2') {
        ask(line, len);
        return;
    }
    const char *path = scratch[line[2] - '0'];
    if (line[1] == 'd')
        (void)mkdir(path, 0700);
    int fd = line[1] == 'f' ? open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600) : -1;
    if (fd >= 0)
        (void)fd_write_all(fd, "{}", 2);
    cleanup_closep(&fd);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const char *line = (const char *)data, *end = line + size;
    while (line < end) {
        const char *newline = memchr(line, '\n', (size_t)(end - line));
        play(line, (size_t)((newline ? newline : end) - line));
        line = newline ? newline + 1 : end;
    }
    reset();
    return 0;
}

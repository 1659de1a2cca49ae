/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "commands.h"

#include "life.h"

#include "base/cleanup.h"

#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mount.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

/* ---- the command lines ---- */

/* The program that was built with this one, or $RBXJ. */
static const char *program(void)
{
    char own[PATH_MAX];
    ssize_t n = readlink("/proc/self/exe", own, sizeof(own) - 1);
    assert_true(n > 0);
    own[n] = '\0';
    char *tests = strstr(own, "/tests/");
    if (tests)
        *tests = '\0';
    const char *named = getenv("RBXJ");
    const char *rbxj = named ? named : harness_format("%s/rbxj", own);
    if (access(rbxj, X_OK) < 0)
        harness_skip("no program %s", rbxj);
    return rbxj;
}

static const char *const *hook_argv(void)
{
    static const char *argv[16];
    const char *const words[] = {program(),       "hook",   "--state-dir", life.state,
                                 "--runtime-dir", life.run, "--config",    life.options.config};
    memcpy(argv, words, sizeof(words));
    argv[ARRAY_LEN(words)] = NULL;
    return argv;
}

static const char *const *run_argv(void)
{
    static const char script_here[] =
        "exec 3>/dev/null; (exec sleep 3600) & "
        "for d; do mkdir -p \"$d/deep/er\" && echo x >\"$d/deep/er/file\"; done";
    static const char *argv[32];
    struct life_paths p = life_paths();
    const char *const words[] = {program(),
                                 "run",
                                 "--quiet",
                                 "--state-dir",
                                 life.state,
                                 "--runtime-dir",
                                 life.run,
                                 "--config",
                                 life.options.config,
                                 "--box",
                                 "a",
                                 "--lock",
                                 p.lock,
                                 "--cgroup",
                                 p.group,
                                 "--mount",
                                 harness_format("tmpfs,rbxj-test,%s,size=1m", p.mount),
                                 "--tmpdir",
                                 p.inner,
                                 "--tmpdir",
                                 p.tmpdir,
                                 "--",
                                 "/bin/sh",
                                 "-c",
                                 script_here,
                                 "sh",
                                 p.inner,
                                 p.tmpdir};
    memcpy(argv, words, sizeof(words));
    argv[ARRAY_LEN(words)] = NULL;
    return argv;
}

/* ---- a supervisor at the hook's other end ---- */

static FILE *from, *to;
static char reply[65536];

static void must(bool good, const char *what)
{
    if (good)
        return;
    life_told->own_failed = true;
    (void)snprintf(life_told->step, sizeof(life_told->step), "%s", what);
    _exit(1);
}

/* Where the hook is gone the supervisor ends. */
__attribute__((format(printf, 1, 2))) static void ask(const char *format, ...)
{
    va_list args;

    va_start(args, format);
    int n = vfprintf(to, format, args);
    va_end(args);
    if (n < 0 || fputc('\n', to) < 0 || fflush(to) < 0 || !fgets(reply, sizeof(reply), from))
        _exit(0);
    must(strstr(reply, "\"ok\":true") != NULL, reply);
}

static void acquired(unsigned seq)
{
    ask("{\"op\":\"acquired\",\"box\":\"a\",\"seq\":%u}", seq);
}

static void live(const struct life_paths *p)
{
    char source[64], file[PATH_MAX];
    uint64_t incarnation = 0;

    ask("{\"op\":\"begin\",\"box\":\"a\",\"pid\":%d,\"plan\":[{\"kind\":\"lock\",\"path\":\"%s\"},"
        "{\"kind\":\"cgroup\",\"path\":\"%s\"},{\"kind\":\"mount\",\"target\":\"%s\",\"fstype\":\"tmpfs\","
        "\"source\":\"rbxj-test\"}]}",
        getpid(), p->lock, p->group, p->mount);
    const char *number = strstr(reply, "\"incarnation\":\"");
    must(number && sscanf(number + 15, "%" SCNu64, &incarnation) == 1, reply);
    int lock = open(p->lock, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    must(lock >= 0 && flock(lock, LOCK_EX | LOCK_NB) == 0, "lock");
    acquired(1);
    must(mkdir(p->group, 0755) == 0, "cgroup");
    acquired(2);
    (void)snprintf(source, sizeof(source), "rbxj:%" PRIu64 ":3", incarnation);
    must(mount(source, p->mount, "tmpfs", 0, "size=1m") == 0, "mount");
    acquired(3);
    ask("{\"op\":\"intend\",\"box\":\"a\",\"resource\":{\"kind\":\"tmpdir\",\"path\":\"%s\"}}", p->tmpdir);
    must(mkdir(p->tmpdir, 0700) == 0, "tmpdir");
    acquired(4);
    (void)snprintf(file, sizeof(file), "%s/file", p->tmpdir);
    int fd = open(file, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    must(fd >= 0 && close(fd) == 0, "file");
    ask("{\"op\":\"undo\",\"box\":\"a\"}");
    ask("{\"op\":\"end\",\"box\":\"a\"}");
    _exit(0);
}

struct step_end command_hook(step_decide *decide, void *data)
{
    const struct life_paths paths = life_paths();
    int there[2], back[2];

    assert_int_equal(pipe2(there, O_CLOEXEC) | pipe2(back, O_CLOEXEC), 0);
    (void)fflush(NULL);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
        (void)signal(SIGPIPE, SIG_IGN);
        (void)close(there[0]);
        (void)close(back[1]);
        to = fdopen(there[1], "w");
        from = fdopen(back[0], "r");
        must(to && from, "fdopen");
        live(&paths);
    }
    _cleanup_close_ int pidfd = pidfd_open(pid, 0);
    assert_true(pidfd >= 0);
    (void)close(there[1]);
    (void)close(back[0]);
    struct step_end end = step_program(hook_argv(), (const int[]){there[0], back[1]}, decide, data);
    (void)close(there[0]);
    (void)close(back[1]); /* now it has nobody to talk to any more */
    struct pollfd p = {.fd = pidfd, .events = POLLIN};
    assert_int_equal(poll(&p, 1, 30000), 1);
    (void)waitpid(pid, NULL, 0); /* if the stepper has not done it */
    if (life_told->own_failed)
        fail_msg("the hook's supervisor failed: %s", life_told->step);
    return end;
}

struct step_end command_run(step_decide *decide, void *data)
{
    _cleanup_close_ int null = open("/dev/null", O_RDWR | O_CLOEXEC);

    return step_program(run_argv(), (const int[]){null, null}, decide, data);
}

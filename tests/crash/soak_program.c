/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "soak.h"

#include "base/cleanup.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

void soak_program_start(struct soak *s, struct soak_program *p)
{
    const char *program = getenv("RBXJ");
    if (!program)
        program = "build/rbxj";
    const char *argv[20] = {program, "--state-dir", s->state, "--runtime-dir", s->run, "--config", s->config};
    size_t n = 7;
    for (size_t i = 0; i < 8 && p->args[i]; i++)
        argv[n++] = p->args[i];
    if (p->alternate && p->runs % 2)
        argv[n++] = p->alternate;
    p->out = memfd_create(p->name, MFD_CLOEXEC);
    p->err = memfd_create(p->name, MFD_CLOEXEC);
    assert_true(p->out >= 0 && p->err >= 0);
    pid_t pid = fork();
    if (pid == 0) {
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
        (void)dup2(p->out, STDOUT_FILENO);
        (void)dup2(p->err, STDERR_FILENO);
        (void)execv(argv[0], (char *const *)(uintptr_t)argv);
        _exit(127);
    }
    assert_true(pid > 0);
    p->pid = pid;
    p->runs++;
}

static char *read_whole(int fd)
{
    struct stat st;
    char *text = fstat(fd, &st) == 0 ? malloc((size_t)st.st_size + 1) : NULL;
    if (!text)
        abort();
    ssize_t n = pread(fd, text, (size_t)st.st_size, 0);
    text[n < 0 ? 0 : n] = 0;
    return text;
}

void soak_program_ended(struct soak *s, struct soak_program *p, int status)
{
    _cleanup_free_ char *out = read_whole(p->out), *err = read_whole(p->err);
    (void)close(p->out);
    (void)close(p->err);
    p->pid = 0;
    if (!WIFEXITED(status) || !(p->legal & 1u << (WEXITSTATUS(status) & 31)))
        (void)soak_fail(s, "%s: ended with %#x:\n%.1000s%.2500s", p->name, (unsigned)status, err, out);
    else if (p->said && !strstr(err, p->said))
        (void)soak_fail(s, "%s: does not say \"%s\" but:\n%.1000s", p->name, p->said, err);
    else if (p->output)
        p->output(s, out);
}

/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Stands for libFuzzer where it is not: gives a target each of the files that are named, or are in the
 * directories that are named, once. Ends with 0, or as the target ends; before each file its name is noted,
 * and shown if it was the last.
 */
#include "fuzz.h"

#include "base/cleanup.h"
#include "base/fd.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

__attribute__((weak)) int LLVMFuzzerInitialize(int *argc, char ***argv);

/* For the mutators, which are not used here. */
size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t max)
{
    (void)data;
    (void)max;
    return size;
}

enum { INPUT_MAX = 4 << 20, SECONDS_MAX = 60 };
static char current[PATH_MAX];

/* Whatever ends it: says on what. Async-signal-safe. */
static void tell(int sig)
{
    static const char text[] = "died of this input: ";
    (void)!write(STDERR_FILENO, text, sizeof(text) - 1);
    (void)!write(STDERR_FILENO, current, strlen(current));
    (void)!write(STDERR_FILENO, "\n", 1);
    (void)signal(sig, SIG_DFL);
    (void)raise(sig);
}

static int run_file(int dirfd, const char *name, size_t *n)
{
    char *text;
    ssize_t len = fd_read_all(dirfd, name, INPUT_MAX, &text);
    if (len < 0) {
        (void)fprintf(stderr, "%s: %s\n", current, strerror((int)-len));
        return 1;
    }
    /* of its exact size, so that a sanitizer sees a byte that is read behind it */
    uint8_t *exact = malloc((size_t)len ? (size_t)len : 1);
    if (!exact)
        abort();
    memcpy(exact, text, (size_t)len);
    free(text);
    (void)alarm(SECONDS_MAX);
    (void)LLVMFuzzerTestOneInput(exact, (size_t)len);
    (void)alarm(0);
    free(exact);
    ++*n;
    return 0;
}

static int run_path(const char *path, size_t *n)
{
    int failed = 0;
    (void)snprintf(current, sizeof(current), "%s", path);
    _cleanup_closedir_ DIR *dir = fd_open_names_at(AT_FDCWD, path);
    if (!dir)
        return errno == ENOTDIR ? run_file(AT_FDCWD, path, n) : errno != ENOENT;
    for (const struct dirent *d; (d = fd_next_name(dir));) {
        (void)snprintf(current, sizeof(current), "%s/%s", path, d->d_name);
        failed |= run_file(dirfd(dir), d->d_name, n);
    }
    return failed;
}

int main(int argc, char **argv)
{
    static const int signals[] = {SIGABRT, SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGALRM};
    size_t n = 0;
    int failed = 0;
    if (LLVMFuzzerInitialize)
        (void)LLVMFuzzerInitialize(&argc, &argv);
    for (size_t i = 0; i < ARRAY_LEN(signals); i++)
        (void)signal(signals[i], tell);
    for (int i = 1; i < argc; i++)
        failed |= run_path(argv[i], &n);
    printf("%zu inputs\n", n);
    return failed || n == 0;
}

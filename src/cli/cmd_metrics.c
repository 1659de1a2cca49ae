/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * rbxj metrics: Prometheus' text format, on standard output or in a file for the node exporter.
 */
#include "cli/cli.h"

#include "base/cleanup.h"
#include "base/error.h"
#include "base/fd.h"

#include <string.h>

enum { OPT_TEXTFILE = 256 };

const struct cli_option metrics_options[] = {
    {"textfile", OPT_TEXTFILE, "FILE", "replace FILE atomically, print nothing"},
    {0},
};

static void print_text(char *text)
{
    char *line;
    while ((line = strsep(&text, "\n")) && text)
        print_line("%s", line);
}

/* Only what a file of metrics can be is replaced: a regular file, or a symlink to one or to nothing; and not
 * what this program writes its messages to (/dev/stdout). 0 or -errno. */
static int check_target(int dirfd, const char *name)
{
    struct stat there, stream;
    if (fstatat(dirfd, name, &there, 0) < 0)
        return errno == ENOENT ? 0 : -errno;
    if (!S_ISREG(there.st_mode))
        return S_ISDIR(there.st_mode) ? -EISDIR : -EEXIST;
    for (int fd = STDOUT_FILENO; fd <= STDERR_FILENO; fd++)
        if (fstat(fd, &stream) == 0 && stream.st_dev == there.st_dev && stream.st_ino == there.st_ino)
            return -EEXIST;
    return 0;
}

static int write_textfile(const char *path, const char *text)
{
    const char *slash = strrchr(path, '/');
    const char *name = slash ? slash + 1 : path;
    _cleanup_free_ char *dir = slash ? strndup(path, (size_t)(slash - path) + 1) : strdup(".");
    if (!dir)
        return -ENOMEM;
    _cleanup_close_ int dirfd = open(dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (dirfd < 0)
        return -errno;
    if (!*name || strcmp(name, ".") == 0 || strcmp(name, "..") == 0)
        return -EISDIR;
    char prefix[NAME_MAX + 1];
    int r = check_target(dirfd, name);
    if (r < 0)
        return r;
    /* under another name first, which the node exporter does not read (it reads *.prom) */
    if (snprintf(prefix, sizeof(prefix), "%s.", name) >= (int)sizeof(prefix))
        return -ENAMETOOLONG;
    return fd_replace_file(dirfd, name, prefix, text, strlen(text), 0644, false);
}

int cmd_metrics(struct cli *cli, int argc, char **argv)
{
    const char *value, *textfile = NULL;
    int id;
    while ((id = cli_next(cli, argc, argv, &value)) > 0)
        textfile = value; /* the only option */
    if (id == CLI_LEAVE || cli_no_operands(cli, argc, argv) == CLI_LEAVE)
        return cli->status;
    if (cli->style.json)
        return cli_usage(cli, "metrics are in Prometheus' text format only: leave --json out");

    _cleanup_free_ char *text = NULL;
    struct rbxj_error error = {0};
    int rc = rbxj_metrics(&cli->options, &text, &error);
    if (rc < 0)
        print_failure(&cli->style, "metrics", rc, &error);
    if (text && textfile) {
        int r = write_textfile(textfile, text);
        if (r < 0) {
            error = (struct rbxj_error){0};
            rc = error_sys(&error, -r, "%s", textfile);
            print_failure(&cli->style, "metrics", rc, &error);
        }
    } else if (text && !cli->style.quiet) {
        print_text(text);
    }
    return rc < 0 ? status_of(rc) : STATUS_DONE;
}

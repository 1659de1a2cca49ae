/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The configuration: which directories it is about, and what durability is there (I1).
 */
#include "config_fixture.h"

/* ---- directories ---- */

static void options_beat_the_environment(void **state)
{
    (void)state;
    harness_write(main_file(), "");
    (void)setenv("RBXJ_STATE_DIR", harness_format("%s/env-state", harness_disk()), 1);
    (void)setenv("RBXJ_RUNTIME_DIR", harness_format("%s/env-run", harness_disk()), 1);
    struct rbxj_options options = {.config = main_file()};
    assert_int_equal(load_options(&options), 0);
    assert_string_equal(loaded.state_dir, harness_format("%s/env-state", harness_disk()));
    assert_string_equal(loaded.runtime_dir, harness_format("%s/env-run", harness_disk()));
    options.state_dir = harness_format("%s/state", harness_disk());
    options.runtime_dir = harness_format("%s/run", harness_disk());
    assert_int_equal(load_options(&options), 0);
    assert_string_equal(loaded.state_dir, options.state_dir);
    assert_string_equal(loaded.runtime_dir, options.runtime_dir);
}

static void directories_are_absolute_and_resolved(void **state)
{
    (void)state;
    harness_write(main_file(), "");
    harness_mkdir(harness_format("%s/real", harness_disk()));
    assert_int_equal(symlink("real", harness_format("%s/link", harness_disk())), 0);
    struct rbxj_options options = {
        .config = main_file(),
        .state_dir = harness_format("%s/link/./not//there/yet/", harness_disk()),
        .runtime_dir = "not-there",
    };
    _cleanup_free_ char *cwd = get_current_dir_name();
    assert_int_equal(chdir(harness_format("%s/link", harness_disk())), 0);
    int r = load_options(&options);
    assert_int_equal(chdir(cwd), 0);
    assert_int_equal(r, 0);
    assert_string_equal(loaded.state_dir, harness_format("%s/real/not/there/yet", harness_disk()));
    assert_string_equal(loaded.runtime_dir, harness_format("%s/real/not-there", harness_disk()));

    options.runtime_dir = harness_format("%s/real/../link", harness_disk());
    assert_int_equal(load_options(&options), 0);
    assert_string_equal(loaded.runtime_dir, harness_format("%s/real", harness_disk()));
    options.runtime_dir = harness_format("%s/not-there/../real", harness_disk());
    assert_true(load_options(&options) < 0);
    assert_non_null(strstr(error.message, "runtime directory "));
}

/* Runs f in a child of another user, or of another root directory; what it returns. */
static int in_child(int (*f)(void), uid_t uid, const char *root)
{
    (void)fflush(NULL);
    pid_t pid = fork();
    if (pid == 0) {
        if ((root && (chroot(root) < 0 || chdir("/") < 0)) || (uid != 0 && setresuid(uid, uid, uid) < 0))
            _exit(100);
        _exit(f());
    }
    assert_true(pid > 0);
    harness_track(pid);
    int status = harness_wait(pid);
    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status);
}

static bool dirs_are(const char *state, const char *runtime)
{
    _cleanup_free_ char *s = NULL, *r = NULL;
    if (config_dirs(NULL, &s, &r, &error) < 0)
        return !state;
    return state && strcmp(s, state) == 0 && strcmp(r, runtime) == 0;
}

static int defaults_of_root(void)
{
    (void)setenv("XDG_STATE_HOME", "/s", 1);
    (void)setenv("XDG_RUNTIME_DIR", "/r", 1);
    return dirs_are("/var/lib/rbxj", "/run/rbxj") ? 0 : 1;
}

static int defaults_of_a_user(void)
{
    if (!dirs_are(NULL, NULL)) /* nothing is set */
        return 1;
    (void)setenv("HOME", "/home/u", 1);
    if (!dirs_are(NULL, NULL)) /* no runtime directory */
        return 2;
    (void)setenv("XDG_RUNTIME_DIR", "/r", 1);
    if (!dirs_are("/home/u/.local/state/rbxj", "/r/rbxj"))
        return 3;
    (void)setenv("XDG_STATE_HOME", "relative", 1); /* is to be ignored (XDG) */
    if (!dirs_are("/home/u/.local/state/rbxj", "/r/rbxj"))
        return 4;
    (void)setenv("XDG_STATE_HOME", "/s", 1);
    if (!dirs_are("/s/rbxj", "/r/rbxj"))
        return 5;
    (void)setenv("RBXJ_STATE_DIR", "", 1); /* empty is not set */
    return dirs_are("/s/rbxj", "/r/rbxj") ? 0 : 6;
}

static void the_defaults_depend_on_the_user(void **state)
{
    (void)state;
    harness_need_root();
    assert_int_equal(in_child(defaults_of_root, 0, harness_tmpfs()), 0);
    assert_int_equal(chmod(harness_tmpfs(), 0755), 0);
    assert_int_equal(in_child(defaults_of_a_user, 65534, harness_tmpfs()), 0);
}

/* ---- durability ---- */

static void the_environment_decides_durability(void **state)
{
    (void)state;
    (void)setenv("RBXJ_DURABILITY", "resource", 1);
    assert_loads("[journal]\ndurability=always\n");
    assert_int_equal(loaded.durability, DURABILITY_RESOURCE);
    (void)setenv("RBXJ_DURABILITY", "always", 1);
    assert_loads("[journal]\ndurability=resource\n");
    assert_int_equal(loaded.durability, DURABILITY_ALWAYS);
    (void)setenv("RBXJ_DURABILITY", "", 1);
    assert_loads("[journal]\ndurability=resource\n");
    assert_int_equal(loaded.durability, DURABILITY_RESOURCE);
    (void)setenv("RBXJ_DURABILITY", "allways", 1);
    assert_refused("", "RBXJ_DURABILITY=allways: expected auto, resource or always");
    (void)setenv("RBXJ_DURABILITY", "auto", 1);
    assert_loads("[journal]\ndurability=resource\n");
    assert_int_equal(loaded.durability, config_in_container() ? DURABILITY_ALWAYS : DURABILITY_RESOURCE);
}

static int in_container(void)
{
    return config_in_container();
}

/* A root directory of its own, so that this machine's marks are out of sight. */
static void a_container_is_told_by_its_marks(void **state)
{
    (void)state;
    const char *root = harness_tmpfs();
    static const char *const dirs[] = {"run", "run/systemd", "run/host", "proc", "proc/1"};
    static const char *const marks[] = {
        "run/systemd/container", "run/host/container-manager", "run/.containerenv", ".dockerenv", "proc/vz",
    };
    for (size_t i = 0; i < ARRAY_LEN(dirs); i++)
        harness_mkdir(harness_format("%s/%s", root, dirs[i]));
    assert_int_equal(in_child(in_container, 0, root), 0);
    for (size_t i = 0; i < ARRAY_LEN(marks); i++) {
        const char *mark = harness_format("%s/%s", root, marks[i]);
        harness_write(mark, "");
        assert_int_equal(in_child(in_container, 0, root), 1);
        assert_int_equal(unlink(mark), 0);
    }
    harness_write(harness_format("%s/proc/vz", root), "");
    harness_write(harness_format("%s/proc/bc", root), ""); /* the host of OpenVZ containers */
    assert_int_equal(in_child(in_container, 0, root), 0);

    static const struct {
        const char *environment;
        size_t len;
        int expected;
    } cases[] = {
#define ENVIRONMENT(text, expected) {text, sizeof(text) - 1, expected}
        ENVIRONMENT("HOME=/\0container=lxc\0", 1),
        ENVIRONMENT("container=lxc", 1),
        ENVIRONMENT("HOME=/\0container=\0TERM=linux\0", 0),
        ENVIRONMENT("HOME=/\0my_container=lxc\0", 0),
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        const char *path = harness_format("%s/proc/1/environ", root);
        harness_write(path, "");
        _cleanup_close_ int fd = open(path, O_WRONLY);
        assert_int_equal(write(fd, cases[i].environment, cases[i].len), cases[i].len);
        assert_int_equal(in_child(in_container, 0, root), cases[i].expected);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        config_test(options_beat_the_environment),     config_test(directories_are_absolute_and_resolved),
        config_test(the_defaults_depend_on_the_user),  config_test(the_environment_decides_durability),
        config_test(a_container_is_told_by_its_marks),
    };
    return cmocka_run_group_tests(tests, harness_group_setup, harness_group_teardown);
}

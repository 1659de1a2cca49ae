#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# The library as strangers have it: installed, used from another folder, from C, C++ and by dlopen: library.sh [RBXJ]
. "${0%/*}/lib.bash"

top=$(realpath "${0%/*}/..")
prefix=$work/prefix
unset MAKEFLAGS MFLAGS MAKELEVEL
# DESTDIR=/ keeps the system's own places out of it.
make -C "$top" -s BUILD="${RBXJ_BUILD:-build}" DESTDIR=/ PREFIX="$prefix" install >"$work/out" 2>"$work/err"
check "it installs below a prefix" is $? 0
export PKG_CONFIG_PATH=$prefix/lib/pkgconfig LD_LIBRARY_PATH=$prefix/lib
mkdir "$work/elsewhere"
cd "$work/elsewhere" || exit 1

# build COMPILER ARGS...: with what pkg-config says, and nothing else.
build() {
    # shellcheck disable=SC2046
    "$@" $(pkg-config --cflags --libs rbxj) >"$work/out" 2>"$work/err"
}

# ---- C ----

cat >life.c <<'C'
#include <rbxj.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

/* A directory's life; then a call that fails, and must not print. */
int main(int argc, char **argv)
{
    struct rbxj *rbxj;
    struct rbxj_error e;
    struct rbxj_options options;
    struct rbxj_box box;
    struct rbxj_resource dir;
    struct stat st;
    uint32_t seq;
    memset(&options, 0, sizeof(options));
    memset(&box, 0, sizeof(box));
    memset(&dir, 0, sizeof(dir));
    box.name = "c";
    dir.kind = RBXJ_TMPDIR;
    dir.path = argv[1];
    if (argc != 2 || rbxj_open(&options, &rbxj, &e) != 0)
        return 1;
    if (rbxj_begin(rbxj, &box, NULL, &e) != 0 || rbxj_take(rbxj, "c", &dir, &seq, NULL, &e) != 0)
        return 2;
    if (seq != 1 || stat(argv[1], &st) != 0)
        return 3;
    if (rbxj_take(rbxj, "c", &dir, &seq, NULL, &e) != -RBXJ_E_EXISTS || strcmp(rbxj_strerror(-e.code), "exists") != 0)
        return 4;
    if (rbxj_undo(rbxj, "c", NULL, &e) != 0 || rbxj_end(rbxj, "c", &e) != 0)
        return 5;
    rbxj_close(rbxj);
    return stat(argv[1], &st) == 0 ? 6 : 0;
}
C
# runs PROGRAM...: it succeeds, prints nothing, and leaves nothing.
runs() {
    fresh
    "$@" "$work/dir" >"$work/out" 2>"$work/err"
    is $? 0 && is "$(cat "$work/out" "$work/err")" "" && gone "$work/dir" && no_record
}
build cc -std=c99 -pedantic -Wall -Wextra -Werror -o life life.c
check "C99, pedantic: compiles against what is installed" is $? 0
check "C: works, and never prints" runs ./life
check "C: it is the installed library" grep -q "$prefix/lib/librbxj.so.0" <(ldd ./life)
# shellcheck disable=SC2046
cc -o life-static life.c $(pkg-config --cflags rbxj) "$prefix/lib/librbxj.a" \
    $(pkg-config --static --libs-only-l rbxj | sed 's/-lrbxj//') -pthread >"$work/out" 2>"$work/err"
check "C: links statically" is $? 0
check "C, static: works" runs ./life-static

# ---- C++ ----

cat >life.cc <<'C'
#include <rbxj.h>
#include <sys/stat.h>

int main(int, char **argv)
{
    rbxj *handle = nullptr;
    rbxj_error e;
    rbxj_resource dir = {};
    dir.kind = RBXJ_TMPDIR;
    dir.path = argv[1];
    rbxj_box box = {};
    box.name = "cc";
    box.plan = &dir;
    box.plan_len = 1;
    struct stat st;
    if (rbxj_open(nullptr, &handle, &e) != 0 || rbxj_begin(handle, &box, nullptr, &e) != 0)
        return 1;
    if (rbxj_acquire(handle, "cc", 1, nullptr, nullptr, &e) != 0 || stat(argv[1], &st) != 0)
        return 2;
    if (rbxj_undo(handle, "cc", nullptr, &e) != 0 || rbxj_end(handle, "cc", &e) != 0)
        return 3;
    rbxj_close(handle);
    return 0;
}
C
build g++ -std=c++11 -pedantic -Wall -Wextra -Werror -o life-cc life.cc
check "C++11, pedantic: compiles" is $? 0
check "C++: works" runs ./life-cc

# ---- dlopen ----

cat >open.c <<'C'
#include <dlfcn.h>
#include <rbxj.h>

int main(int argc, char **argv)
{
    void *library = dlopen("librbxj.so.0", RTLD_NOW | RTLD_LOCAL);
    if (argc != 2 || !library)
        return 1;
    int (*open)(const struct rbxj_options *, struct rbxj **, struct rbxj_error *);
    int (*begin)(struct rbxj *, const struct rbxj_box *, uint64_t *, struct rbxj_error *);
    int (*take)(struct rbxj *, const char *, const struct rbxj_resource *, uint32_t *, int *, struct rbxj_error *);
    int (*undo)(struct rbxj *, const char *, struct rbxj_result **, struct rbxj_error *);
    int (*end)(struct rbxj *, const char *, struct rbxj_error *);
    void (*close)(struct rbxj *);
    *(void **)&open = dlvsym(library, "rbxj_open", "RBXJ_0.1");
    *(void **)&begin = dlvsym(library, "rbxj_begin", "RBXJ_0.1");
    *(void **)&take = dlvsym(library, "rbxj_take", "RBXJ_0.1");
    *(void **)&undo = dlvsym(library, "rbxj_undo", "RBXJ_0.1");
    *(void **)&end = dlvsym(library, "rbxj_end", "RBXJ_0.1");
    *(void **)&close = dlvsym(library, "rbxj_close", "RBXJ_0.1");
    struct rbxj_box box = {.name = "d"};
    struct rbxj_resource dir = {.kind = RBXJ_TMPDIR, .path = argv[1]};
    struct rbxj *handle;
    if (!open || !begin || !take || !undo || !end || !close || open(0, &handle, 0) || begin(handle, &box, 0, 0) ||
        take(handle, "d", &dir, 0, 0, 0) || undo(handle, "d", 0, 0) || end(handle, "d", 0))
        return 2;
    close(handle);
    return 0;
}
C
# shellcheck disable=SC2046
cc -D_GNU_SOURCE -Wall -Wextra -Werror -o open open.c $(pkg-config --cflags rbxj) -ldl >"$work/out" 2>"$work/err"
check "dlopen: compiles with the header alone" is $? 0
check "dlopen: works" runs ./open

cat >unload.c <<'C'
#include <dlfcn.h>
#include <fcntl.h>
#include <rbxj.h>
#include <sys/wait.h>
#include <unistd.h>

/* Loads, perhaps begins a box, and unloads; the box goes on. */
static int life(const char *box)
{
    void *library = dlopen("librbxj.so.0", RTLD_NOW | RTLD_LOCAL);
    struct rbxj_box b = {.name = box};
    struct rbxj *handle;
    if (!library)
        return -1;
    int (*open)(const struct rbxj_options *, struct rbxj **, struct rbxj_error *);
    int (*begin)(struct rbxj *, const struct rbxj_box *, uint64_t *, struct rbxj_error *);
    void (*close)(struct rbxj *);
    *(void **)&open = dlsym(library, "rbxj_open");
    *(void **)&begin = dlsym(library, "rbxj_begin");
    *(void **)&close = dlsym(library, "rbxj_close");
    if (open(0, &handle, 0) || (box && begin(handle, &b, 0, 0)))
        return -1;
    close(handle);
    return dlclose(library);
}

/* Does another process see the lock of a box, by which a reaper in another pid namespace tells that it lives? */
int main(int argc, char **argv)
{
    int status;
    if (argc != 2 || life("u") || life(0))
        return 1;
    pid_t pid = fork();
    if (pid == 0) {
        struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 1};
        int fd = open(argv[1], O_RDWR);
        _exit(fd < 0 || fcntl(fd, F_GETLK, &lock) < 0 || lock.l_type == F_UNLCK);
    }
    return waitpid(pid, &status, 0) != pid || status ? 2 : 0;
}
C
# shellcheck disable=SC2046
cc -D_GNU_SOURCE -Wall -Wextra -Werror -o unload unload.c $(pkg-config --cflags rbxj) -ldl >"$work/out" 2>"$work/err"
check "dlclose: compiles" is $? 0
fresh
check "dlclose: a box of a library that was unloaded and loaded again lives on" ./unload "$RBXJ_STATE_DIR/alive"

cat >ffi.py <<'P'
# Any language that can call C: plain structures, laid out by hand.
import ctypes as c, os, sys

class Error(c.Structure):
    _fields_ = [("code", c.c_int), ("errnum", c.c_int), ("message", c.c_char * 400), ("detail", c.c_char * 200)]
class Resource(c.Structure):
    _fields_ = [("kind", c.c_int), ("flags", c.c_uint32), ("path", c.c_char_p), ("fstype", c.c_char_p),
                ("source", c.c_char_p), ("options", c.c_char_p), ("pid", c.c_int), ("reserved", c.c_uint64 * 4)]
class Box(c.Structure):
    _fields_ = [("name", c.c_char_p), ("supervisor", c.c_int), ("parent", c.c_char_p), ("plan", c.POINTER(Resource)),
                ("plan_len", c.c_size_t), ("reserved", c.c_uint64 * 4)]

lib = c.CDLL("librbxj.so.0")
lib.rbxj_strerror.restype = c.c_char_p
lib.rbxj_close.restype = None
handle, error, incarnation = c.c_void_p(), Error(), c.c_uint64()
path = os.fsencode(sys.argv[1])
plan = (Resource * 1)(Resource(kind=4, path=path))
assert lib.rbxj_open(None, c.byref(handle), c.byref(error)) == 0, error.message
assert lib.rbxj_begin(handle, c.byref(Box(name=b"py", plan=plan, plan_len=1)), c.byref(incarnation), c.byref(error)) == 0
assert incarnation.value
assert lib.rbxj_acquire(handle, b"py", 1, None, None, c.byref(error)) == 0 and os.path.isdir(path)
code = lib.rbxj_begin(handle, c.byref(Box(name=b"py")), None, c.byref(error))
assert lib.rbxj_strerror(code) == b"box_live" and error.code == -code and b"py" in error.message
assert lib.rbxj_strerror(lib.rbxj_undo(handle, b"", None, c.byref(error))) == b"no_such_box"
assert lib.rbxj_undo(handle, b"py", None, c.byref(error)) == 0 and lib.rbxj_end(handle, b"py", c.byref(error)) == 0
lib.rbxj_close(handle)
P
check "any FFI: Python's ctypes" runs python3 -I -S ffi.py

# ---- taking it away ----

make -C "$top" -s BUILD="${RBXJ_BUILD:-build}" DESTDIR=/ PREFIX="$prefix" uninstall >"$work/out" 2>"$work/err"
check "it uninstalls" is "$(find "$prefix" ! -type d)" ""
finish

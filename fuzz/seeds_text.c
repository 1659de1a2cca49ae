/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Seeds that are texts, one for each shape that a parser knows of, and some that it should not like.
 */
#include "fuzz.h"

#include "base/cleanup.h"

#include <string.h>

struct text {
    const char *name, *bytes;
    size_t len;
};
#define T(name, bytes)                                                                                       \
    {                                                                                                        \
        name, bytes, sizeof(bytes) - 1                                                                       \
    }

static const struct text config[] = {
    T("journal", "[journal]\n"
                 "durability=always\n"
                 "map_size=1G\n"
                 "preallocate=4M\n"
                 "gate_timeout=10s\n"
                 "[replay]\n"
                 "lazy_umount=last-resort\n"
                 "timeout=30s\n"
                 "jobs=2\n"),
    T("paths", "; a comment\n"
               "[paths]\n"
               "protected=/srv/a:/srv/b\n"
               "allowed=\n"
               "[health]\n"
               "quarantine_after=3\n"
               "[incidents]\n"
               "keep=10\n"
               "keep_days=9\n"),
    T("all", "# every key\n"
             "[journal]\n"
             "durability = auto\n"
             "map_size = 1G\n"
             "preallocate = 4M\n"
             "gate_timeout = 1500ms\n"
             "\n"
             "[replay]\n"
             "lazy_umount = never\n"
             "timeout = 1m30s\n"
             "boot_deadline = 60s\n"
             "busy_retries = 10\n"
             "jobs = 4\n"
             "[health]\n"
             "quarantine_after = 3\n"
             "escalate_failures = 3\n"
             "escalate_per_day = 1\n"
             "min_free = 5%\n"
             "[discover]\n"
             "locks = /var/lib/rustbox/boxes/*/lock\n"
             "cgroups = rustbox-*\n"
             "mounts = /var/lib/rustbox/*\n"
             "tmpdirs = /tmp/rustbox-*\n"
             "[paths]\n"
             "protected = /srv/a:/srv/b c\n"
             "allowed = /srv:/var/lib/boxes\n"
             "[incidents]\n"
             "keep = 1000\n"
             "keep_days = 90\n"),
    T("wrong", "[journal]\n"
               "map_size=-1\n"),
    T("unknown", "[journal]\n"
                 "speed=fast\n"),
    T("no_section", "keep=1\n"),
    T("long",
      "[paths]\n"
      "protected=/"
      "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
      "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
      "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\n"),
    T("bom", "\357\273\277[journal]\015\n"
             "durability=always\015\n"),
    T("twice", "[replay]\n"
               "timeout=1s\n"
               "timeout=2s\n"
               " continued\n"),
};

static const struct text hook[] = {
    T("bad", "{\"op\":\"end\",\"box\":\"7\",\"box\":\"8\"}\n"
             "{\"op\":\"acquired\",\"box\":\"7\",\"seq\":01}\n"
             "{\"op\":\"acquired\",\"box\":\"7\",\"seq\":1.5e0}\n"
             "{\"op\":\"begin\",\"box\":\"7\",\"pid\":-1}\n"
             "{\"op\":\"begin\",\"box\":\"7\",\"plan\":[],\"plan\":[]}\n"
             "{\"op\":\"begin\",\"box\":\"7\",\"plan\":[[[[[[[[[]]]]]]]]]}\n"
             "{\"op\":\"x\"}\n"
             "{}\n"),
    T("before", "+f0\n"
                "{\"op\":\"begin\",\"box\":\"7\",\"plan\":[{\"kind\":\"lock\",\"path\":\"/w/a\"}]}\n"
                "{\"op\":\"acquired\",\"box\":\"7\",\"seq\":1}\n"
                "{\"op\":\"undo\",\"box\":\"7\"}\n"
                "{\"op\":\"end\",\"box\":\"7\"}\n"),
    T("cgroup", "{\"op\":\"begin\",\"box\":\"7\"}\n"
                "{\"op\":\"intend\",\"box\":\"7\",\"resource\":{\"kind\":\"cgroup\",\"path\":\"/sys/fs/"
                "cgroup/rustbox-7\"}}\n"),
    T("late", "{\"op\":\"begin\",\"box\":\"7\"}\n"
              "{\"op\":\"intend\",\"box\":\"7\",\"resource\":{\"kind\":\"tmpdir\",\"path\":\"/w/b\"}}\n"
              "+d1\n"
              "{\"op\":\"acquired\",\"box\":\"7\",\"seq\":1}\n"
              "{\"op\":\"released\",\"box\":\"7\",\"seq\":1}\n"
              "{\"op\":\"end\",\"box\":\"7\"}\n"),
    T("life", "{\"op\":\"begin\",\"box\":\"7\",\"plan\":[{\"kind\":\"lock\",\"path\":\"/w/"
              "a\"},{\"kind\":\"tmpdir\",\"path\":\"/w/b\"}]}\n"
              "+f0\n"
              "+d1\n"
              "{\"op\":\"acquired\",\"box\":\"7\",\"seq\":1}\n"
              "{\"op\":\"acquired\",\"box\":\"7\",\"seq\":2}\n"
              "{\"op\":\"undo\",\"box\":\"7\"}\n"
              "{\"op\":\"end\",\"box\":\"7\"}\n"),
    T("mount", "+d0\n"
               "{\"op\":\"begin\",\"box\":\"7\",\"pid\":1,\"plan\":[{\"kind\":\"mount\",\"target\":\"/w/"
               "a\",\"fstype\":\"tmpfs\",\"source\":\"rustbox\"}]}\n"
               "{\"op\":\"intend\",\"box\":\"7\",\"resource\":{\"kind\":\"mount\",\"target\":\"/w/"
               "a\",\"fstype\":\"tmpfs\",\"source\":\"x\"}}\n"
               "{\"op\":\"acquired\",\"box\":\"7\",\"seq\":1}\n"
               "{\"op\":\"undo\",\"box\":\"7\"}\n"),
    T("no_json", "\n"
                 "{\n"
                 "{\"op\":\"end\",\"box\":\"7\"}x\n"
                 "[]\n"
                 "{\"op\":\"end\",\"box\":\"\001\"}\n"
                 "{\"op\":\"end\",\"box\":\"\377\"}\n"
                 "{\"op\":\"end\",\"box\":\"\\u0000\"}\n"
                 "{\"op\":\"end\",\"box\":\"\\uD83D\\uDE00\"}\n"
                 "{\"op\":\"end\",\"box\":\"7\000\"}\n"),
    T("overlap", "{\"op\":\"begin\",\"box\":\"7\",\"plan\":[{\"kind\":\"lock\",\"path\":\"/w/"
                 "a\"},{\"kind\":\"lock\",\"path\":\"/w/a\"}]}\n"
                 "{\"op\":\"begin\",\"box\":\"8\",\"plan\":[{\"kind\":\"tmpdir\",\"path\":\"/w/b\"}]}\n"
                 "{\"op\":\"begin\",\"box\":\"9\",\"plan\":[{\"kind\":\"tmpdir\",\"path\":\"/w/b\"}]}\n"),
    T("parent",
      "{\"op\":\"begin\",\"box\":\"o\",\"plan\":[{\"kind\":\"tmpdir\",\"path\":\"/w/b\"}]}\n"
      "{\"op\":\"begin\",\"box\":\"i\",\"parent\":\"o\",\"plan\":[{\"kind\":\"lock\",\"path\":\"/w/b/x\"}]}\n"
      "{\"op\":\"undo\",\"box\":\"o\"}\n"
      "{\"op\":\"end\",\"box\":\"i\"}\n"),
    T("paths", "{\"op\":\"begin\",\"box\":\"7\",\"plan\":[{\"kind\":\"lock\",\"path\":\"x\"}]}\n"
               "{\"op\":\"begin\",\"box\":\"7\",\"plan\":[{\"kind\":\"lock\",\"path\":\"/w/../x\"}]}\n"
               "{\"op\":\"begin\",\"box\":\"7\",\"plan\":[{\"kind\":\"lock\",\"path\":\"/\"}]}\n"
               "{\"op\":\"begin\",\"box\":\"7\",\"plan\":[{\"kind\":\"lock\",\"path\":\"/etc/x\"}]}\n"
               "{\"op\":\"begin\",\"box\":\"7\",\"plan\":[{\"kind\":\"lock\",\"path\":\"/w//x\"}]}\n"
               "{\"op\":\"begin\",\"box\":\"7\",\"plan\":[{\"kind\":\"lock\",\"path\":\"/w/x/\"}]}\n"
               "{\"op\":\"begin\",\"box\":\"7\",\"plan\":[{\"kind\":\"lock\",\"path\":\"/s/x\"}]}\n"),
    T("process", "{\"op\":\"begin\",\"box\":\"7\"}\n"
                 "{\"op\":\"intend\",\"box\":\"7\",\"resource\":{\"kind\":\"process\",\"pid\":2}}\n"
                 "{\"op\":\"undo\",\"box\":\"7\"}\n"),
    T("raw", "{\"op\":\"begin\",\"box\":\"7\"}\n"
             "{\"op\":\"intend\",\"box\":\"7\",\"resource\":{\"kind\":\"lock\",\"path_raw\":\"2f772fff\"}}\n"
             "{\"op\":\"intend\",\"box\":\"7\",\"resource\":{\"kind\":\"mount\",\"target_raw\":\"2f772F61\","
             "\"fstype\":\"bind\",\"source_raw\":\"2f77\"}}\n"),
    T("released", "{\"op\":\"begin\",\"box\":\"7\",\"plan\":[{\"kind\":\"tmpdir\",\"path\":\"/w/b\"}]}\n"
                  "{\"op\":\"released\",\"box\":\"7\",\"seq\":1}\n"
                  "{\"op\":\"end\",\"box\":\"7\"}\n"),
    T("rmdir", "{\"op\":\"begin\",\"box\":\"7\"}\n"
               "{\"op\":\"intend\",\"box\":\"7\",\"resource\":{\"kind\":\"tmpdir\",\"path\":\"/w/"
               "c\",\"rmdir_only\":true}}\n"
               "+d2\n"
               "{\"op\":\"acquired\",\"box\":\"7\",\"seq\":1}\n"
               "{\"op\":\"undo\",\"box\":\"7\"}\n"),
    T("rbind",
      "{\"op\":\"begin\",\"box\":\"7\",\"plan\":[{\"kind\":\"mount\",\"target\":\"/w/"
      "c\",\"fstype\":\"rbind\",\"source\":\"/w\"},{\"kind\":\"cgroup\",\"path\":\"/sys/fs/cgroup/a\"}]}\n"
      "{\"op\":\"released\",\"box\":\"7\",\"seq\":2}\n"
      "{\"op\":\"undo\",\"box\":\"7\"}\n"),
};

static const struct text lock[] = {
    T("empty", ""),
    T("nested", "{\"rbxj\":{\"rbxj\":[\"42:1\""),
    T("own", "{\"rbxj\":\"42:1\",\"pid\":1,\"box_id\":\"7\",\"created_at\":{\"secs_since_epoch\":0,\"nanos_"
             "since_epoch\":0}}\n"),
    T("prefix", "{\"rbxj\":\"42"),
    T("rustbox", "{\"pid\":4242,\"box_id\":3,\"created_at\":{\"secs_since_epoch\":1770000000,\"nanos_since_"
                 "epoch\":0},\"rustbox_version\":\"0.1.0\"}"),
    T("other", "{\"rbxj\":\"43:1\",\"pid\":1,\"box_id\":\"7\",\"created_at\":{\"secs_since_epoch\":0,\"nanos_"
               "since_epoch\":0}}\n"),
    T("other_id", "{\"pid\":4242,\"box_id\":\"8\"}"),
    T("pid", "4711\n"),
    T("not_json", "locked by somebody\n"),
    T("truncated", "{\"pid\":4242,\"box_id\":3,\"created_at\":{\"secs"),
    T("binary", "\177ELF\002\001\001\000\000"),
    T("zeros", "{\"rbxj\":\"42:1\","
               "\"pid\"\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000"
               "\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000"),
    T("trailing", "{\"rbxj\":\"42:1\",\"pid\":1,\"box_id\":\"7\",\"created_at\":{\"secs_since_epoch\":0,"
                  "\"nanos_since_epoch\":0}}\n"
                  "x"),
    T("utf8", "{\"name\":\"\303\244\360\237\230\200"),
    T("deep",
      "[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[["
      "[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[["
      "[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[["
      "[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[["
      "[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[["
      "[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[["
      "[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[["
      "[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[["
      "[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[["
      "[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[["
      "[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[["
      "[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]]]]]]]]]"
      "]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]"
      "]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]"
      "]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]"
      "]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]"
      "]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]"
      "]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]"
      "]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]"
      "]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]"
      "]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]"
      "]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]"
      "]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]"
      "]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]"),
    T("escape", "\033[31m{\"pid\":1}"),
    T("escaped", "{\"a\\u0000\\\"\":[true,false,null,-1.5e+3,\"\\ud83d\\ude00\\n\"],\"b\":{}}"),
};

static const struct text mountinfo[] = {
    T("kinds", "30 25 0:26 / /sys/fs/cgroup/unified rw,nosuid - cgroup2 cgroup2 rw\n"
               "31 25 0:4 mnt:[4026532] /run/ns rw - nsfs nsfs rw\n"
               "32 21 0:50 / /a rw shared:1 unbindable - fuse.sshfs host:/\\011 rw\n"),
    T("odd", "21 1 8:1 / / rw shared:1 - ext4 /dev/sda1 rw\n"
             "22 21 0:20 /a\\040b //deleted /x\\134040 rw master:5 propagate_from:2 shared:7 - tmpfs  rw\n"),
    T("plain", "36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue\n"),
    T("stack", "21 1 8:1 / / rw - ext4 /dev/sda1 rw\n"
               "40 21 0:40 / /mnt rw shared:9 - tmpfs rbxj:42:1 rw,size=1024k\n"
               "41 40 0:41 / /mnt rw master:9 - tmpfs none rw\n"),
    T("no_end", "21 1 8:1 / / rw - ext4 /dev/sda1 rw"),
    T("no_source", "50 21 0:44 / /a rw -  \n"),
    T("empty", ""),
    T("escapes", "60 21 0:60 / /tab\\011nl\\012bs\\134hash\\043sp\\040 rw - overlay overlay "
                 "rw,lowerdir=/a\\054b:/c,upperdir=/d\n"),
    T("cgroup1", "33 25 0:29 / /sys/fs/cgroup/freezer rw,nosuid,nodev,noexec,relatime shared:13 - cgroup "
                 "cgroup rw,freezer\n"),
    T("high", "2147483647 2147483646 4095:1048575 / /x rw shared:2147483647 - btrfs /dev/sdb "
              "rw,subvolid=5,subvol=/\n"),
};

static const struct text proctext[] = {
    T("stat_name", "42 (a) Z 4 (b) S 17 1 1 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 123456 9\n"),
    T("stat_short", "42 (a) S 17 1"),
    T("status_thread", "Name:\011x\n"
                       "Umask:\0110022\n"
                       "State:\011S (sleeping)\n"
                       "Tgid:\0114711\n"
                       "Ngid:\0110\n"
                       "Pid:\0114712\n"),
    T("locks_flock", "1: POSIX  ADVISORY  WRITE 708 fe:01:1234 0 EOF\n"
                     "2: FLOCK  ADVISORY  WRITE 708 fe:01:77 0 EOF\n"
                     "2: -> FLOCK  ADVISORY  WRITE 709 fe:01:77 0 EOF\n"),
    T("fdinfo_flock", "pos:\0110\n"
                      "flags:\0110100000\n"
                      "mnt_id:\01129\n"
                      "ino:\01177\n"
                      "lock:\0111: FLOCK  ADVISORY  WRITE 708 fe:01:77 0 EOF\n"),
    T("cgroup_v1", "4:memory:/rbxj/box7\n"
                   "1:name=systemd:/user.slice\n"
                   "0::/rbxj/box7/in\n"),
    T("cgroup_gone", "0::/rbxj/box7 (deleted)\n"),
    T("procs", "1\n"
               "0\n"
               "4711\n"
               "2147483647\n"),
    T("kmsg", "3,7001,14092730217,-;Memory cgroup out of memory: Killed process 42 (x)\n"
              " SUBSYSTEM=block\n"
              " DEVICE=+block:loop0\n"),
    T("kmsg_cut", "30,1,2,c,3;"),
    T("environ", "PATH=/bin\000container=lxc\000TERM=linux\000"),
    T("environ_empty", "container=\000"),
};

static void write_all(const char *target, const struct text *texts, size_t n)
{
    for (size_t i = 0; i < n; i++)
        seed_write(target, texts[i].name, texts[i].bytes, texts[i].len);
}

void seed_texts(void)
{
    write_all("config", config, ARRAY_LEN(config));
    write_all("hook", hook, ARRAY_LEN(hook));
    write_all("lock", lock, ARRAY_LEN(lock));
    write_all("mountinfo", mountinfo, ARRAY_LEN(mountinfo));
    write_all("proctext", proctext, ARRAY_LEN(proctext));
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "disk_names.h"

#include "base/cleanup.h"
#include "crash.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define PAGE 4096u
#define SECTOR 512u

/* Versions: the first one is on disk, the last one is what a reader sees. */
struct page {
    uint8_t **versions; /* NULL in it: zeros */
    size_t n;
};

struct disk_node {
    bool is_dir;
    char *made_as; /* its first name */
    /* a file */
    struct page *pages;
    size_t pages_len;
    uint64_t *sizes;
    size_t sizes_len;
    /* a directory */
    struct disk_names names;
};

struct disk_image {
    struct disk_node root;
    struct disk_node **all; /* for disk_image_free() */
    size_t all_len;
};

static struct disk_node *node_new(struct disk_image *image, bool is_dir, const char *name)
{
    struct disk_node *node = calloc(1, sizeof(*node));
    assert_non_null(node);
    node->is_dir = is_dir;
    node->made_as = strdup(name);
    if (!is_dir)
        *DISK_GROW(node->sizes, node->sizes_len) = 0;
    *DISK_GROW(image->all, image->all_len) = node;
    return node;
}

/* The node at path as a reader sees it; NULL where it is not. ret_last: the directory's node instead, and the
 * last part of the path. */
static struct disk_node *walk(struct disk_image *image, const char *path, const char **ret_last)
{
    struct disk_node *node = &image->root;
    char part[NAME_MAX + 1];
    while (node && *path) {
        size_t n = strcspn(path, "/");
        if (ret_last && !path[n]) {
            *ret_last = path;
            return node;
        }
        assert_true(n <= NAME_MAX);
        memcpy(part, path, n);
        part[n] = '\0';
        node = disk_names_find(&node->names, part);
        path += n + (path[n] == '/');
    }
    return node;
}

/* ---- contents ---- */

static struct page *page_at(struct disk_node *file, uint64_t number)
{
    if (number >= file->pages_len) {
        file->pages = reallocarray(file->pages, number + 1, sizeof(*file->pages));
        assert_non_null(file->pages);
        memset(&file->pages[file->pages_len], 0, (number + 1 - file->pages_len) * sizeof(*file->pages));
        file->pages_len = number + 1;
    }
    struct page *page = &file->pages[number];
    if (!page->n)
        *DISK_GROW(page->versions, page->n) = NULL;
    return page;
}

/* A new version with data at offset; data NULL: zeros. */
static void page_change(struct page *page, size_t offset, const uint8_t *data, size_t len)
{
    uint8_t *new = calloc(1, PAGE), *old = page->versions[page->n - 1];
    assert_non_null(new);
    if (old)
        memcpy(new, old, PAGE);
    if (data)
        memcpy(new + offset, data, len);
    else
        memset(new + offset, 0, len);
    *DISK_GROW(page->versions, page->n) = new;
}

/* Only the newest version stays: it is on disk. */
static void page_sync(struct page *page)
{
    if (page->n < 2)
        return;
    uint8_t *last = page->versions[page->n - 1];
    for (size_t i = 0; i + 1 < page->n; i++)
        free(page->versions[i]);
    page->versions[0] = last;
    page->n = 1;
}

static void size_change(struct disk_node *file, uint64_t size)
{
    if (file->sizes[file->sizes_len - 1] != size)
        *DISK_GROW(file->sizes, file->sizes_len) = size;
}

static void size_sync(struct disk_node *file)
{
    file->sizes[0] = file->sizes[file->sizes_len - 1];
    file->sizes_len = 1;
}

static void file_write(struct disk_node *file, const struct disk_entry *e)
{
    for (uint64_t at = e->offset, end = e->offset + e->len; at < end;) {
        size_t in = at % PAGE, n = PAGE - in < end - at ? PAGE - in : (size_t)(end - at);
        page_change(page_at(file, at / PAGE), in, e->data + (at - e->offset), n);
        at += n;
    }
    if (e->offset + e->len > file->sizes[file->sizes_len - 1])
        size_change(file, e->offset + e->len);
}

static void file_resize(struct disk_node *file, uint64_t size)
{
    uint64_t old = file->sizes[file->sizes_len - 1];
    for (uint64_t at = size; at < old; at = (at / PAGE + 1) * PAGE)
        page_change(page_at(file, at / PAGE), at % PAGE, NULL, PAGE - at % PAGE);
    size_change(file, size);
}

static void file_sync(struct disk_node *file, uint64_t offset, uint64_t len)
{
    for (uint64_t i = offset / PAGE; i < file->pages_len && i * PAGE < offset + len; i++)
        page_sync(&file->pages[i]);
    size_sync(file);
}

/* ---- the image ---- */

struct disk_image *disk_image_new(const char *const *directories, size_t n)
{
    struct disk_image *image = calloc(1, sizeof(*image));
    assert_non_null(image);
    image->root.is_dir = true;
    for (size_t i = 0; i < n; i++)
        disk_names_change(&image->root.names, NULL, directories[i], node_new(image, true, directories[i]));
    disk_names_sync(&image->root.names);
    return image;
}

static void node_clear(struct disk_node *node)
{
    for (size_t i = 0; i < node->pages_len; i++) {
        for (size_t k = 0; k < node->pages[i].n; k++)
            free(node->pages[i].versions[k]);
        free(node->pages[i].versions);
    }
    disk_names_clear(&node->names);
    free(node->pages);
    free(node->sizes);
    free(node->made_as);
}

void disk_image_free(struct disk_image *image)
{
    for (size_t i = 0; i < image->all_len; i++) {
        node_clear(image->all[i]);
        free(image->all[i]);
    }
    node_clear(&image->root);
    free(image->all);
    free(image);
}

static void apply_rename(struct disk_image *image, const struct disk_entry *e)
{
    const char *from, *to;
    struct disk_node *dir = walk(image, e->path, &from), *dir2 = walk(image, e->path2, &to);
    struct disk_node *node = walk(image, e->path, NULL);
    if (dir && dir == dir2) {
        disk_names_change(&dir->names, from, to, node);
        return;
    }
    if (dir)
        disk_names_change(&dir->names, from, NULL, NULL);
    if (dir2)
        disk_names_change(&dir2->names, NULL, to, node);
}

static void apply_sync(struct disk_node *node, const struct disk_entry *e)
{
    if (node->is_dir)
        disk_names_sync(&node->names);
    else if (e->op == DISK_DSYNC)
        file_sync(node, e->offset, e->len);
    else
        file_sync(node, 0, UINT64_MAX);
}

void disk_image_apply(struct disk_image *image, const struct disk_entry *e, unsigned ignore)
{
    const char *name = NULL;
    struct disk_node *node = NULL;
    if (e->op == DISK_MARK || (e->flush && (ignore & (1u << e->flush))))
        return;
    switch (e->op) {
    case DISK_SYNC:
        for (size_t i = 0; !e->path && i < image->all_len; i++)
            apply_sync(image->all[i], e);
        if (!e->path)
            return;
        break;
    case DISK_CREATE:
    case DISK_MKDIR:
    case DISK_REMOVE:
        node = walk(image, e->path, &name);
        if (node && e->op == DISK_REMOVE)
            disk_names_change(&node->names, name, NULL, NULL);
        else if (node)
            disk_names_change(&node->names, NULL, name, node_new(image, e->op == DISK_MKDIR, name));
        return;
    case DISK_RENAME:
        apply_rename(image, e);
        return;
    default:
        break;
    }
    node = walk(image, e->path, NULL);
    if (!node) {
        fail_msg("the log tells of %s, which it has not made", e->path);
        return;
    }
    if (e->op == DISK_WRITE)
        file_write(node, e);
    else if (e->op == DISK_SIZE)
        file_resize(node, e->offset);
    else
        apply_sync(node, e);
}

/* ---- a cut ---- */

static void choose_page(struct disk_cut *cut, const struct page *page, uint8_t to[PAGE])
{
    size_t which = disk_choose(cut, page->n);
    for (size_t at = 0; at < PAGE; at += SECTOR) {
        if (cut->torn && at)
            which = disk_choose(cut, page->n);
        if (page->versions[which])
            memcpy(to + at, page->versions[which] + at, SECTOR);
        else
            memset(to + at, 0, SECTOR);
    }
}

static bool is_zero(const uint8_t *data, size_t len)
{
    for (size_t i = 0; i < len; i++)
        if (data[i])
            return false;
    return true;
}

static void write_file(struct disk_node *file, struct disk_cut *cut, int dirfd, const char *name)
{
    uint8_t page[PAGE];
    uint64_t size = file->sizes[disk_choose(cut, file->sizes_len)];
    _cleanup_close_ int fd = openat(dirfd, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0 || ftruncate(fd, (off_t)size) < 0)
        fail_msg("%s: %s", name, strerror(errno));
    for (size_t i = 0; i < file->pages_len && i * PAGE < size; i++) {
        if (!file->pages[i].n)
            continue;
        choose_page(cut, &file->pages[i], page);
        size_t len = size - i * PAGE < PAGE ? (size_t)(size - i * PAGE) : PAGE;
        if (!is_zero(page, len) && pwrite(fd, page, len, (off_t)(i * PAGE)) != (ssize_t)len)
            fail_msg("%s: %s", name, strerror(errno));
    }
}

static void write_dir(struct disk_node *dir, struct disk_cut *cut, int fd)
{
    size_t n;
    struct disk_name *names = disk_names_cut(&dir->names, cut, &n);
    for (size_t i = 0; i < n; i++) {
        if (!names[i].node->is_dir) {
            write_file(names[i].node, cut, fd, names[i].name);
            continue;
        }
        if (mkdirat(fd, names[i].name, 0700) < 0)
            fail_msg("%s: %s", names[i].name, strerror(errno));
        _cleanup_close_ int below = openat(fd, names[i].name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        assert_true(below >= 0);
        write_dir(names[i].node, cut, below);
    }
    disk_names_free(names, n);
}

static struct disk_node *directory_of(struct disk_image *image, const char *directory)
{
    struct disk_node *dir = walk(image, directory, NULL);
    assert_true(dir && dir->is_dir);
    return dir;
}

void disk_image_write(struct disk_image *image, struct disk_cut *cut, const char *directory, const char *to)
{
    _cleanup_close_ int fd = open(to, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    assert_true(fd >= 0);
    write_dir(directory_of(image, directory), cut, fd);
}

void disk_image_names(struct disk_image *image, struct disk_cut *cut, const char *directory,
                      void (*found)(void *data, const char *name), void *data)
{
    size_t n;
    struct disk_name *names = disk_names_cut(&directory_of(image, directory)->names, cut, &n);
    for (size_t i = 0; i < n; i++)
        found(data, names[i].node->made_as);
    disk_names_free(names, n);
}

void disk_image_compare(struct disk_image *image, const char *directory, const char *real, const char *skip)
{
    struct disk_cut cut = {.whole = true};
    char *copy = harness_format("%s/whole", harness_disk());
    harness_mkdir(copy);
    disk_image_write(image, &cut, directory, copy);
    char *command = harness_format("diff -r -x '%s' '%s' '%s'", skip, copy, real);
    if (system(command) != 0)
        fail_msg("the log is not all that was written: %s", command);
}

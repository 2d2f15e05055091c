/* Lists a file tree: for each path kind, mode, owner, time, size, content, link, device, attributes, and which other
   path is the same file. What every sandbox has of its own is left out. Usage: list DIR */
#define _GNU_SOURCE
#include <dirent.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

static const char *own[] = {"/proc", "/dev", "/sys", "/tmp", "/run", "/var/tmp", "/etc/hosts", 0};
static struct { dev_t dev; ino_t ino; char *path; } seen[4096];
static int count;

static void hex(const char *bytes, size_t len) {
    for (size_t i = 0; i < len; i++) {
        unsigned char c = bytes[i];
        if (c > ' ' && c < 0x7f && c != '\\') putchar(c);
        else printf("\\x%02x", c);
    }
}

static int by_name(const void *a, const void *b) { return strcmp(*(char **)a, *(char **)b); }

static void walk(const char *root, const char *path) {
    char full[8192];
    snprintf(full, sizeof full, "%s%s", root, *path ? path : "/");
    struct stat st;
    if (lstat(full, &st)) { perror(full); exit(1); }
    int type = st.st_mode & S_IFMT;
    hex(*path ? path : "/", strlen(*path ? path : "/"));
    printf(" %o %d:%d", st.st_mode, st.st_uid, st.st_gid);
    /* Directories that no archive tells of have any time. */
    if (type != S_IFDIR) printf(" %lld", (long long)st.st_mtime);
    if (type == S_IFREG) {
        uint64_t sum = 0xcbf29ce484222325ull;
        char buffer[65536];
        ssize_t n;
        int fd = open(full, O_RDONLY | O_NOFOLLOW);
        if (fd < 0) { perror(full); exit(1); }
        while ((n = read(fd, buffer, sizeof buffer)) > 0)
            for (ssize_t i = 0; i < n; i++) sum = (sum ^ (unsigned char)buffer[i]) * 0x100000001b3ull;
        close(fd);
        printf(" size=%lld sum=%016llx", (long long)st.st_size, (unsigned long long)sum);
    }
    if (type == S_IFLNK) {
        char target[4097];
        ssize_t n = readlink(full, target, sizeof target - 1);
        printf(" -> ");
        hex(target, n > 0 ? n : 0);
    }
    if (type == S_IFCHR || type == S_IFBLK) printf(" dev=%u:%u", major(st.st_rdev), minor(st.st_rdev));
    if (type != S_IFDIR && st.st_nlink > 1) {
        int i = 0;
        while (i < count && (seen[i].ino != st.st_ino || seen[i].dev != st.st_dev)) i++;
        if (i < count) { printf(" is="); hex(seen[i].path, strlen(seen[i].path)); }
        else { seen[count].dev = st.st_dev; seen[count].ino = st.st_ino; seen[count++].path = strdup(path); }
    }
    if (type == S_IFREG || type == S_IFDIR) {
        char names[65536], *list[256];
        ssize_t n = llistxattr(full, names, sizeof names);
        int many = 0;
        for (ssize_t at = 0; at < n; at += strlen(names + at) + 1) list[many++] = names + at;
        qsort(list, many, sizeof *list, by_name);
        for (int i = 0; i < many; i++) {
            if (strncmp(list[i], "user.", 5) && strcmp(list[i], "security.capability")) continue;
            if (!strncmp(list[i], "user.overlay.", 13)) continue;
            char value[65536];
            ssize_t len = lgetxattr(full, list[i], value, sizeof value);
            printf(" %s=", list[i]);
            hex(value, len > 0 ? len : 0);
        }
    }
    putchar('\n');
    if (type != S_IFDIR) return;
    DIR *dir = opendir(full);
    if (!dir) { perror(full); exit(1); }
    char **names = 0;
    int many = 0;
    for (struct dirent *e; (e = readdir(dir));) {
        if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, "..")) continue;
        names = realloc(names, (many + 1) * sizeof *names);
        names[many++] = strdup(e->d_name);
    }
    closedir(dir);
    qsort(names, many, sizeof *names, by_name);
    for (int i = 0; i < many; i++) {
        char inner[8192];
        snprintf(inner, sizeof inner, "%s/%s", path, names[i]);
        int skip = 0;
        for (const char **o = own; *o; o++) skip |= !strcmp(*o, inner);
        if (!skip) walk(root, inner);
    }
}

int main(int argc, char **argv) {
    const char *root = argc > 1 && strcmp(argv[1], "/") ? argv[1] : "";
    walk(root, "");
    return 0;
}

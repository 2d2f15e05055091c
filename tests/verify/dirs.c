/* Reads directories in every way there is; exits with the number of the line of the first thing that is wrong. */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define CHECK(what) do { if (!(what)) { fprintf(stderr, "%d: %s (errno %d)\n", __LINE__, #what, errno); exit(1); } } while (0)
#define MANY 3000

static char first[MANY + 2][16];

static int list(DIR *dir, char names[][16])
{
    int n = 0;
    struct dirent *entry;
    while ((entry = readdir(dir))) {
        struct stat st;
        CHECK(n < MANY + 2);
        CHECK(fstatat(dirfd(dir), entry->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0);
        CHECK(entry->d_type == (S_ISDIR(st.st_mode) ? DT_DIR : DT_REG));
        strcpy(names[n++], entry->d_name);
    }
    return n;
}

static int compare(const void *a, const void *b) { return strcmp(a, b); }

static void *in_thread(void *path)
{
    static __thread char names[MANY + 2][16];
    DIR *dir = opendir(path);
    CHECK(dir);
    CHECK(list(dir, names) == MANY + 2);
    CHECK(memcmp(names, first, sizeof names) == 0);
    closedir(dir);
    return NULL;
}

int main(void)
{
    static char again[MANY + 2][16], sorted[MANY + 2][16];
    char buffer[4096];
    CHECK(mkdir("many", 0755) == 0);
    for (int i = 0; i < MANY; i++) {
        sprintf(buffer, "many/f%d", i);
        int fd = open(buffer, O_CREAT | O_WRONLY, 0644);
        CHECK(fd >= 0);
        close(fd);
    }
    DIR *dir = opendir("many");
    CHECK(dir && list(dir, first) == MANY + 2);
    memcpy(sorted, first, sizeof first);
    qsort(sorted, MANY + 2, 16, compare);
    for (int i = 1; i < MANY + 2; i++)
        CHECK(strcmp(sorted[i - 1], sorted[i]) < 0);
    CHECK(readdir(dir) == NULL);
    rewinddir(dir);
    CHECK(list(dir, again) == MANY + 2);
    CHECK(memcmp(first, again, sizeof first) == 0);

    rewinddir(dir);
    for (int i = 0; i < 1000; i++)
        CHECK(readdir(dir));
    long at = telldir(dir);
    CHECK(strcmp(readdir(dir)->d_name, first[1000]) == 0);
    for (int i = 0; i < 1500; i++)
        CHECK(readdir(dir));
    seekdir(dir, at);
    CHECK(strcmp(readdir(dir)->d_name, first[1000]) == 0);
    seekdir(dir, 0);
    CHECK(strcmp(readdir(dir)->d_name, first[0]) == 0);

    /* Two open files of one directory, read in turns; and one open file, read by two processes. */
    DIR *other = opendir("many");
    rewinddir(dir);
    for (int i = 0; i < MANY + 2; i++) {
        CHECK(strcmp(readdir(dir)->d_name, first[i]) == 0);
        CHECK(strcmp(readdir(other)->d_name, first[i]) == 0);
    }
    closedir(other);
    int fd = open("many", O_RDONLY | O_DIRECTORY);
    long got = syscall(SYS_getdents64, fd, buffer, sizeof buffer);
    CHECK(got > 0);
    pid_t child = fork();
    if (child == 0) {
        struct dirent64 *entry = (void *)buffer;
        long more = syscall(SYS_getdents64, fd, buffer, sizeof buffer);
        _exit(more > 0 && strcmp(entry->d_name, first[2]) != 0 ? 0 : 1);
    }
    int status;
    CHECK(waitpid(child, &status, 0) == child && status == 0);

    /* Errors are the kernel's. */
    CHECK(lseek(fd, 0, SEEK_SET) == 0);
    CHECK(syscall(SYS_getdents64, fd, buffer, 20) == -1 && errno == EINVAL);
    CHECK(syscall(SYS_getdents64, fd, (void *)16, 4096) == -1 && errno == EFAULT);
    CHECK(syscall(SYS_getdents64, fd, buffer, 64) > 0);
    CHECK(syscall(SYS_getdents64, 999, buffer, 64) == -1 && errno == EBADF);
    int file = open("many/f1", O_RDONLY);
    CHECK(syscall(SYS_getdents64, file, buffer, 64) == -1 && errno == ENOTDIR);
    close(fd);

    pthread_t threads[4];
    for (int i = 0; i < 4; i++)
        CHECK(pthread_create(&threads[i], NULL, in_thread, "many") == 0);
    for (int i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);

    /* Everything is met once although it goes away meanwhile. */
    rewinddir(dir);
    struct dirent *entry;
    while ((entry = readdir(dir)))
        if (entry->d_name[0] == 'f')
            CHECK(unlinkat(dirfd(dir), entry->d_name, 0) == 0);
    CHECK(rmdir("many") == 0);
    rewinddir(dir);
    CHECK(readdir(dir) == NULL);

    /* Other file systems. */
    const char *places[] = { "/", "/proc", "/proc/self/fd", "/dev", "/dev/pts", "/sys", "/tmp", "/usr" };
    for (unsigned i = 0; i < sizeof places / sizeof *places; i++) {
        DIR *place = opendir(places[i]);
        int n = 0;
        CHECK(place);
        while (readdir(place))
            n++;
        CHECK(n >= 2);
        closedir(place);
    }
    return 0;
}

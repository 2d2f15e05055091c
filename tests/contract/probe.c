/* What a shell cannot find out from inside a sandbox: `probe WHAT [ARGUMENTS]`, one fact a line.
 * Statically linked, so that it runs on any base. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/personality.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/time.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* "NAME ok" or "NAME EPERM". */
static void say(const char *name, long result) {
    const char *error = result < 0 ? strerrorname_np(errno) : "ok";
    printf("%s %s\n", name, error ? error : "unknown");
    fflush(stdout);
}

static void fds(void) {
    char link[64], target[256];
    for (int fd = 0; fd < 4096; fd++) {
        if (fcntl(fd, F_GETFD) < 0)
            continue;
        snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
        ssize_t n = readlink(link, target, sizeof target - 1);
        target[n < 0 ? 0 : n] = 0;
        printf("%d %s %s\n", fd, target, isatty(fd) ? "tty" : "no-tty");
    }
    say("/dev/tty", open("/dev/tty", O_RDWR));
}

static void addresses(void) {
    int local;
    printf("stack %p\n", (void *)&local);
    printf("heap %p\n", malloc(1));
    printf("map %p\n", mmap(NULL, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    printf("personality %lx\n", (unsigned long)personality(0xffffffff));
}

static void rlimits(void) {
    static const char *names[] = {"cpu",     "fsize",  "data", "stack",   "core",       "rss",  "nproc",  "nofile",
                                  "memlock", "as",     "locks", "sigpending", "msgqueue", "nice", "rtprio", "rttime"};
    for (int i = 0; i < 16; i++) {
        struct rlimit limit;
        getrlimit(i, &limit);
        printf("%s %lld %lld\n", names[i], (long long)limit.rlim_cur, (long long)limit.rlim_max);
    }
}

static long child_of(long flags) {
    long pid = syscall(SYS_clone, flags | SIGCHLD, 0, 0, 0, 0);
    if (pid == 0)
        _exit(0);
    if (pid > 0)
        waitpid(pid, NULL, 0);
    return pid;
}

/* Every call that the contract denies, with arguments that a kernel without the filter would take, or
 * would refuse with another error. */
static void denied(void) {
    char buffer[256] = {0};
    struct timespec now;
    struct timeval day;
    clock_gettime(CLOCK_REALTIME, &now);
    gettimeofday(&day, NULL);
    mkdir("/tmp/m", 0755);
    say("mount", syscall(SYS_mount, "none", "/tmp/m", "tmpfs", 0, 0));
    say("umount2", syscall(SYS_umount2, "/tmp", 2));
    say("pivot_root", syscall(SYS_pivot_root, "/tmp", "/tmp"));
    say("open_tree", syscall(SYS_open_tree, AT_FDCWD, "/tmp", 1));
    say("move_mount", syscall(SYS_move_mount, AT_FDCWD, "/tmp", AT_FDCWD, "/tmp/m", 0));
    say("fsopen", syscall(SYS_fsopen, "tmpfs", 0));
    say("fspick", syscall(SYS_fspick, AT_FDCWD, "/tmp", 0));
    say("fsconfig", syscall(SYS_fsconfig, -1, 6, 0, 0, 0));
    say("fsmount", syscall(SYS_fsmount, -1, 0, 0));
    say("mount_setattr", syscall(SYS_mount_setattr, AT_FDCWD, "/tmp", 0, buffer, 32));
    say("unshare-user", syscall(SYS_unshare, CLONE_NEWUSER));
    say("unshare-mount", syscall(SYS_unshare, CLONE_NEWNS));
    say("setns", syscall(SYS_setns, open("/proc/self/ns/mnt", O_RDONLY), 0));
    say("clone-user", child_of(CLONE_NEWUSER));
    say("clone-net", child_of(CLONE_NEWNET));
    say("clone3", syscall(SYS_clone3, buffer, 88));
    say("add_key", syscall(SYS_add_key, "user", "isolith", "x", 1, -2));
    say("request_key", syscall(SYS_request_key, "user", "isolith", 0, 0));
    say("keyctl", syscall(SYS_keyctl, 0, -3, 1));
    say("bpf", syscall(SYS_bpf, 0, buffer, 72));
    say("perf_event_open", syscall(SYS_perf_event_open, buffer, 0, -1, -1, 0));
    say("userfaultfd", syscall(SYS_userfaultfd, O_CLOEXEC));
    say("io_uring_setup", syscall(SYS_io_uring_setup, 1, buffer));
    say("io_uring_enter", syscall(SYS_io_uring_enter, -1, 0, 0, 0, 0, 0));
    say("io_uring_register", syscall(SYS_io_uring_register, -1, 0, 0, 0));
    say("kexec_load", syscall(SYS_kexec_load, 0, 0, 0, 0));
    say("kexec_file_load", syscall(SYS_kexec_file_load, -1, -1, 0, 0, 0));
    say("init_module", syscall(SYS_init_module, buffer, 1, ""));
    say("finit_module", syscall(SYS_finit_module, -1, "", 0));
    say("delete_module", syscall(SYS_delete_module, "isolith", 0));
    say("clock_settime", syscall(SYS_clock_settime, CLOCK_REALTIME, &now));
    say("settimeofday", syscall(SYS_settimeofday, &day, 0));
    say("reboot", syscall(SYS_reboot, 0xfee1dead, 672274793, 0, 0));
    say("swapon", syscall(SYS_swapon, "/tmp/none", 0));
    say("swapoff", syscall(SYS_swapoff, "/tmp/none"));
    say("acct", syscall(SYS_acct, "/tmp/none"));
    say("syslog", syscall(SYS_syslog, 3, buffer, 100));
    say("open_by_handle_at", syscall(SYS_open_by_handle_at, AT_FDCWD, buffer, 0));
    say("ptrace-init", syscall(SYS_ptrace, PTRACE_SEIZE, 1, 0, 0));
}

/* A traced child is what debuggers and test suites need. */
static void trace_child(void) {
    pid_t pid = fork();
    if (pid == 0) {
        long result = ptrace(PTRACE_TRACEME, 0, 0, 0);
        raise(SIGSTOP);
        _exit(result < 0 ? 1 : 0);
    }
    int status;
    waitpid(pid, &status, 0);
    say("ptrace-child", WIFSTOPPED(status) ? 0 : (errno = EPERM, -1));
    kill(pid, SIGKILL);
}

static int tcp(const char *address, int port, struct sockaddr_storage *to, socklen_t *length) {
    struct sockaddr_in *v4 = (void *)to;
    struct sockaddr_in6 *v6 = (void *)to;
    memset(to, 0, sizeof *to);
    if (inet_pton(AF_INET, address, &v4->sin_addr) == 1) {
        v4->sin_family = AF_INET;
        v4->sin_port = htons(port);
        *length = sizeof *v4;
    } else {
        inet_pton(AF_INET6, address, &v6->sin6_addr);
        v6->sin6_family = AF_INET6;
        v6->sin6_port = htons(port);
        *length = sizeof *v6;
    }
    return socket(to->ss_family, SOCK_STREAM, 0);
}

static void connect_to(const char *address, int port) {
    struct sockaddr_storage to;
    socklen_t length;
    int fd = tcp(address, port, &to, &length);
    say("connect", connect(fd, (void *)&to, length));
}

/* A server and a client in the same sandbox. */
static void loopback(const char *address) {
    struct sockaddr_storage to;
    socklen_t length;
    int server = tcp(address, 0, &to, &length);
    if (bind(server, (void *)&to, length) < 0 || listen(server, 1) < 0) {
        say("loopback", -1);
        return;
    }
    getsockname(server, (void *)&to, &length);
    say("loopback", connect(socket(to.ss_family, SOCK_STREAM, 0), (void *)&to, length));
}

static void abstract_socket(const char *name) {
    struct sockaddr_un to = {.sun_family = AF_UNIX};
    strncpy(to.sun_path + 1, name, sizeof to.sun_path - 2);
    socklen_t length = offsetof(struct sockaddr_un, sun_path) + 1 + strlen(name);
    say("abstract", connect(socket(AF_UNIX, SOCK_STREAM, 0), (void *)&to, length));
}

/* The machine below a virtual machine: network namespaces do not stand before these sockets. */
static void vsock(void) {
    say("vsock", socket(AF_VSOCK, SOCK_STREAM, 0));
}

static void nodes(void) {
    say("null-device", mknod("/tmp/null", S_IFCHR | 0666, makedev(1, 3)));
    say("disk-device", mknod("/tmp/disk", S_IFBLK | 0666, makedev(8, 0)));
    say("mem-device", mknod("/out-mem", S_IFCHR | 0666, makedev(1, 1)));
    say("fifo", mkfifo("/tmp/fifo", 0666));
}

/* Pushes a character into the caller's terminal. */
static void push_input(void) {
    char c = 'x';
    int fd = open("/dev/tty", O_RDWR);
    say("TIOCSTI", fd < 0 ? fd : ioctl(fd, TIOCSTI, &c));
}

/* The classic way out of a chroot: a working directory above the root has no bound. Prints the file as it
 * is found from the top, and REACHED when the top is where isolith keeps its layers. */
static void leave_chroot(const char *file) {
    char buffer[64];
    mkdir("jail", 0755);
    int top = open("/", O_RDONLY | O_DIRECTORY);
    say("chroot", chroot("jail"));
    if (fchdir(top) == 0)
        for (int i = 0; i < 64 && chdir("..") == 0; i++)
            ;
    say("chroot", chroot("."));
    if (access("/layers", F_OK) == 0 || access("/skel", F_OK) == 0)
        puts("REACHED");
    int fd = open(file, O_RDONLY);
    ssize_t n = fd < 0 ? 0 : read(fd, buffer, sizeof buffer);
    fwrite(buffer, 1, n < 0 ? 0 : n, stdout);
}

static void become(int uid) {
    say("setuid", setuid(uid));
    printf("uid %d euid %d\n", getuid(), geteuid());
}

/* Sends datagrams that come to a port of the loopback back, until it is killed. */
static void echo_datagrams(int port) {
    struct sockaddr_in own = {.sin_family = AF_INET, .sin_port = htons(port)}, from;
    own.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int fd = socket(AF_INET, SOCK_DGRAM, 0);
    if (bind(fd, (struct sockaddr *)&own, sizeof own)) {
        perror("bind");
        exit(1);
    }
    for (;;) {
        char buf[2048];
        socklen_t len = sizeof from;
        ssize_t n = recvfrom(fd, buf, sizeof buf, 0, (struct sockaddr *)&from, &len);
        if (n >= 0)
            sendto(fd, buf, n, 0, (struct sockaddr *)&from, len);
    }
}

int main(int argc, char **argv) {
    const char *what = argc > 1 ? argv[1] : "";
    const char *argument = argc > 2 ? argv[2] : "0";
    if (!strcmp(what, "fds"))
        fds();
    else if (!strcmp(what, "addresses"))
        addresses();
    else if (!strcmp(what, "rlimits"))
        rlimits();
    else if (!strcmp(what, "denied"))
        denied();
    else if (!strcmp(what, "trace-child"))
        trace_child();
    else if (!strcmp(what, "echo-datagrams"))
        echo_datagrams(atoi(argv[2]));
    else if (!strcmp(what, "connect"))
        connect_to(argument, argc > 3 ? atoi(argv[3]) : 0);
    else if (!strcmp(what, "loopback"))
        loopback(argument);
    else if (!strcmp(what, "abstract"))
        abstract_socket(argument);
    else if (!strcmp(what, "vsock"))
        vsock();
    else if (!strcmp(what, "nodes"))
        nodes();
    else if (!strcmp(what, "push-input"))
        push_input();
    else if (!strcmp(what, "become"))
        become(atoi(argument));
    else if (!strcmp(what, "ptrace"))
        say("ptrace", ptrace(PTRACE_SEIZE, atoi(argument), 0, 0));
    else if (!strcmp(what, "leave-chroot"))
        leave_chroot(argument);
    else {
        fprintf(stderr, "probe: unknown: %s\n", what);
        return 2;
    }
    return 0;
}

/* Tries what a step may not do. One line a call: WRONG when the errno is not the expected one. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static int probed;

static void expect(const char *what, long ret, int want) {
    int got = ret < 0 ? errno : 0;
    if (got != want) printf("WRONG %s: %d (%s), not %d (%s)\n", what, got, strerror(got), want, strerror(want));
    probed++;
}
#define TRY(want, nr, ...) expect(#nr, syscall(nr, ##__VA_ARGS__), want)

static long raw(long nr, long a) {
    long ret;
    __asm__ volatile("syscall" : "=a"(ret) : "a"(nr), "D"(a), "S"(0L), "d"(0L) : "rcx", "r11", "memory");
    if (ret < 0) { errno = -ret; return -1; }
    return ret;
}

int main(void) {
    TRY(EPERM, SYS_mount, "none", "/", 0, 0x44000, 0);
    TRY(EPERM, SYS_umount2, "/tmp", 0);
    TRY(EPERM, SYS_pivot_root, "/", "/");
    TRY(EPERM, SYS_fsopen, "tmpfs", 0);
    TRY(EPERM, SYS_fsconfig, -1, 0, 0, 0, 0);
    TRY(EPERM, SYS_fsmount, -1, 0, 0);
    TRY(EPERM, SYS_fspick, -1, "/", 0);
    TRY(EPERM, SYS_move_mount, -1, "", -1, "", 0);
    TRY(EPERM, SYS_open_tree, -100, "/", 1);
    TRY(EPERM, SYS_mount_setattr, -100, "/", 0, 0, 0);
    TRY(EPERM, SYS_unshare, CLONE_NEWUSER);
    TRY(EPERM, SYS_unshare, CLONE_NEWNS);
    TRY(EPERM, SYS_setns, -1, 0);
    TRY(EPERM, SYS_clone, CLONE_NEWUSER | SIGCHLD, 0, 0, 0, 0);
    TRY(EPERM, SYS_clone, CLONE_NEWNET | SIGCHLD, 0, 0, 0, 0);
    TRY(ENOSYS, SYS_clone3, 0, 0);
    TRY(ENOSYS, SYS_add_key, "user", "x", "y", 1, -3);
    TRY(ENOSYS, SYS_request_key, "user", "x", 0, 0);
    TRY(ENOSYS, SYS_keyctl, 0, -3, 0, 0, 0);
    TRY(ENOSYS, SYS_bpf, 0, 0, 0);
    TRY(ENOSYS, SYS_perf_event_open, 0, 0, -1, -1, 0);
    TRY(ENOSYS, SYS_userfaultfd, 1);
    TRY(ENOSYS, SYS_io_uring_setup, 1, 0);
    TRY(EPERM, SYS_kexec_load, 0, 0, 0, 0);
    TRY(EPERM, SYS_init_module, 0, 0, 0);
    TRY(EPERM, SYS_finit_module, -1, "", 0);
    TRY(EPERM, SYS_delete_module, "x", 0);
    TRY(EPERM, SYS_settimeofday, 0, 0);
    TRY(EPERM, SYS_clock_settime, 0, 0);
    TRY(EPERM, SYS_adjtimex, 0);
    TRY(EPERM, SYS_swapon, "/x", 0);
    TRY(EPERM, SYS_reboot, 0, 0, 0, 0);
    TRY(EPERM, SYS_acct, 0);
    TRY(EPERM, SYS_quotactl, 0, 0, 0, 0);
    TRY(EPERM, SYS_syslog, 10, 0, 0);
    TRY(EPERM, SYS_open_by_handle_at, -1, 0, 0);
    TRY(EPERM, SYS_process_vm_readv, 1, 0, 0, 0, 0, 0);
    TRY(EPERM, SYS_ptrace, PTRACE_ATTACH, 1, 0, 0);
    TRY(EPERM, SYS_ptrace, PTRACE_SEIZE, 1, 0, 0);
    TRY(EPERM, SYS_ioctl, 0, TIOCSTI, "x");
    TRY(EPERM, SYS_ioctl, 0, 0x541C, "x");
    TRY(EAFNOSUPPORT, SYS_socket, 40 /* AF_VSOCK */, SOCK_STREAM, 0);
    TRY(EAFNOSUPPORT, SYS_socket, 38 /* AF_ALG */, SOCK_SEQPACKET, 0);
    TRY(EAFNOSUPPORT, SYS_socket, 17 /* AF_PACKET */, SOCK_RAW, 0);
#ifdef __x86_64__
    expect("x32 getpid", raw(0x40000000 | 39, 0), ENOSYS);
    int ret;
    __asm__ volatile("int $0x80" : "=a"(ret) : "a"(20 /* getpid */) : "memory");
    errno = ret < 0 ? -ret : 0;
    expect("i386 getpid", ret < 0 ? -1 : 0, ENOSYS);
#else
    probed += 2;
#endif
    /* What must work. */
    int child = fork(), status;
    if (child == 0) _exit(ptrace(PTRACE_TRACEME, 0, 0, 0) < 0 || socket(AF_INET6, SOCK_STREAM, 0) < 0 || socket(AF_NETLINK, SOCK_RAW, 0) < 0);
    waitpid(child, &status, 0);
    if (status != 0) printf("WRONG fork, traceme, sockets: %x\n", status);
    probed++;
    printf("probed %d\n", probed);
    return 0;
}

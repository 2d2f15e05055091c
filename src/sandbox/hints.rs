//! What a failed system call of the set-up usually means, and what mends it.

use crate::error::Error;
use crate::sys::SysError;

/// The error of a failed call, with a hint where the cause is known.
pub(super) fn explain(e: SysError) -> Error {
    let hint = hint(e.call(), e.errno());
    let error = Error::from(e);
    match hint {
        Some(hint) => error.hint(hint),
        None => error,
    }
}

fn hint(call: &str, errno: i32) -> Option<&'static str> {
    let starts = |prefix: &str| call.starts_with(prefix);
    let overlay = starts("fsconfig(\"overlay\"");
    Some(match errno {
        libc::EPERM | libc::EACCES if starts("unshare(0x10000000)") || starts("clone3(") => {
            "unprivileged user namespaces are switched off; `isolith doctor` names the switch \
             (kernel.apparmor_restrict_unprivileged_userns or kernel.unprivileged_userns_clone)"
        }
        libc::EPERM if starts("unshare(0x20000)") => {
            "the right to mount is missing: as root, this is a container without CAP_SYS_ADMIN (start it with \
             `--privileged`, or run isolith as an ordinary user with a subuid range); as a user, AppArmor takes it away \
             (`sudo sysctl kernel.apparmor_restrict_unprivileged_userns=0`); see `isolith doctor`"
        }
        libc::ENOSPC if starts("unshare(") || starts("clone3(") => {
            "the machine's limit for namespaces is reached: `sudo sysctl user.max_user_namespaces=65536`, \
             and the same for user.max_mnt_namespaces and user.max_net_namespaces"
        }
        libc::EINVAL if starts("unshare(") || starts("clone3(") => {
            "the kernel lacks one of the namespaces (user, mount, pid, net, ipc, uts, cgroup, time); isolith needs Linux 6.8 with all of them"
        }
        libc::ENODEV if starts("fsopen(\"overlay\"") => {
            "load the overlay file system: `sudo modprobe overlay`"
        }
        libc::EINVAL if overlay => {
            "isolith needs overlayfs with `lowerdir+` and at most 500 layers: Linux 6.8 or later"
        }
        libc::EACCES | libc::EPERM if overlay => {
            "every directory of the store below its top must be searchable (mode 0711 or more), and `upper` and `work` must belong to the root of the sandbox"
        }
        libc::EPERM if starts("fsconfig(\"proc\"") || starts("fsmount(\"proc\"") => {
            "a new /proc is refused where the caller's own /proc is masked, as in most containers: run isolith \
             outside, or start the container with an unmasked /proc (`--security-opt unmask=ALL` or `systempaths=unconfined`)"
        }
        libc::EPERM if starts("prlimit(") => {
            "the caller's own hard limit is lower than what every step gets: raise it (`ulimit -H…`, or /etc/security/limits.conf) and log in again"
        }
        libc::EPERM | libc::EACCES if starts("mount(") || starts("fsopen(") || starts("move_mount(") => {
            "mounting inside a user namespace is refused; an AppArmor or SELinux profile may be the cause: see `isolith doctor`"
        }
        _ => return None,
    })
}

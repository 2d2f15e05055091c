//! The system calls a step may not make (docs/contract.md), as a BPF program.
//!
//! It is a deny list. Everything that reaches out of the sandbox's namespaces, makes new ones, or changes
//! mounts gives the errno that a kernel gives to a caller without the right (EPERM) or without the feature
//! (ENOSYS, where programs have another way then). Calls of another architecture (i386 by `int 0x80`, x32)
//! would carry other numbers past the list, so they all give ENOSYS.
//!
//! The program is plain compare-and-jump on the call's number, so the kernel finds out when it is loaded
//! which calls are always allowed and does not run it for them (Linux 5.11).

use crate::sys::seccomp::Instruction;

const ALLOW: u32 = libc::SECCOMP_RET_ALLOW;

const fn fail(errno: i32) -> u32 {
    libc::SECCOMP_RET_ERRNO | errno as u32
}

#[cfg(target_arch = "x86_64")]
const ARCH: u32 = 0xC000_003E; // AUDIT_ARCH_X86_64
#[cfg(target_arch = "aarch64")]
const ARCH: u32 = 0xC000_00B7; // AUDIT_ARCH_AARCH64

/// Bit of x32 call numbers.
#[cfg(target_arch = "x86_64")]
const X32: u32 = 0x4000_0000;

// Offsets in `struct seccomp_data`; arguments are little-endian, so their low half comes first.
const NR: u32 = 0;
const AUDIT_ARCH: u32 = 4;
const fn low_half(arg: u32) -> u32 {
    16 + 8 * arg
}

/// The kernel's own refusal of what needs a privilege.
const NOT_PERMITTED: &[libc::c_long] = &[
    // mounts
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_mount_setattr,
    OPEN_TREE_ATTR,
    libc::SYS_quotactl,
    QUOTACTL_FD,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_open_by_handle_at,
    libc::SYS_fanotify_init,
    // namespaces
    libc::SYS_unshare,
    libc::SYS_setns,
    // the kernel and its clocks
    libc::SYS_kexec_load,
    libc::SYS_kexec_file_load,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_reboot,
    libc::SYS_acct,
    libc::SYS_syslog,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_clock_adjtime,
    libc::SYS_adjtimex,
    libc::SYS_vhangup,
    // other processes
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_pidfd_getfd,
    libc::SYS_kcmp,
    libc::SYS_process_madvise,
];

/// Features that a kernel may be built without.
const NOT_THERE: &[libc::c_long] = &[
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    // Its flags are in memory, where no filter can look: libraries fall back to clone.
    libc::SYS_clone3,
    libc::SYS_nfsservctl,
    libc::SYS_lookup_dcookie,
];

// Missing in libc for some targets.
const OPEN_TREE_ATTR: libc::c_long = 467;
const QUOTACTL_FD: libc::c_long = 443;

#[cfg(target_arch = "x86_64")]
const ONLY_X86: &[libc::c_long] = &[libc::SYS_ioperm, libc::SYS_iopl, libc::SYS__sysctl, libc::SYS_uselib];
#[cfg(not(target_arch = "x86_64"))]
const ONLY_X86: &[libc::c_long] = &[];

/// Flags of `clone` that make a namespace.
const NAMESPACE_FLAGS: u32 = (libc::CLONE_NEWNS
    | libc::CLONE_NEWCGROUP
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUSER
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET) as u32;

/// Typing into the terminal of whoever sits outside.
const TERMINAL_INPUT: [u32; 2] = [libc::TIOCSTI as u32, libc::TIOCLINUX as u32];

/// Becoming the tracer of a process that did not ask for it.
const ATTACH: [u32; 2] = [libc::PTRACE_ATTACH, libc::PTRACE_SEIZE];

/// The others lead out of the network namespace (vsock to the hypervisor) or into the kernel's rarely used
/// corners.
const FAMILIES: [u32; 4] =
    [libc::AF_UNIX as u32, libc::AF_INET as u32, libc::AF_INET6 as u32, libc::AF_NETLINK as u32];

/// Calls compared one by one before the next split.
const RUN: usize = 4;

/// The whole program.
///
/// The plain denials are a search tree over the sorted numbers: when a filter is loaded the kernel runs it once
/// for every call there is, which takes as long as the paths through it are.
pub(super) fn program() -> Vec<Instruction> {
    let mut p = vec![load(AUDIT_ARCH), jump_eq(ARCH, 1, 0), ret(fail(libc::ENOSYS)), load(NR)];
    #[cfg(target_arch = "x86_64")]
    p.extend([jump_set(X32, 0, 1), ret(fail(libc::ENOSYS))]);
    on_argument(
        &mut p,
        libc::SYS_clone,
        0,
        &[jump_set(NAMESPACE_FLAGS, 0, 1), ret(fail(libc::EPERM)), ret(ALLOW)],
    );
    on_argument(&mut p, libc::SYS_ioctl, 1, &deny_values(TERMINAL_INPUT, libc::EPERM));
    on_argument(&mut p, libc::SYS_ptrace, 0, &deny_values(ATTACH, libc::EPERM));
    for call in [libc::SYS_socket, libc::SYS_socketpair] {
        let mut body: Vec<_> =
            FAMILIES.iter().flat_map(|family| [jump_eq(*family, 0, 1), ret(ALLOW)]).collect();
        body.push(ret(fail(libc::EAFNOSUPPORT)));
        on_argument(&mut p, call, 0, &body);
    }
    let denied = [(NOT_PERMITTED, libc::EPERM), (ONLY_X86, libc::EPERM), (NOT_THERE, libc::ENOSYS)];
    let mut calls: Vec<(u32, i32)> =
        denied.iter().flat_map(|(calls, errno)| calls.iter().map(|call| (*call as u32, *errno))).collect();
    calls.sort_unstable();
    p.extend(search(&calls));
    p
}

/// The program with these calls handed to a supervisor before anything else is decided about them, and `first`
/// before that. None of them may be one that is denied.
pub(super) fn supervised(
    program: &[Instruction],
    first: &[Instruction],
    calls: &[libc::c_long],
) -> Vec<Instruction> {
    // Behind what makes sure that numbers mean what they say.
    const HEAD: usize = if cfg!(target_arch = "x86_64") { 6 } else { 4 };
    let mut p = program[..HEAD].to_vec();
    p.extend_from_slice(first);
    for call in calls {
        p.extend([jump_eq(*call as u32, 0, 1), ret(libc::SECCOMP_RET_USER_NOTIF)]);
    }
    p.extend_from_slice(&program[HEAD..]);
    p
}

/// A call returns 0 and does nothing.
pub(super) fn always_zero(call: libc::c_long) -> [Instruction; 2] {
    [jump_eq(call as u32, 0, 1), ret(fail(0))]
}

/// A call that the kernel does not seem to have.
pub(super) fn not_there(call: libc::c_long) -> [Instruction; 2] {
    [jump_eq(call as u32, 0, 1), ret(fail(libc::ENOSYS))]
}

/// A call is handed to a supervisor when one of these bits is set in argument `arg`, and the kernel's otherwise.
pub(super) fn supervised_with_bits(call: libc::c_long, arg: u32, bits: u32) -> [Instruction; 5] {
    [
        jump_eq(call as u32, 0, 4),
        load(low_half(arg)),
        jump_set(bits, 0, 1),
        ret(libc::SECCOMP_RET_USER_NOTIF),
        ret(ALLOW),
    ]
}

/// Whether [`program`] denies the call whatever its arguments.
#[cfg(test)]
pub(super) fn is_denied(call: libc::c_long) -> bool {
    [NOT_PERMITTED, ONLY_X86, NOT_THERE].iter().any(|calls| calls.contains(&call))
}

/// A piece of program that returns the verdict on these calls, sorted by number, and allows all others.
fn search(calls: &[(u32, i32)]) -> Vec<Instruction> {
    if calls.len() <= RUN {
        let each = calls.iter().flat_map(|(call, errno)| [jump_eq(*call, 0, 1), ret(fail(*errno))]);
        return each.chain([ret(ALLOW)]).collect();
    }
    let (low, high) = calls.split_at(calls.len() / 2);
    let (below, above) = (search(low), search(high));
    let mut p = match u8::try_from(below.len()) {
        Ok(skip) => vec![jump_ge(high[0].0, skip, 0)],
        Err(_) => vec![jump_ge(high[0].0, 0, 1), jump_always(below.len() as u32)],
    };
    p.extend(below);
    p.extend(above);
    p
}

/// For one call: loads the low half of an argument and runs `body`, which must end in a return.
fn on_argument(p: &mut Vec<Instruction>, call: libc::c_long, arg: u32, body: &[Instruction]) {
    p.extend([jump_eq(call as u32, 0, body.len() as u8 + 1), load(low_half(arg))]);
    p.extend_from_slice(body);
}

fn deny_values(values: [u32; 2], errno: i32) -> Vec<Instruction> {
    let deny = values.iter().flat_map(|value| [jump_eq(*value, 0, 1), ret(fail(errno))]);
    deny.chain([ret(ALLOW)]).collect()
}

fn load(offset: u32) -> Instruction {
    Instruction { code: (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16, jt: 0, jf: 0, k: offset }
}

fn ret(action: u32) -> Instruction {
    Instruction { code: (libc::BPF_RET | libc::BPF_K) as u16, jt: 0, jf: 0, k: action }
}

/// Skips `yes` or `no` instructions.
fn jump_eq(value: u32, yes: u8, no: u8) -> Instruction {
    Instruction { code: (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16, jt: yes, jf: no, k: value }
}

fn jump_ge(value: u32, yes: u8, no: u8) -> Instruction {
    Instruction { code: (libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K) as u16, jt: yes, jf: no, k: value }
}

/// Skips any number of instructions.
fn jump_always(skip: u32) -> Instruction {
    Instruction { code: (libc::BPF_JMP | libc::BPF_JA) as u16, jt: 0, jf: 0, k: skip }
}

fn jump_set(bits: u32, yes: u8, no: u8) -> Instruction {
    Instruction { code: (libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K) as u16, jt: yes, jf: no, k: bits }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs the program as the kernel would.
    fn verdict(arch: u32, nr: u32, args: [u64; 2]) -> u32 {
        let word = |offset| match offset {
            NR => nr,
            AUDIT_ARCH => arch,
            16 => args[0] as u32,
            24 => args[1] as u32,
            other => panic!("loads offset {other}"),
        };
        let (program, mut at, mut a) = (program(), 0usize, 0);
        loop {
            let i = program[at];
            at += 1;
            match u32::from(i.code) {
                c if c == libc::BPF_LD | libc::BPF_W | libc::BPF_ABS => a = word(i.k),
                c if c == libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K => {
                    at += usize::from(if a == i.k { i.jt } else { i.jf })
                }
                c if c == libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K => {
                    at += usize::from(if a & i.k != 0 { i.jt } else { i.jf })
                }
                c if c == libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K => {
                    at += usize::from(if a >= i.k { i.jt } else { i.jf })
                }
                c if c == libc::BPF_JMP | libc::BPF_JA => at += i.k as usize,
                c if c == libc::BPF_RET | libc::BPF_K => return i.k,
                other => panic!("no such instruction {other:#x}"),
            }
        }
    }

    #[test]
    fn denies_what_the_contract_lists_and_nothing_near_it() {
        let at = |nr: libc::c_long, args| verdict(ARCH, nr as u32, args);
        for (calls, errno) in
            [(NOT_PERMITTED, libc::EPERM), (ONLY_X86, libc::EPERM), (NOT_THERE, libc::ENOSYS)]
        {
            for nr in calls {
                assert_eq!(at(*nr, [0, 0]), fail(errno), "{nr}");
            }
        }
        let denied = (0..600).filter(|nr| at(*nr, [0, 0]) != ALLOW).count();
        assert_eq!(
            denied,
            NOT_PERMITTED.len() + ONLY_X86.len() + NOT_THERE.len() + 2,
            "and the two socket calls"
        );
        for nr in [libc::SYS_read, libc::SYS_execve, libc::SYS_openat, libc::SYS_futex, libc::SYS_prctl] {
            assert_eq!(at(nr, [0, 0]), ALLOW, "{nr}");
        }
        assert_eq!(at(libc::SYS_mount, [0, 0]), fail(libc::EPERM));
        assert_eq!(at(libc::SYS_clone3, [0, 0]), fail(libc::ENOSYS));
        assert_eq!(at(libc::SYS_clone, [libc::SIGCHLD as u64, 0]), ALLOW);
        assert_eq!(at(libc::SYS_clone, [libc::CLONE_NEWUSER as u64, 0]), fail(libc::EPERM));
        assert_eq!(at(libc::SYS_ioctl, [0, libc::TCGETS]), ALLOW);
        assert_eq!(at(libc::SYS_ioctl, [0, 1 << 32 | libc::TIOCSTI]), fail(libc::EPERM), "high half ignored");
        assert_eq!(at(libc::SYS_ptrace, [libc::PTRACE_TRACEME as u64, 0]), ALLOW);
        assert_eq!(at(libc::SYS_ptrace, [libc::PTRACE_SEIZE as u64, 0]), fail(libc::EPERM));
        assert_eq!(at(libc::SYS_socket, [libc::AF_INET6 as u64, 0]), ALLOW);
        assert_eq!(at(libc::SYS_socket, [libc::AF_VSOCK as u64, 0]), fail(libc::EAFNOSUPPORT));
    }

    #[test]
    fn other_calling_conventions_are_not_there() {
        assert_eq!(verdict(0x4000_0003, 21, [0, 0]), fail(libc::ENOSYS), "i386 mount");
        #[cfg(target_arch = "x86_64")]
        assert_eq!(verdict(ARCH, X32 | libc::SYS_mount as u32, [0, 0]), fail(libc::ENOSYS));
    }
}

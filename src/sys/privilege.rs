//! Who a process is and what it may: ids, capabilities, resource limits, names.

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use super::process::prctl;
use super::{Result, check};

/// A limit that a process can have, by its number in the kernel.
pub type Resource = u32;

/// Effective user and group id.
pub fn effective_ids() -> (u32, u32) {
    // SAFETY: no arguments, cannot fail.
    unsafe { (libc::geteuid(), libc::getegid()) }
}

/// Becomes this user and group for good, with no other groups. `drop_groups` is false where the user namespace
/// forbids to change them (user_namespaces(7), `/proc/PID/setgroups`).
pub fn become_user(uid: u32, gid: u32, drop_groups: bool) -> Result<()> {
    // The raw calls: there is one thread, and glibc's wrappers would signal others.
    // SAFETY: plain integers and a null list of length 0.
    unsafe {
        if drop_groups {
            check(libc::syscall(libc::SYS_setgroups, 0, std::ptr::null::<u32>()), || {
                "setgroups([])".to_string()
            })?;
        }
        check(libc::syscall(libc::SYS_setresgid, gid, gid, gid), || format!("setresgid({gid})"))?;
        check(libc::syscall(libc::SYS_setresuid, uid, uid, uid), || format!("setresuid({uid})"))?;
    }
    Ok(())
}

/// Takes every capability that is not in `keep` (bits) out of the bounding set.
pub fn bound_capabilities(keep: u64) -> Result<()> {
    for cap in 0..64usize {
        if keep & (1 << cap) != 0 {
            continue;
        }
        // SAFETY: plain integers.
        let ret = unsafe { libc::prctl(libc::PR_CAPBSET_DROP, cap, 0, 0, 0) };
        match check(ret, || format!("prctl(PR_CAPBSET_DROP, {cap})")) {
            // The first number that this kernel does not know.
            Err(e) if e.errno() == libc::EINVAL && cap > 30 => break,
            other => other?,
        };
    }
    Ok(())
}

/// Sets the effective and permitted capabilities to exactly `caps` (bits), the inheritable ones to none.
pub fn set_capabilities(caps: u64) -> Result<()> {
    #[repr(C)]
    struct Header {
        version: u32,
        pid: i32,
    }
    #[repr(C)]
    #[derive(Clone, Copy)]
    struct Data {
        effective: u32,
        permitted: u32,
        inheritable: u32,
    }
    const VERSION_3: u32 = 0x2008_0522;
    let header = Header { version: VERSION_3, pid: 0 };
    let half = |bits: u32| Data { effective: bits, permitted: bits, inheritable: 0 };
    let data = [half(caps as u32), half((caps >> 32) as u32)];
    // SAFETY: both structures have the kernel's layout of version 3 and outlive the call.
    let ret = unsafe { libc::syscall(libc::SYS_capset, &raw const header, data.as_ptr()) };
    check(ret, || format!("capset({caps:#x})"))?;
    Ok(())
}

/// Neither this process nor its children ever gain privileges by executing a program.
pub fn no_new_privileges() -> Result<()> {
    // SAFETY: plain integers.
    check(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) }, || {
        "prctl(PR_SET_NO_NEW_PRIVS)".to_string()
    })?;
    prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL as usize, "PR_CAP_AMBIENT_CLEAR_ALL")
}

/// Sets soft and hard limit of a resource of this process.
pub fn set_limit(resource: Resource, soft: u64, hard: u64) -> Result<()> {
    let limit = libc::rlimit64 { rlim_cur: soft, rlim_max: hard };
    let null = std::ptr::null_mut::<libc::rlimit64>();
    // SAFETY: `limit` outlives the call.
    let ret = unsafe { libc::syscall(libc::SYS_prlimit64, 0, resource, &raw const limit, null) };
    check(ret, || format!("prlimit(resource {resource}, {soft}, {hard})"))?;
    Ok(())
}

/// Soft and hard limit of a resource of this process.
pub fn limit(resource: Resource) -> Result<(u64, u64)> {
    let mut limit = libc::rlimit64 { rlim_cur: 0, rlim_max: 0 };
    let null = std::ptr::null::<libc::rlimit64>();
    // SAFETY: `limit` outlives the call.
    let ret = unsafe { libc::syscall(libc::SYS_prlimit64, 0, resource, null, &raw mut limit) };
    check(ret, || format!("prlimit(resource {resource})"))?;
    Ok((limit.rlim_cur, limit.rlim_max))
}

/// Lets this process and its children use only the first `count` of the cpus that it may use now.
pub fn limit_cpus(count: u32) -> Result<()> {
    // SAFETY: an all-zero set is a valid empty one.
    let (mut all, mut some): (libc::cpu_set_t, libc::cpu_set_t) = unsafe { std::mem::zeroed() };
    let size = size_of::<libc::cpu_set_t>();
    // SAFETY: the set outlives the call.
    check(unsafe { libc::sched_getaffinity(0, size, &raw mut all) }, || "sched_getaffinity".to_string())?;
    // SAFETY: the index is below the number of bits of a set; the macros only touch the sets they are given.
    let usable = (0..libc::CPU_SETSIZE as usize).filter(|cpu| unsafe { libc::CPU_ISSET(*cpu, &all) });
    for cpu in usable.take(count.max(1) as usize) {
        // SAFETY: as above.
        unsafe { libc::CPU_SET(cpu, &mut some) };
    }
    // SAFETY: the set outlives the call.
    let ret = unsafe { libc::sched_setaffinity(0, size, &raw const some) };
    check(ret, || format!("sched_setaffinity({count} cpus)"))?;
    Ok(())
}

/// Sets the execution domain.
pub fn set_personality(persona: u64) -> Result<()> {
    // SAFETY: a plain integer.
    check(unsafe { libc::personality(persona as libc::c_ulong) }, || format!("personality({persona:#x})"))?;
    Ok(())
}

/// Sets the mask for modes of new files.
pub fn set_umask(mask: u32) {
    // SAFETY: cannot fail.
    unsafe { libc::umask(mask) };
}

/// Names this machine, as its UTS namespace has it.
pub fn set_host_name(host: &str, domain: &str) -> Result<()> {
    // SAFETY: pointers and lengths belong together.
    unsafe {
        check(libc::sethostname(host.as_ptr().cast(), host.len()), || format!("sethostname(\"{host}\")"))?;
        check(libc::setdomainname(domain.as_ptr().cast(), domain.len()), || {
            format!("setdomainname(\"{domain}\")")
        })?;
    }
    Ok(())
}

/// Brings the loopback interface of this network namespace up; its addresses come by themselves.
pub fn loopback_up() -> Result<()> {
    // SAFETY: plain integers.
    let ret = unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) };
    check(ret, || "socket(AF_INET, SOCK_DGRAM)".to_string())?;
    // SAFETY: the descriptor is new and owned by nobody else.
    let socket = unsafe { OwnedFd::from_raw_fd(ret) };
    // SAFETY: an all-zero ifreq is valid.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    request.ifr_name[..2].copy_from_slice(&[b'l' as libc::c_char, b'o' as libc::c_char]);
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    // SAFETY: `request` outlives the call and has the layout the request asks for.
    let ret = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request) };
    check(ret, || "ioctl(SIOCSIFFLAGS, \"lo\", IFF_UP)".to_string())?;
    Ok(())
}

/// Seconds since boot on the clocks MONOTONIC and BOOTTIME.
pub fn uptime() -> (i64, i64) {
    let read = |clock| {
        let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: `time` outlives the call; both clocks always exist.
        unsafe { libc::clock_gettime(clock, &raw mut time) };
        time.tv_sec
    };
    (read(libc::CLOCK_MONOTONIC), read(libc::CLOCK_BOOTTIME))
}

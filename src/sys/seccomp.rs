//! Loading a seccomp filter.

use super::{Result, check};

/// One BPF instruction, as the kernel has it.
pub type Instruction = libc::sock_filter;

/// Puts the filter on this process for good; `no_new_privs` must be set. A filter's length is limited to
/// 4096 instructions by the kernel.
pub fn load(program: &[Instruction]) -> Result<()> {
    let fprog = libc::sock_fprog { len: program.len() as u16, filter: program.as_ptr().cast_mut() };
    const SECCOMP_SET_MODE_FILTER: u32 = 1;
    // The speculation mitigation that old kernels attach to seccomp is not needed here and slows every step.
    const SECCOMP_FILTER_FLAG_SPEC_ALLOW: u32 = 4;
    // SAFETY: `fprog` points at `program`, which outlives the call; the kernel copies and checks it.
    let ret = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            SECCOMP_SET_MODE_FILTER,
            SECCOMP_FILTER_FLAG_SPEC_ALLOW,
            &raw const fprog,
        )
    };
    check(ret, || format!("seccomp(SET_MODE_FILTER, {} instructions)", program.len()))?;
    Ok(())
}

//! Messages with descriptors over a socket pair, and memory files.

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use super::{Result, SysError, check, retry};

/// Descriptors that fit into one message here.
pub const MAX_FDS: usize = 8;

/// A connected pair of sockets that keep message borders.
pub fn pair() -> Result<(OwnedFd, OwnedFd)> {
    let mut fds = [0; 2];
    let kind = libc::SOCK_SEQPACKET | libc::SOCK_CLOEXEC;
    // SAFETY: `fds` has room for two descriptors.
    let ret = unsafe { libc::socketpair(libc::AF_UNIX, kind, 0, fds.as_mut_ptr()) };
    check(ret, || "socketpair(AF_UNIX, SOCK_SEQPACKET)".to_string())?;
    // SAFETY: both descriptors are new and owned by nobody else.
    Ok(unsafe { (OwnedFd::from_raw_fd(fds[0]), OwnedFd::from_raw_fd(fds[1])) })
}

/// A pipe: (read end, write end).
pub fn pipe() -> Result<(OwnedFd, OwnedFd)> {
    let mut fds = [0; 2];
    // SAFETY: `fds` has room for two descriptors.
    check(unsafe { libc::pipe2(fds.as_mut_ptr(), libc::O_CLOEXEC) }, || "pipe2(O_CLOEXEC)".to_string())?;
    // SAFETY: both descriptors are new and owned by nobody else.
    Ok(unsafe { (OwnedFd::from_raw_fd(fds[0]), OwnedFd::from_raw_fd(fds[1])) })
}

/// A file in memory with this content.
pub fn memory_file(content: &[u8]) -> Result<OwnedFd> {
    // SAFETY: the name is a NUL-terminated constant.
    let ret = unsafe { libc::memfd_create(c"isolith".as_ptr(), libc::MFD_CLOEXEC) };
    check(ret, || "memfd_create".to_string())?;
    // SAFETY: the descriptor is new and owned by nobody else.
    let fd = unsafe { OwnedFd::from_raw_fd(ret) };
    let mut file = std::fs::File::from(fd);
    std::io::Write::write_all(&mut file, content)
        .map_err(|e| SysError::new("write(memfd)", e.raw_os_error().unwrap_or(libc::EIO)))?;
    Ok(file.into())
}

/// Sends one message with up to [`MAX_FDS`] descriptors.
pub fn send(socket: BorrowedFd<'_>, body: &[u8], fds: &[BorrowedFd<'_>]) -> Result<()> {
    assert!(fds.len() <= MAX_FDS, "too many descriptors for one message");
    let mut control = [0u64; 16];
    let mut iov = libc::iovec { iov_base: body.as_ptr().cast_mut().cast(), iov_len: body.len() };
    // SAFETY: an all-zero msghdr is valid.
    let mut msg: libc::msghdr = unsafe { std::mem::zeroed() };
    msg.msg_iov = &raw mut iov;
    msg.msg_iovlen = 1;
    if !fds.is_empty() {
        let bytes = size_of_val(fds) as u32;
        msg.msg_control = control.as_mut_ptr().cast();
        // SAFETY: the control buffer is aligned and larger than CMSG_SPACE of MAX_FDS descriptors, so the first
        // header and its data lie inside it.
        unsafe {
            msg.msg_controllen = libc::CMSG_SPACE(bytes) as _;
            let header = libc::CMSG_FIRSTHDR(&raw const msg);
            (*header).cmsg_level = libc::SOL_SOCKET;
            (*header).cmsg_type = libc::SCM_RIGHTS;
            (*header).cmsg_len = libc::CMSG_LEN(bytes) as _;
            let data = libc::CMSG_DATA(header).cast::<i32>();
            for (at, fd) in fds.iter().enumerate() {
                data.add(at).write_unaligned(fd.as_raw_fd());
            }
        }
    }
    // SAFETY: `msg` points at live buffers.
    let call = || unsafe { libc::sendmsg(socket.as_raw_fd(), &raw const msg, libc::MSG_NOSIGNAL) } as i64;
    retry(call, || format!("sendmsg({} bytes, {} descriptors)", body.len(), fds.len()))?;
    Ok(())
}

/// Receives one message of at most `buf.len()` bytes: its length and descriptors; `None` when the other end
/// is closed.
pub fn receive(socket: BorrowedFd<'_>, buf: &mut [u8]) -> Result<Option<(usize, Vec<OwnedFd>)>> {
    let mut control = [0u64; 16];
    let mut iov = libc::iovec { iov_base: buf.as_mut_ptr().cast(), iov_len: buf.len() };
    // SAFETY: an all-zero msghdr is valid.
    let mut msg: libc::msghdr = unsafe { std::mem::zeroed() };
    msg.msg_iov = &raw mut iov;
    msg.msg_iovlen = 1;
    msg.msg_control = control.as_mut_ptr().cast();
    msg.msg_controllen = size_of_val(&control) as _;
    let pointer = &raw mut msg;
    // SAFETY: `msg` points at live buffers.
    let call = || unsafe { libc::recvmsg(socket.as_raw_fd(), pointer, libc::MSG_CMSG_CLOEXEC) } as i64;
    let got = retry(call, || "recvmsg".to_string())?;
    let mut fds = Vec::new();
    // SAFETY: the kernel wrote the control messages; the CMSG macros walk them inside their length, and every
    // descriptor in them is new and ours.
    unsafe {
        let mut header = libc::CMSG_FIRSTHDR(pointer);
        while !header.is_null() {
            if (*header).cmsg_level == libc::SOL_SOCKET && (*header).cmsg_type == libc::SCM_RIGHTS {
                let bytes = (*header).cmsg_len as usize - libc::CMSG_LEN(0) as usize;
                let data = libc::CMSG_DATA(header).cast::<i32>();
                for at in 0..bytes / size_of::<i32>() {
                    fds.push(OwnedFd::from_raw_fd(data.add(at).read_unaligned()));
                }
            }
            header = libc::CMSG_NXTHDR(pointer, header);
        }
    }
    if msg.msg_flags & (libc::MSG_TRUNC | libc::MSG_CTRUNC) != 0 {
        return Err(SysError::new("recvmsg (message cut short)", libc::EMSGSIZE));
    }
    Ok((got > 0).then_some((got as usize, fds)))
}

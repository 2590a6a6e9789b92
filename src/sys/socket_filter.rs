//! Classic BPF filters of sockets (socket(7), SO_ATTACH_FILTER).
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

pub(crate) use libc::sock_filter as Instruction;
use nix::errno::Errno;

/// Attaches a filter in place of the one before, if there is one.
///
/// # Errors
/// The kernel does not accept the program.
pub(crate) fn attach(socket: BorrowedFd<'_>, program: &mut [Instruction]) -> io::Result<()> {
    let program = libc::sock_fprog {
        len: u16::try_from(program.len()).map_err(|_| io::ErrorKind::InvalidInput)?,
        filter: program.as_mut_ptr(),
    };
    set(socket, libc::SO_ATTACH_FILTER, &program)
}

/// Removes the filter.
///
/// # Errors
/// The socket has none.
pub(crate) fn detach(socket: BorrowedFd<'_>) -> io::Result<()> {
    set(socket, libc::SO_DETACH_FILTER, &0_i32)
}

fn set<T>(socket: BorrowedFd<'_>, option: libc::c_int, value: &T) -> io::Result<()> {
    // SAFETY: the kernel reads `size_of::<T>()` bytes of `value`, and for SO_ATTACH_FILTER the
    // `len` instructions at `filter`, which `attach` borrows; it keeps a copy and writes nothing.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            option,
            (&raw const *value).cast(),
            size_of::<T>() as libc::socklen_t,
        )
    };
    Errno::result(result)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixDatagram;

    /// `ret #operand`.
    fn returning(operand: u32) -> Instruction {
        Instruction {
            code: 6,
            jt: 0,
            jf: 0,
            k: operand,
        }
    }

    #[test]
    fn a_filter_is_in_force_until_it_is_replaced_or_detached() {
        let (sender, receiver) = UnixDatagram::pair().unwrap();
        receiver.set_nonblocking(true).unwrap();
        let received = || {
            sender.send(b"x").unwrap();
            receiver.recv(&mut [0; 1]).is_ok()
        };
        assert!(received());
        attach(receiver.as_fd(), &mut [returning(0)]).unwrap();
        assert!(!received());
        attach(receiver.as_fd(), &mut [returning(u32::MAX)]).unwrap();
        assert!(received());
        attach(receiver.as_fd(), &mut [returning(0)]).unwrap();
        detach(receiver.as_fd()).unwrap();
        assert!(received());
        assert!(detach(receiver.as_fd()).is_err());
        assert!(attach(receiver.as_fd(), &mut []).is_err(), "a program must end");
    }
}

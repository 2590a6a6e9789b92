//! Releases memory that a process needed only for its start.

use std::io;

use nix::errno::Errno;

/// Unmaps the pages of code that have run so far, and returns free heap to the kernel.
///
/// Code is a private, read-only mapping of a file: when it runs again, it is mapped again from the
/// page cache, at the cost of one minor fault per 64 KiB. A process that has started and from then
/// on mostly waits then uses only the memory for its waiting.
///
/// # Errors
/// When `/proc/self/maps` cannot be read, or a system call fails.
pub(crate) fn forget_start_up() -> io::Result<()> {
    for line in std::fs::read_to_string("/proc/self/maps")?.lines() {
        if let Some((start, end)) = code_mapping(line) {
            drop_pages(start, end - start)?;
        }
    }
    set_trim_threshold(TRIM_THRESHOLD);
    trim_heap();
    Ok(())
}

/// How much free memory at the end of the heap the allocator keeps (mallopt(3)): usually, and
/// during the start, when it is soon needed again.
const TRIM_THRESHOLD: i32 = 128 << 10;
const START_TRIM_THRESHOLD: i32 = 4 << 20;

/// Keeps free heap until [`forget_start_up`]: otherwise each directory that the start lists would
/// get its pages from the kernel and give them back.
pub(crate) fn keep_free_heap() {
    set_trim_threshold(START_TRIM_THRESHOLD);
}

#[cfg(target_env = "gnu")]
#[allow(unsafe_code)]
fn set_trim_threshold(bytes: i32) {
    // SAFETY: mallopt(3) takes two integers and only changes a parameter of the allocator.
    unsafe { libc::mallopt(libc::M_TRIM_THRESHOLD, bytes) };
}

#[cfg(not(target_env = "gnu"))]
fn set_trim_threshold(_: i32) {}

/// The addresses of a line of proc_pid_maps(5), if it is code of a file: executable, not writable,
/// with an inode.
fn code_mapping(line: &str) -> Option<(usize, usize)> {
    let mut columns = line.split_ascii_whitespace();
    let (start, end) = columns.next()?.split_once('-')?;
    let is_code = columns.next()? == "r-xp" && columns.nth(2)? != "0";
    let address = |text| usize::from_str_radix(text, 16).ok();
    is_code.then_some((address(start)?, address(end)?))
}

#[allow(unsafe_code)]
fn drop_pages(start: usize, length: usize) -> io::Result<()> {
    // SAFETY: the range is a whole private mapping of a file without write permission, so none of
    // its pages has ever been changed: what MADV_DONTNEED drops is read again from the same file
    // (madvise(2)), and no reference into it sees another value.
    let result = unsafe { libc::madvise(start as *mut libc::c_void, length, libc::MADV_DONTNEED) };
    Errno::result(result)?;
    Ok(())
}

/// Returns free heap to the kernel.
#[cfg(target_env = "gnu")]
#[allow(unsafe_code)]
pub(crate) fn trim_heap() {
    // SAFETY: malloc_trim(3) touches only memory that the allocator has as free.
    unsafe { libc::malloc_trim(0) };
}

#[cfg(not(target_env = "gnu"))]
pub fn trim_heap() {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_mappings_of_code_in_files_are_unmapped() {
        let code = "55a6a3f3a000-55a6a403b000 r-xp 00036000 fe:00 1234   /usr/libexec/oci/hooks.d/oci-hotplug-watcher";
        assert_eq!(code_mapping(code), Some((0x55a6a3f3a000, 0x55a6a403b000)));
        for other in [
            "55a6a3f04000-55a6a3f3a000 r--p 00000000 fe:00 1234   /usr/bin/x",
            "55a6a403b000-55a6a4042000 rw-p 00136000 fe:00 1234   /usr/bin/x",
            "7ffe0b4d2000-7ffe0b4d4000 r-xp 00000000 00:00 0      [vdso]",
            "7ffe0b4d2000-7ffe0b4d4000 rwxp 00000000 fe:00 1234   /usr/bin/x",
            "",
        ] {
            assert_eq!(code_mapping(other), None, "{other}");
        }
    }

    #[test]
    fn unmapped_code_still_runs() {
        forget_start_up().unwrap();
        assert_eq!(code_mapping(""), None);
    }
}

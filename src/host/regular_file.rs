//! Opens regular files, and nothing else, where a user may have put something else: in the state
//! directory of a rootless engine, among the files of its runtime.
//!
//! open(2) of a FIFO waits for a process at its other end, and that of a device does what the
//! driver does. So files are opened without waiting.
//!
//! Does not know what the files contain.

use std::fs::{self, File, FileType, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;

use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
use nix::libc::{O_NOCTTY, O_NOFOLLOW, O_NONBLOCK};

use crate::host::file_system::open_directory;

/// The flags of open(2) with which it does not wait, and does not make a terminal ours.
const WITHOUT_WAITING: i32 = O_NONBLOCK | O_NOCTTY;

/// How much of a file of the state directory is read, in bytes: many times of what containers with
/// thousands of devices need.
const MAX_SIZE: u64 = 64 << 20;

/// Something else is in the place of a regular file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it is {0}, not a regular file")]
pub(crate) struct NotRegular(&'static str);

/// Opens a file with these options. A link at the path is not followed: this program makes none in
/// the state directory.
///
/// # Errors
/// Those of open(2); an error with [`NotRegular`] inside for everything but a regular file.
pub(crate) fn open(path: &Path, options: &mut OpenOptions) -> io::Result<File> {
    let opened = options.custom_flags(WITHOUT_WAITING | O_NOFOLLOW).open(path);
    let file = opened.map_err(|error| match fs::symlink_metadata(path) {
        Ok(found) if !found.is_file() => not_regular(found.file_type()),
        _ => error,
    })?;
    size_of_regular(&file)?;
    Ok(file)
}

/// The content of a file of another program. Links are followed.
///
/// # Errors
/// Those of [`open`] and read(2), and if the file is longer than this many bytes.
pub(crate) fn read_at_most(path: &Path, bytes: u64) -> io::Result<Vec<u8>> {
    let mut options = OpenOptions::new();
    let file = options.read(true).custom_flags(WITHOUT_WAITING).open(path)?;
    content(file, bytes)
}

/// The text of such a file.
///
/// # Errors
/// Those of [`read_at_most`], and if the content is not UTF-8.
pub(crate) fn read_text_at_most(path: &Path, bytes: u64) -> io::Result<String> {
    String::from_utf8(read_at_most(path, bytes)?)
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "it is not UTF-8"))
}

/// The same for a file of a process in another mount namespace: `root` is the process's root
/// directory in /proc. Links are followed as that process follows them.
///
/// # Errors
/// Those of [`read_at_most`], and of openat2(2).
pub(crate) fn read_at_most_in(root: &Path, path: &Path, bytes: u64) -> io::Result<Vec<u8>> {
    let root = open_directory(root)?;
    let how = OpenHow::new()
        .flags(OFlag::from_bits_retain(WITHOUT_WAITING) | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    let file = File::from(openat2(&root, path, how)?);
    content(file, bytes)
}

/// Reads a regular file, which must not be longer than this many bytes. Files of procfs have no
/// size.
fn content(file: File, bytes: u64) -> io::Result<Vec<u8>> {
    let size = size_of_regular(&file)?;
    let mut content = Vec::new();
    if size <= bytes {
        content.reserve_exact(size as usize + 1);
        file.take(bytes + 1).read_to_end(&mut content)?;
    }
    if size.max(content.len() as u64) > bytes {
        let fault = format!("it is longer than {bytes} bytes");
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, fault));
    }
    Ok(content)
}

fn size_of_regular(file: &File) -> io::Result<u64> {
    let found = file.metadata()?;
    match found.is_file() {
        true => Ok(found.len()),
        false => Err(not_regular(found.file_type())),
    }
}

fn not_regular(kind: FileType) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, NotRegular(name_of(kind)))
}

/// Opens a file for reading.
///
/// # Errors
/// Those of [`open`].
pub(crate) fn open_to_read(path: &Path) -> io::Result<File> {
    open(path, OpenOptions::new().read(true))
}

/// The content of a file.
///
/// # Errors
/// Those of [`open`] and read(2), and if the file is longer than 64 MiB.
pub(crate) fn read(path: &Path) -> io::Result<Vec<u8>> {
    content(open_to_read(path)?, MAX_SIZE)
}

/// Whether an error of [`open`] says that the file is not a regular one.
pub(crate) fn is_not_regular(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|inner| inner.is::<NotRegular>())
}

fn name_of(kind: FileType) -> &'static str {
    match kind {
        kind if kind.is_fifo() => "a FIFO",
        kind if kind.is_symlink() => "a symbolic link",
        kind if kind.is_dir() => "a directory",
        kind if kind.is_socket() => "a socket",
        _ => "a device",
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixListener;
    use std::path::PathBuf;
    use std::sync::mpsc;
    use std::time::Duration;

    use nix::sys::stat::Mode;
    use nix::unistd::mkfifo;

    use super::*;

    /// Puts something else in the place of a file.
    type Put = fn(&Path);

    /// What can be in the place of a file, except a device: what errors call it, and how a test
    /// puts it there.
    pub(crate) const OTHERS: [(&str, Put); 5] = [
        ("a FIFO", |path| mkfifo(path, Mode::S_IRWXU).unwrap()),
        ("a symbolic link", |path| {
            // A link to a file that could be read.
            let target = path.with_extension("target");
            fs::write(&target, "{}").unwrap();
            symlink(target, path).unwrap();
        }),
        ("a symbolic link", |path| symlink("absent", path).unwrap()),
        ("a directory", |path| fs::create_dir(path).unwrap()),
        ("a socket", |path| drop(UnixListener::bind(path).unwrap())),
    ];

    /// The result of a function that must not wait.
    pub(crate) fn at_once<T: Send + 'static>(function: impl FnOnce() -> T + Send + 'static) -> T {
        let (sender, receiver) = mpsc::channel();
        std::thread::spawn(move || sender.send(function()));
        receiver
            .recv_timeout(Duration::from_secs(10))
            .expect("it waits for a FIFO")
    }

    #[test]
    fn only_regular_files_are_opened_and_nothing_waits() {
        let ways: [fn(PathBuf) -> io::Result<File>; 4] = [
            |path| open_to_read(&path),
            |path| open(&path, OpenOptions::new().append(true).create(true)),
            |path| open(&path, OpenOptions::new().read(true).write(true)),
            |path| open(&path, OpenOptions::new().read(true).write(true).create(true)),
        ];
        for (word, put) in OTHERS {
            for way in ways {
                let scratch = tempfile::tempdir().unwrap();
                let path = scratch.path().join("file");
                put(&path);
                let error = at_once(move || way(path)).unwrap_err();
                assert!(is_not_regular(&error), "{word}: {error}");
                assert_eq!(error.to_string(), format!("it is {word}, not a regular file"));
            }
        }
        let null = Path::new("/dev/null");
        for error in [
            open_to_read(null).unwrap_err(),
            read_at_most(null, 1).unwrap_err(),
        ] {
            assert_eq!(error.to_string(), "it is a device, not a regular file");
        }
        let error = open_to_read(null).unwrap_err();
        assert_eq!(error.to_string(), "it is a device, not a regular file");
        let error = open_to_read(Path::new("/absent")).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        assert!(!is_not_regular(&error));
    }

    #[test]
    fn a_file_of_another_program_may_be_a_link_and_has_a_maximum_length() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("file");
        fs::write(&path, "content").unwrap();
        let link = scratch.path().join("link");
        symlink(&path, &link).unwrap();
        assert_eq!(read_at_most(&link, 100).unwrap(), b"content");
        assert_eq!(read_at_most(&link, 7).unwrap(), b"content");
        assert_eq!(read_text_at_most(&link, 7).unwrap(), "content");
        for read in [
            read_at_most(&link, 6),
            read_text_at_most(&link, 6).map(String::into_bytes),
        ] {
            assert_eq!(read.unwrap_err().to_string(), "it is longer than 6 bytes");
        }
        fs::write(&path, b"\xff").unwrap();
        let error = read_text_at_most(&link, 6).unwrap_err();
        assert_eq!(error.to_string(), "it is not UTF-8");
        fs::remove_file(&path).unwrap();
        mkfifo(&path, Mode::S_IRWXU).unwrap();
        let error = at_once(move || read_at_most(&link, 100)).unwrap_err();
        assert!(is_not_regular(&error), "{error}");
    }

    #[test]
    fn a_file_below_another_root_is_found_where_a_process_there_finds_it() {
        let scratch = tempfile::tempdir().unwrap();
        fs::create_dir(scratch.path().join("run")).unwrap();
        fs::write(scratch.path().join("run/file"), "content").unwrap();
        symlink("/run", scratch.path().join("link")).unwrap();
        symlink("/../../run/file", scratch.path().join("above")).unwrap();
        symlink("/proc/self/exe", scratch.path().join("outside")).unwrap();
        let read = |path: &str| read_at_most_in(scratch.path(), Path::new(path), 100);
        for path in ["/run/file", "/link/file", "/above", "/../run/file"] {
            assert_eq!(read(path).unwrap(), b"content", "{path}");
        }
        assert_eq!(read("/outside").unwrap_err().kind(), io::ErrorKind::NotFound);
        assert!(is_not_regular(&read("/run").unwrap_err()));
    }

    #[test]
    fn a_file_is_read_unless_it_is_much_too_long() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("file");
        for content in ["", "text", &"long".repeat(10_000)] {
            fs::write(&path, content).unwrap();
            assert_eq!(read(&path).unwrap(), content.as_bytes());
        }
        File::create(&path).unwrap().set_len(MAX_SIZE + 1).unwrap();
        let error = read(&path).unwrap_err();
        assert_eq!(error.to_string(), "it is longer than 67108864 bytes");
    }
}

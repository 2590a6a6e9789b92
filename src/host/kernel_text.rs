//! Texts that the kernel writes again for each read from the beginning: files of procfs and of
//! cgroups. Such a file is held open and read with one system call.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// The size up to which a text is read with one call: a page, in which the kernel prepares most
/// texts.
const USUAL_BYTES: usize = 4096;

/// Reads the whole text.
///
/// # Errors
/// When it cannot be read, or is not UTF-8.
pub(crate) fn read(file: &File) -> io::Result<String> {
    let bytes = read_bytes(file)?;
    String::from_utf8(bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

/// The same for a text that may contain any bytes.
pub(crate) fn read_bytes(file: &File) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; USUAL_BYTES];
    let mut length = 0;
    loop {
        // The kernel returns less than was requested at the end of the text only, or at the end of
        // a part of it, when the next part does not fit.
        match file.read_at(&mut bytes[length..], length as u64)? {
            0 => break,
            count => length += count,
        }
        if length < USUAL_BYTES / 2 {
            break;
        }
        bytes.resize(length + USUAL_BYTES, 0);
    }
    bytes.truncate(length);
    bytes.shrink_to_fit();
    Ok(bytes)
}

/// Whether the text is still this one. Costs one system call and no memory; a text that does not
/// fit into a page, or cannot be read, counts as changed.
pub(crate) fn is_still(file: &File, text: &str) -> bool {
    let mut bytes = [0; USUAL_BYTES];
    match file.read_at(&mut bytes, 0) {
        Ok(length) => length < USUAL_BYTES && bytes[..length] == *text.as_bytes(),
        Err(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn a_text_is_read_whole_and_a_change_is_noticed() {
        let mut file = tempfile::tempfile().unwrap();
        for length in [0, 1, 47, 2048, 4095, 4096, 4097, 20_000] {
            let text = "x".repeat(length);
            file.set_len(0).unwrap();
            file.write_at(text.as_bytes(), 0).unwrap();
            assert_eq!(read(&file).unwrap(), text, "{length} bytes");
            assert_eq!(is_still(&file, &text), length < USUAL_BYTES, "{length} bytes");
            assert!(!is_still(&file, &format!("{text}y")), "{length} bytes");
        }
        file.set_len(0).unwrap();
        file.write_all(&[0xff]).unwrap();
        assert!(read(&file).is_err());
    }

    #[test]
    fn a_file_of_procfs_is_read_again_from_the_beginning() {
        let file = File::open("/proc/self/cgroup").unwrap();
        let text = read(&file).unwrap();
        assert_eq!(text, std::fs::read_to_string("/proc/self/cgroup").unwrap());
        assert!(is_still(&file, &text) && is_still(&file, &text));
        let of_a_process_that_has_ended = {
            let mut child = std::process::Command::new("true").spawn().unwrap();
            let file = File::open(format!("/proc/{}/cgroup", child.id()));
            child.wait().unwrap();
            file
        };
        if let Ok(file) = of_a_process_that_has_ended {
            assert!(read(&file).is_err() && !is_still(&file, &text));
        }
    }
}

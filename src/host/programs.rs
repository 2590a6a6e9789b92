//! Finds the executables of this project: a program that starts another one must use the one of the
//! same installation.
//!
//! Does not know what the programs do.

use std::io;
use std::path::{Path, PathBuf};

/// The directory, below the prefix, that engines search for hooks; packaging/install.sh installs
/// hooks and watcher there.
const HOOKS: &str = "libexec/oci/hooks.d";

/// An executable of this project was not found.
#[derive(Debug, thiserror::Error)]
#[error("{name} is not in {looked} (packaging/install.sh installs all executables)", looked = shown(dirs))]
pub(crate) struct ProgramError {
    pub name: String,
    /// The directories that were searched.
    pub dirs: Vec<PathBuf>,
}

/// The directories that may have our executables, the most likely first: the directory of the
/// running executable (hooks and watcher are together, and so are programs that were built but not
/// installed), the hook directory below its prefix, and the hook directory of packages.
///
/// # Errors
/// When /proc/self/exe cannot be read.
pub(crate) fn directories() -> io::Result<Vec<PathBuf>> {
    Ok(directories_of(&std::fs::read_link("/proc/self/exe")?))
}

fn directories_of(own: &Path) -> Vec<PathBuf> {
    let beside = own.parent().unwrap_or(own);
    let prefix = beside.parent().unwrap_or(beside);
    let mut dirs = vec![beside.to_owned()];
    for dir in [prefix.join(HOOKS), Path::new("/usr").join(HOOKS)] {
        if !dirs.contains(&dir) {
            dirs.push(dir);
        }
    }
    dirs
}

/// The path of our executable with this name.
///
/// # Errors
/// When it is in none of [`directories`].
pub(crate) fn find(name: &str) -> Result<PathBuf, ProgramError> {
    let dirs = directories().unwrap_or_default();
    match dirs.iter().map(|dir| dir.join(name)).find(|path| path.exists()) {
        Some(path) => Ok(path),
        None => Err(ProgramError {
            name: name.to_owned(),
            dirs,
        }),
    }
}

fn shown(dirs: &[PathBuf]) -> String {
    let dirs: Vec<_> = dirs.iter().map(|dir| dir.to_string_lossy()).collect();
    dirs.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_of_the_same_installation_come_before_packages() {
        let of = |own: &str| directories_of(Path::new(own));
        let paths = |paths: &[&str]| paths.iter().map(PathBuf::from).collect::<Vec<_>>();
        assert_eq!(
            of("/usr/bin/oci-hotplug"),
            paths(&["/usr/bin", "/usr/libexec/oci/hooks.d"])
        );
        assert_eq!(
            of("/usr/local/bin/oci-hotplug"),
            paths(&[
                "/usr/local/bin",
                "/usr/local/libexec/oci/hooks.d",
                "/usr/libexec/oci/hooks.d"
            ])
        );
        assert_eq!(
            of("/usr/libexec/oci/hooks.d/oci-hotplug-prestart (deleted)")[0],
            Path::new("/usr/libexec/oci/hooks.d")
        );
    }

    #[test]
    fn an_error_about_a_missing_program_names_the_searched_directories() {
        let error = find("oci-hotplug-nothing").unwrap_err().to_string();
        assert!(
            error.starts_with("oci-hotplug-nothing is not in /") && error.contains("install.sh"),
            "{error}"
        );
    }
}

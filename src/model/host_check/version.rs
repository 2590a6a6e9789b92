//! Versions of engines, runtimes and kernels, as their programs print them.

use std::fmt;

/// The first three numbers of a version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Version(pub u32, pub u32, pub u32);

impl Version {
    /// The first word that begins like a version, such as `26.1.5` in `Docker version 26.1.5+dfsg1,
    /// build a72d7cd` or `2.0` in `containerd github.com/containerd/containerd v2.0`.
    pub(crate) fn find(text: &str) -> Option<Self> {
        text.split_ascii_whitespace().find_map(Self::of_word)
    }

    fn of_word(word: &str) -> Option<Self> {
        let word = word.strip_prefix('v').unwrap_or(word);
        let numbers = word
            .split(|letter: char| !letter.is_ascii_digit() && letter != '.')
            .next()?;
        let mut parts = numbers.split('.').map(str::parse);
        let major = parts.next()?.ok()?;
        let minor = parts.next()?.ok()?;
        Some(Self(major, minor, parts.next().and_then(Result::ok).unwrap_or(0)))
    }
}

impl fmt::Display for Version {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(major, minor, patch) = self;
        write!(out, "{major}.{minor}.{patch}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_found_in_the_output_of_programs() {
        for (text, version) in [
            ("Docker version 26.1.5+dfsg1, build a72d7cd", Version(26, 1, 5)),
            ("podman version 5.4.2", Version(5, 4, 2)),
            (
                "containerd github.com/containerd/containerd 1.7.24~ds1 1.7.24~ds1-6+b4",
                Version(1, 7, 24),
            ),
            (
                "containerd github.com/containerd/containerd/v2 v2.1.4 75cb2b7",
                Version(2, 1, 4),
            ),
            ("containerd containerd.io 1.7.27 05044ec", Version(1, 7, 27)),
            ("crio version 1.36.0\nGitCommit: abc\n", Version(1, 36, 0)),
            (
                "runc version 1.1.15+ds1\ncommit: 1.1.15+ds1-2+b4\nspec: 1.2.0\n",
                Version(1, 1, 15),
            ),
            ("runc version 1.3.0-rc.2\n", Version(1, 3, 0)),
            ("crun version 1.21\ncommit: 10269840\n", Version(1, 21, 0)),
            ("youki version 0.7.0\ncommit: 0.7.0-0-0\n", Version(0, 7, 0)),
            ("6.12.48+deb13-amd64", Version(6, 12, 48)),
            ("5.15.0-1053-raspi", Version(5, 15, 0)),
        ] {
            assert_eq!(Version::find(text), Some(version), "{text}");
        }
        for text in ["", "unknown", "version", "42", "v", "commit 7.x"] {
            assert_eq!(Version::find(text), None, "{text}");
        }
    }
}

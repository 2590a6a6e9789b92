//! The names of Linux signals.

/// signal(7), without `SIG`: each name with the canonical one if it is a synonym.
const SIGNALS: [(&str, &str); 34] = [
    ("HUP", "SIGHUP"),
    ("INT", "SIGINT"),
    ("QUIT", "SIGQUIT"),
    ("ILL", "SIGILL"),
    ("TRAP", "SIGTRAP"),
    ("ABRT", "SIGABRT"),
    ("IOT", "SIGABRT"),
    ("BUS", "SIGBUS"),
    ("FPE", "SIGFPE"),
    ("KILL", "SIGKILL"),
    ("USR1", "SIGUSR1"),
    ("SEGV", "SIGSEGV"),
    ("USR2", "SIGUSR2"),
    ("PIPE", "SIGPIPE"),
    ("ALRM", "SIGALRM"),
    ("TERM", "SIGTERM"),
    ("STKFLT", "SIGSTKFLT"),
    ("CHLD", "SIGCHLD"),
    ("CLD", "SIGCHLD"),
    ("CONT", "SIGCONT"),
    ("STOP", "SIGSTOP"),
    ("TSTP", "SIGTSTP"),
    ("TTIN", "SIGTTIN"),
    ("TTOU", "SIGTTOU"),
    ("URG", "SIGURG"),
    ("XCPU", "SIGXCPU"),
    ("XFSZ", "SIGXFSZ"),
    ("VTALRM", "SIGVTALRM"),
    ("PROF", "SIGPROF"),
    ("WINCH", "SIGWINCH"),
    ("IO", "SIGIO"),
    ("POLL", "SIGIO"),
    ("PWR", "SIGPWR"),
    ("SYS", "SIGSYS"),
];

/// The canonical name (`SIGHUP`) of a signal, written with or without `SIG`, in any case.
///
/// Numbers are refused, because they differ between architectures.
pub(super) fn canonical(name: &str) -> Option<&'static str> {
    let upper = name.to_ascii_uppercase();
    let short = upper.strip_prefix("SIG").unwrap_or(&upper);
    SIGNALS
        .iter()
        .find(|(known, _)| *known == short)
        .map(|(_, canonical)| *canonical)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_is_recognized_by_all_its_names() {
        for name in ["HUP", "hup", "SIGHUP", "sighup", "SigHup"] {
            assert_eq!(canonical(name), Some("SIGHUP"));
        }
        assert_eq!(canonical("poll"), Some("SIGIO"));
        for name in ["", "SIG", "SIGSIGHUP", "1", "RTMIN+1", "HUPP"] {
            assert_eq!(canonical(name), None, "{name:?}");
        }
    }

    #[test]
    fn the_kernel_has_a_signal_for_every_canonical_name() {
        for (_, canonical) in SIGNALS {
            let signal: nix::sys::signal::Signal = canonical.parse().unwrap();
            assert_eq!(signal.as_str(), canonical);
        }
    }
}

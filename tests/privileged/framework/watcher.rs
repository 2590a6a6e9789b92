//! The watcher of a container, as any process on the host sees it: through its command line in
//! /proc.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs;
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{NetlinkAddr, getsockname, setsockopt, sockopt};
use nix::unistd::Pid;
use rustix::process::{PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};

use super::activity::activity;
use super::eventually::{DEADLINE, eventually, within};

/// Longer than the time between two wakes of a watcher that observes something without events.
const LONGER_THAN_A_SHORT_TICK: Duration = Duration::from_secs(3);

/// The process of a watcher.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Watcher {
    pub pid: i32,
    /// The command line, separated by spaces.
    pub command_line: String,
}

impl Watcher {
    /// The process whose command line is that of oci-hotplug's watcher for this container.
    pub fn of(id: &str) -> Option<Self> {
        let mut all = Self::all_of(id);
        assert!(all.len() <= 1, "more than one watcher for {id}: {all:?}");
        all.pop()
    }

    /// All such processes.
    pub fn all_of(id: &str) -> Vec<Self> {
        Self::all_with(|words| {
            words[0].contains("oci-hotplug-watcher") && words.iter().any(|word| word == id)
        })
    }

    /// The processes with a command line whose words, at least one, are as wanted.
    pub fn all_with(is_wanted: impl Fn(&[Cow<'_, str>]) -> bool) -> Vec<Self> {
        let entries = fs::read_dir("/proc").expect("list /proc").flatten();
        let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        pids.filter_map(|pid| {
            let bytes = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
            let words: Vec<_> = bytes
                .split(|byte| *byte == 0)
                .map(String::from_utf8_lossy)
                .collect();
            is_wanted(&words).then(|| Self {
                pid,
                command_line: words.join(" "),
            })
        })
        .collect()
    }

    /// Whether it still runs. A zombie does not. (A process that is about to end has no command
    /// line any more, but still holds its locks.)
    pub fn is_alive(&self) -> bool {
        self.state().is_some_and(|state| !matches!(state, 'Z' | 'X'))
    }

    /// The third field of /proc/PID/stat (proc_pid_stat(5)).
    fn state(&self) -> Option<char> {
        let stat = fs::read_to_string(self.proc("stat")).ok()?;
        stat.rsplit_once(") ")?.1.chars().next()
    }

    /// Waits until it has ended.
    #[track_caller]
    pub fn eventually_ends(&self) {
        let ended = within(DEADLINE, || (!self.is_alive()).then_some(()));
        assert!(ended.is_some(), "{self:?} has not ended: {}", activity(self.pid));
    }

    /// Waits until the watcher has nothing to do: it waits for events, as the first field of
    /// /proc/PID/syscall shows (proc(5)). While it works, it has descriptors that it closes
    /// afterwards.
    #[track_caller]
    pub fn eventually_waits_for_events(&self) {
        let waiting = [
            #[cfg(target_arch = "x86_64")]
            nix::libc::SYS_epoll_wait,
            nix::libc::SYS_epoll_pwait,
        ];
        eventually(&format!("the watcher {self:?} waits for events"), || {
            let line = fs::read_to_string(self.proc("syscall")).expect("read what the watcher waits in");
            let call = line.split(' ').next().and_then(|number| number.parse().ok());
            call.is_some_and(|call| waiting.contains(&call))
        });
    }

    /// Waits until the watcher sleeps for longer than a second at a time, as it does while nothing
    /// can change without an event.
    #[track_caller]
    pub fn eventually_rests(&self) {
        let mut last = (self.wakes(), Instant::now());
        eventually(&format!("the watcher {self:?} rests"), || {
            let wakes = self.wakes();
            if wakes != last.0 {
                last = (wakes, Instant::now());
            }
            last.1.elapsed() > LONGER_THAN_A_SHORT_TICK
        });
    }

    /// How often it has slept (proc_pid_status(5)).
    pub fn wakes(&self) -> u64 {
        let status = fs::read_to_string(self.proc("status")).expect("read the status of the watcher");
        let count = status
            .lines()
            .find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
        let count = count.and_then(|count| count.trim().parse().ok());
        count.expect("a count of context switches")
    }

    /// Sends SIGKILL.
    #[track_caller]
    pub fn kill(&self) {
        let _ = kill(Pid::from_raw(self.pid), Signal::SIGKILL);
        self.eventually_ends();
    }

    /// Stops it, as a debugger would, until `go_on`.
    #[track_caller]
    pub fn pause(&self) {
        kill(Pid::from_raw(self.pid), Signal::SIGSTOP).expect("stop the watcher");
        eventually(&format!("the watcher {self:?} is stopped"), || {
            self.state() == Some('T')
        });
    }

    /// Continues it.
    pub fn resume(&self) {
        let _ = kill(Pid::from_raw(self.pid), Signal::SIGCONT);
    }

    /// Shrinks the receive buffers of its uevent sockets to the minimum. Processes share sockets,
    /// and pidfd_getfd(2) returns the watcher's.
    pub fn shrink_event_buffers(&self) {
        let pid = rustix::process::Pid::from_raw(self.pid).expect("a pid");
        let process = pidfd_open(pid, PidfdFlags::empty()).expect("a descriptor of the watcher");
        let mut shrunk = 0;
        for number in self.descriptors().into_keys() {
            let number = i32::try_from(number).expect("a descriptor fits");
            let socket = pidfd_getfd(&process, number, PidfdGetfdFlags::empty())
                .expect("share the watcher's descriptor");
            let address = getsockname::<NetlinkAddr>(socket.as_raw_fd());
            if address.is_ok_and(|address| address.groups() != 0) {
                setsockopt(&socket, sockopt::RcvBuf, &0).expect("make a receive buffer small");
                shrunk += 1;
            }
        }
        assert!(shrunk > 0, "the watcher listens to uevents");
    }

    /// Its descriptors: numbers with targets.
    pub fn descriptors(&self) -> BTreeMap<u32, PathBuf> {
        let entries = fs::read_dir(self.proc("fd"))
            .expect("list the watcher's descriptors")
            .flatten();
        entries
            .filter_map(|entry| {
                let number = entry.file_name().to_str()?.parse().ok()?;
                Some((number, fs::read_link(entry.path()).ok()?))
            })
            .collect()
    }

    /// Its initial environment.
    pub fn environment(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.proc("environ")).expect("read the watcher's environment"))
            .into_owned()
    }

    pub fn working_directory(&self) -> PathBuf {
        fs::read_link(self.proc("cwd")).expect("read the watcher's working directory")
    }

    /// Its session and its process group (proc(5), stat fields 6 and 5).
    pub fn session_and_group(&self) -> (i32, i32) {
        let stat = fs::read_to_string(self.proc("stat")).expect("read the watcher's stat");
        let (_, after_name) = stat.rsplit_once(')').expect("stat has the name in parentheses");
        let fields: Vec<_> = after_name.split_whitespace().collect();
        (
            fields[3].parse().expect("a session"),
            fields[2].parse().expect("a process group"),
        )
    }

    /// The metadata of its executable, even if the file was replaced.
    pub fn executable(&self) -> fs::Metadata {
        fs::metadata(self.proc("exe")).expect("look at the watcher's executable")
    }

    /// The CPU time that it has used in user and kernel mode (proc(5), stat fields 14 and 15).
    pub fn cpu_time(&self) -> Duration {
        let stat = fs::read_to_string(self.proc("stat")).expect("read the watcher's stat");
        let (_, after_name) = stat.rsplit_once(')').expect("stat has the name in parentheses");
        let fields: Vec<_> = after_name.split_whitespace().collect();
        let ticks = |field: &str| field.parse::<u64>().expect("a number of ticks");
        // A tick is 10 ms on all architectures (USER_HZ).
        Duration::from_millis((ticks(fields[11]) + ticks(fields[12])) * 10)
    }

    /// The line of /proc/PID/limits for this resource: soft and hard limit.
    pub fn limit(&self, name: &str) -> (String, String) {
        let limits = fs::read_to_string(self.proc("limits")).expect("read the watcher's limits");
        let line = limits.lines().find_map(|line| line.strip_prefix(name));
        let mut words = line.expect("a limit of this name").split_whitespace();
        let mut word = || words.next().expect("a soft and a hard limit").to_owned();
        (word(), word())
    }

    /// The number of its threads.
    pub fn threads(&self) -> usize {
        fs::read_dir(self.proc("task"))
            .expect("list the watcher's threads")
            .count()
    }

    /// A line of /proc/PID/smaps_rollup in KiB: `Pss`, `Rss`, `Private_Dirty` ...
    pub fn memory(&self, line: &str) -> u64 {
        let rollup = fs::read_to_string(self.proc("smaps_rollup")).expect("read the watcher's memory");
        let value = rollup
            .lines()
            .find_map(|found| found.strip_prefix(line)?.strip_prefix(':'));
        let value = value.unwrap_or_else(|| panic!("smaps_rollup has no {line}"));
        value
            .trim()
            .trim_end_matches(" kB")
            .parse()
            .expect("a number of kB")
    }

    fn proc(&self, what: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/{what}", self.pid))
    }
}

//! Filters for the sockets of uevents (classic BPF, Documentation/networking/filter.rst): the
//! kernel drops messages about devices that the reader does not need before they wake it.
//!
//! A message that is dropped is one of [`Unneeded`], or one that is not about a device. Must not
//! know how a filter is attached (`host::monitor`).

use super::UeventForm;
use super::nodeless::{INTERFACES, SUBSYSTEMS};
use super::udev_header::{HEADER, MAGIC, murmur2};
use super::unneeded::Unneeded;

/// One instruction: `struct sock_filter` (linux/filter.h).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Instruction {
    /// Operation.
    pub code: u16,
    /// How many instructions to skip where a comparison is true.
    pub jump_true: u8,
    /// How many to skip where it is false.
    pub jump_false: u8,
    /// Operand.
    pub operand: u32,
}

/// Operations (linux/bpf_common.h).
mod code {
    pub(super) const LOAD_LENGTH: u16 = 0x80;
    pub(super) const LOAD_WORD: u16 = 0x20;
    pub(super) const LOAD_BYTE: u16 = 0x30;
    pub(super) const LOAD_WORD_AFTER_X: u16 = 0x40;
    pub(super) const LOAD_BYTE_AFTER_X: u16 = 0x50;
    pub(super) const SET_X: u16 = 0x01;
    pub(super) const JUMP: u16 = 0x05;
    pub(super) const JUMP_IF_EQUAL: u16 = 0x15;
    pub(super) const JUMP_IF_GREATER_OR_EQUAL: u16 = 0x35;
    pub(super) const RETURN: u16 = 0x06;
}

/// A load beyond the end would drop the message: shorter messages of the kernel pass. None is so
/// short, as each names its path twice.
const KERNEL_MINIMUM: u32 = 64;

/// The longest name of a network interface (IFNAMSIZ without its NUL, linux/if.h).
const INTERFACE_NAME: u32 = 15;

/// The same of udevd: behind the last of [`DEVPATH_OF_UDEV`], the path is compared as far as
/// `/devices/virtual/block/`.
const UDEV_MINIMUM: u32 = DEVPATH_OF_UDEV[3] + 31;

/// Where DEVPATH begins in a message of udevd: behind the header, and
/// `UDEV_DATABASE_VERSION=1` since systemd 247, comes ACTION, `add` or a word of six letters
/// (observed with systemd 252).
const DEVPATH_OF_UDEV: [u32; 4] = [HEADER + 11, HEADER + 14, HEADER + 24 + 11, HEADER + 24 + 14];

/// The subsystem of disks and partitions.
const BLOCKS: &str = "block";

/// The filter that drops unneeded messages of this form.
pub(crate) fn program(form: UeventForm, unneeded: Unneeded) -> Vec<Instruction> {
    let mut program = Program::default();
    match form {
        UeventForm::Kernel => program.filter_kernel(unneeded),
        UeventForm::Udev => program.filter_udev(unneeded),
    }
    program.finish()
}

/// Where a comparison leads.
#[derive(Clone, Copy)]
enum Target {
    /// To the instruction after the next so many.
    Skip(u8),
    Pass,
    Drop,
}

const NEXT: Target = Target::Skip(0);

#[derive(Default)]
struct Program(Vec<(u16, u32, Target, Target)>);

impl Program {
    /// `ACTION@DEVPATH`: the path alone decides, and only of devices whose place is fixed.
    fn filter_kernel(&mut self, unneeded: Unneeded) {
        self.push(code::LOAD_LENGTH, 0);
        self.compare(code::JUMP_IF_GREATER_OR_EQUAL, KERNEL_MINIMUM, NEXT, Target::Pass);
        // `move` and `bind` pass.
        self.load_and_compare(code::LOAD_BYTE, 4, "@", Target::Pass, NEXT);
        // `add`; `remove`, `change`, `online`, `unbind`; `offline`. The jumps lead behind the last
        // of these, where the path begins at X.
        for (at, to_path) in [(3, 9), (6, 5), (7, 1)] {
            self.load_and_compare(code::LOAD_BYTE, at, "@", NEXT, Target::Skip(2));
            self.push(code::SET_X, at + 1);
            self.push(code::JUMP, to_path);
        }
        self.jump(Target::Pass);
        // Modules, drivers and caches are not devices.
        for (at, text) in [(0, "/dev"), (4, "ices")] {
            self.load_and_compare(code::LOAD_WORD_AFTER_X, at, text, NEXT, Target::Drop);
        }
        self.load_and_compare(code::LOAD_BYTE_AFTER_X, 8, "/", NEXT, Target::Drop);
        for (at, text) in [(8, "/vir"), (12, "tual")] {
            self.load_and_compare(code::LOAD_WORD_AFTER_X, at, text, NEXT, Target::Pass);
        }
        if unneeded.virtual_blocks {
            self.load_and_compare(code::LOAD_WORD_AFTER_X, 16, "/blo", NEXT, Target::Skip(2));
            self.load_and_compare(code::LOAD_WORD_AFTER_X, 19, "ock/", Target::Drop, Target::Pass);
        }
        if unneeded.nodeless {
            self.filter_nodeless();
        }
    }

    /// Below `/devices/virtual`, which is at X.
    fn filter_nodeless(&mut self) {
        self.load_and_compare(code::LOAD_BYTE_AFTER_X, 20, "/", NEXT, Target::Pass);
        self.load_and_compare(code::LOAD_WORD_AFTER_X, 16, "/bdi", Target::Drop, NEXT);
        self.compare(code::JUMP_IF_EQUAL, word("/net"), NEXT, Target::Pass);
        self.filter_interface(21);
    }

    /// An interface, whose name begins at X + `at`, or its queues. What else is below it may have a
    /// node.
    fn filter_interface(&mut self, at: u32) {
        for end in at..=at + INTERFACE_NAME {
            self.push(code::LOAD_BYTE_AFTER_X, end);
            self.compare(code::JUMP_IF_EQUAL, 0, Target::Drop, NEXT);
            self.compare(code::JUMP_IF_EQUAL, word("/"), NEXT, Target::Skip(2));
            self.load_and_compare(
                code::LOAD_WORD_AFTER_X,
                end + 1,
                "queu",
                Target::Drop,
                Target::Pass,
            );
        }
        self.jump(Target::Pass);
    }

    /// The header holds the hash of the subsystem.
    fn filter_udev(&mut self, unneeded: Unneeded) {
        self.push(code::LOAD_LENGTH, 0);
        self.compare(code::JUMP_IF_GREATER_OR_EQUAL, HEADER, NEXT, Target::Pass);
        self.push(code::LOAD_WORD, 8);
        self.compare(code::JUMP_IF_EQUAL, MAGIC, NEXT, Target::Pass);
        self.push(code::LOAD_WORD, 24);
        let subsystems = SUBSYSTEMS.into_iter().filter(|_| unneeded.nodeless);
        for subsystem in subsystems.filter(|name| *name != INTERFACES) {
            let hash = murmur2(subsystem.as_bytes());
            self.compare(code::JUMP_IF_EQUAL, hash, Target::Drop, NEXT);
        }
        let by_path = [
            (unneeded.nodeless, INTERFACES, (24, "/net"), (25, "net/")),
            (unneeded.virtual_blocks, BLOCKS, (24, "/blo"), (27, "ock/")),
        ];
        for (_, subsystem, begin, end) in by_path.into_iter().filter(|(is_unneeded, ..)| *is_unneeded) {
            let at = self.0.len();
            self.compare(code::JUMP_IF_EQUAL, murmur2(subsystem.as_bytes()), NEXT, NEXT);
            self.filter_virtual_of_udev([begin, end]);
            // Another subsystem: behind these instructions.
            self.0[at].3 = Target::Skip((self.0.len() - at - 1) as u8);
        }
    }

    /// A device of which only the path says whether it is virtual: below `/devices/virtual`, the
    /// words of the path at these offsets from `DEVPATH=` on. Where the path is not at one of the
    /// usual places, the message passes.
    fn filter_virtual_of_udev(&mut self, words: [(u32, &str); 2]) {
        self.push(code::LOAD_LENGTH, 0);
        self.compare(code::JUMP_IF_GREATER_OR_EQUAL, UDEV_MINIMUM, NEXT, Target::Pass);
        const LENGTH: u32 = 6;
        let places = DEVPATH_OF_UDEV.len() as u32;
        for (number, place) in (1..).zip(DEVPATH_OF_UDEV) {
            self.push(code::SET_X, place);
            self.load_and_compare(code::LOAD_WORD_AFTER_X, 0, "DEVP", NEXT, Target::Skip(3));
            self.load_and_compare(code::LOAD_WORD_AFTER_X, 4, "ATH=", NEXT, Target::Skip(1));
            self.push(code::JUMP, (places - number) * LENGTH + 1);
        }
        self.jump(Target::Pass);
        let virtual_ = [(8, "/dev"), (12, "ices"), (16, "/vir"), (20, "tual")];
        for (at, text) in virtual_.into_iter().chain(words) {
            self.load_and_compare(code::LOAD_WORD_AFTER_X, at, text, NEXT, Target::Pass);
        }
        self.jump(Target::Drop);
    }

    fn push(&mut self, code: u16, operand: u32) {
        self.0.push((code, operand, NEXT, NEXT));
    }

    fn compare(&mut self, code: u16, operand: u32, yes: Target, no: Target) {
        self.0.push((code, operand, yes, no));
    }

    fn load_and_compare(&mut self, load: u16, at: u32, text: &str, yes: Target, no: Target) {
        self.push(load, at);
        self.compare(code::JUMP_IF_EQUAL, word(text), yes, no);
    }

    /// An unconditional jump, as a comparison with two equal targets.
    fn jump(&mut self, target: Target) {
        self.compare(code::JUMP_IF_EQUAL, 0, target, target);
    }

    /// Appends the two ends, and resolves the targets.
    fn finish(self) -> Vec<Instruction> {
        let length = self.0.len();
        let resolve = |index: usize, target: Target| match target {
            Target::Skip(count) => count,
            // A jump skips at most 255 instructions; the tests hold the programs to it.
            Target::Pass => (length - index - 1) as u8,
            Target::Drop => (length - index) as u8,
        };
        let end = |operand| Instruction {
            code: code::RETURN,
            jump_true: 0,
            jump_false: 0,
            operand,
        };
        let body = self.0.iter().enumerate();
        let body = body.map(|(index, &(code, operand, yes, no))| Instruction {
            code,
            jump_true: resolve(index, yes),
            jump_false: resolve(index, no),
            operand,
        });
        body.chain([end(u32::MAX), end(0)]).collect()
    }
}

/// The text as a load has it: big endian.
fn word(text: &str) -> u32 {
    text.bytes().fold(0, |word, byte| word << 8 | u32::from(byte))
}

#[cfg(test)]
mod tests;

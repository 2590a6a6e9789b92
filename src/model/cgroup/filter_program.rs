//! Splices the grants into a container's own device filter: takes the instructions of a device
//! program and returns the spliced program.
//!
//! A splice puts a prologue in front of a program. The prologue looks the device up in the map of
//! grants and allows the access that a grant covers; otherwise the original program runs. Works on
//! plain data: must not know descriptors, cgroups or bpf(2).

mod disassembly;
mod instruction;
pub(crate) mod verdict;

use std::fmt;

pub use self::disassembly::disassemble;
use self::instruction::{
    ADD64_IMM, AND32_IMM, AND32_REG, CALL, CALL_ARGS, EXIT, JEQ_IMM, JNE32_REG, LD_IMM64, LDX_W, MOV32_REG,
    MOV64_IMM, MOV64_REG, PSEUDO_MAP_FD, REG_AX, RSH32_IMM, STX_W, TAIL_CALL, insn,
};
pub use self::instruction::{Insn, decode, encode};

/// The most instructions that the kernel loads (linux/bpf_common.h BPF_COMPLEXITY_LIMIT_INSNS,
/// since 5.2).
const MAX_INSNS: usize = 1_000_000;

const MAP_LOOKUP_ELEM: i32 = 1;
/// Where the prologue builds the 12 byte key, relative to the frame pointer.
const KEY: i16 = -16;

/// The prologue for the map with this descriptor.
///
/// The map is a hash from {type, major, minor} (3 × u32, numbered as in `struct bpf_cgroup_dev_ctx`
/// of linux/bpf.h) to the granted access (u32, BPF_DEVCG_ACC_*). If the grant has every requested
/// bit, the program returns 1. Otherwise the prologue restores the context in r1 and continues with
/// the original's first instruction.
///
/// All arithmetic and comparisons use 32 bits, so that no JIT needs zero extensions in between, and
/// no jump crosses the call. [`strip`] therefore recognizes every form that the kernel makes of the
/// prologue.
pub fn prologue(map_fd: i32) -> Vec<Insn> {
    vec![
        insn(MOV64_REG, 6, 1, 0, 0),
        // access_type = (access << 16) | type
        insn(LDX_W, 2, 1, 0, 0),
        insn(MOV32_REG, 7, 2, 0, 0),
        insn(RSH32_IMM, 7, 0, 0, 16),
        insn(AND32_IMM, 2, 0, 0, 0xffff),
        insn(STX_W, 10, 2, KEY, 0),
        insn(LDX_W, 2, 1, 4, 0),
        insn(STX_W, 10, 2, KEY + 4, 0),
        insn(LDX_W, 2, 1, 8, 0),
        insn(STX_W, 10, 2, KEY + 8, 0),
        insn(LD_IMM64, 1, PSEUDO_MAP_FD, 0, map_fd),
        insn(0, 0, 0, 0, 0),
        insn(MOV64_REG, 2, 10, 0, 0),
        insn(ADD64_IMM, 2, 0, 0, KEY as i32),
        insn(CALL, 0, 0, 0, MAP_LOOKUP_ELEM),
        insn(JEQ_IMM, 0, 0, 5, 0),
        insn(LDX_W, 0, 0, 0, 0),
        insn(AND32_REG, 0, 7, 0, 0),
        insn(JNE32_REG, 0, 7, 2, 0),
        insn(MOV64_IMM, 0, 0, 0, 1),
        insn(EXIT, 0, 0, 0, 0),
        insn(MOV64_REG, 1, 6, 0, 0),
    ]
}

/// Why a program cannot be spliced: an instruction that a dump does not show completely, so that it
/// cannot be loaded again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Obstacle {
    /// A call of a kernel helper: a dump shows its address, or nothing, instead of its number.
    Helper,
    /// A call of a kernel function by BTF id.
    Kfunc,
    /// A call of another function of the program.
    Function,
    /// A tail call.
    TailCall,
    /// A 64-bit load of a map, a variable or a function.
    PseudoLoad,
    /// The kernel's own register r11: constants are blinded.
    Blinded,
    /// A jump to outside the program.
    Jump,
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Helper => "calls a kernel helper",
            Self::Kfunc => "calls a kernel function",
            Self::Function => "calls one of its functions",
            Self::TailCall => "makes a tail call",
            Self::PseudoLoad => "loads the address of a map, a variable or a function",
            Self::Blinded => {
                "is blinded by the kernel (sysctl net.core.bpf_jit_harden=1 avoids that for root)"
            }
            Self::Jump => "jumps out of the program",
        })
    }
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SpliceError {
    /// One instruction prevents it.
    #[error("instruction {index} {obstacle}")]
    Instruction {
        /// The index of the instruction, from 0.
        index: usize,
        obstacle: Obstacle,
    },
    /// With the prologue, the program is longer than the kernel allows.
    #[error("with the prologue it has {len} instructions, and the kernel loads at most {MAX_INSNS}")]
    TooLong {
        /// The number of instructions with the prologue.
        len: usize,
    },
}

/// The original with the prologue for `map_fd` in front.
///
/// Jumps inside the original are relative, so they remain unchanged. `original` is what the kernel
/// shows of a loaded program. Refuses programs whose dump lacks something that loading needs.
pub fn splice(original: &[Insn], map_fd: i32) -> Result<Vec<Insn>, SpliceError> {
    let mut second_half = false;
    for (index, insn) in original.iter().enumerate() {
        if std::mem::take(&mut second_half) {
            continue;
        }
        second_half = insn.code == LD_IMM64;
        if let Some(obstacle) = obstacle(*insn, index, original.len()) {
            return Err(SpliceError::Instruction { index, obstacle });
        }
    }
    let mut spliced = prologue(map_fd);
    let len = spliced.len() + original.len();
    if len > MAX_INSNS {
        return Err(SpliceError::TooLong { len });
    }
    // A zero extension of the verifier is an ordinary move with a mark that the kernel does not
    // accept when loading.
    spliced.extend(original.iter().map(|insn| {
        if insn.is_zext() {
            Insn { imm: 0, ..*insn }
        } else {
            *insn
        }
    }));
    Ok(spliced)
}

fn obstacle(insn: Insn, index: usize, len: usize) -> Option<Obstacle> {
    if insn.dst == REG_AX || insn.src == REG_AX {
        return Some(Obstacle::Blinded);
    }
    if let Some(distance) = insn.jump() {
        let target = index as i64 + 1 + distance;
        return (target < 0 || target >= len as i64).then_some(Obstacle::Jump);
    }
    match (insn.code, insn.src) {
        (CALL, 1) => Some(Obstacle::Function),
        (CALL, 2) => Some(Obstacle::Kfunc),
        (CALL, _) | (CALL_ARGS, _) => Some(Obstacle::Helper),
        (TAIL_CALL, _) => Some(Obstacle::TailCall),
        (LD_IMM64, 1..) => Some(Obstacle::PseudoLoad),
        _ => None,
    }
}

/// The program behind oci-hotplug's prologue, for any map; `None` if the program does not begin
/// with the prologue.
///
/// Recognizes the prologue as [`prologue`] makes it and as the kernel shows it after loading: with
/// the map's id instead of its descriptor, another number in the call, and, where the verifier
/// inlines the look-up of a hash map (kernel/bpf/hashtab.c `htab_map_gen_lookup`), two more
/// instructions after the call.
pub fn strip(insns: &[Insn]) -> Option<&[Insn]> {
    let ours = prologue(0);
    let call = ours.iter().position(|insn| insn.code == CALL)?;
    let (head, tail) = (&ours[..=call], &ours[call + 1..]);
    let rest = strip_sequence(insns, head)?;
    let rest = match rest {
        [null, add, rest @ ..] if *null == insn(JEQ_IMM, 0, 0, 1, 0) && is_value_offset(*add) => rest,
        _ => rest,
    };
    strip_sequence(rest, tail)
}

fn is_value_offset(insn: Insn) -> bool {
    (insn.code, insn.dst, insn.src, insn.off) == (ADD64_IMM, 0, 0, 0)
}

fn strip_sequence<'a>(insns: &'a [Insn], sequence: &[Insn]) -> Option<&'a [Insn]> {
    let (front, rest) = insns.split_at_checked(sequence.len())?;
    front
        .iter()
        .zip(sequence)
        .all(|(found, ours)| is_same(*found, *ours))
        .then_some(rest)
}

/// Whether the kernel can have made `found` from `ours`: equal except for the immediate of the map
/// load and of the call.
fn is_same(found: Insn, ours: Insn) -> bool {
    match ours.code {
        LD_IMM64 | CALL => Insn { imm: 0, ..found } == Insn { imm: 0, ..ours },
        _ => found == ours,
    }
}

#[cfg(test)]
mod tests;

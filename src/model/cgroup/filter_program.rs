//! Splices the grants into a container's own device filter: takes the instructions of a device
//! program and returns the spliced program.
//!
//! A splice puts a prologue in front of a program. The prologue looks the device up in the map of
//! grants and allows the access that a grant covers; otherwise the original program runs. Works on
//! plain data: must not know descriptors, cgroups or bpf(2).

pub(crate) mod verdict;

use std::fmt::{self, Write};

/// The most instructions that the kernel loads (linux/bpf_common.h BPF_COMPLEXITY_LIMIT_INSNS,
/// since 5.2).
const MAX_INSNS: usize = 1_000_000;

const LDX_W: u8 = 0x61;
const LD_IMM64: u8 = 0x18;
const STX_W: u8 = 0x63;
const MOV64_IMM: u8 = 0xb7;
const MOV64_REG: u8 = 0xbf;
const MOV32_REG: u8 = 0xbc;
const ADD64_IMM: u8 = 0x07;
const AND32_IMM: u8 = 0x54;
const AND32_REG: u8 = 0x5c;
const RSH32_IMM: u8 = 0x74;
const JEQ_IMM: u8 = 0x15;
const JNE32_REG: u8 = 0x5e;
const JA: u8 = 0x05;
const JA32: u8 = 0x06;
const CALL: u8 = 0x85;
const EXIT: u8 = 0x95;
/// A helper call whose number the verifier has replaced by an address (linux/filter.h
/// BPF_CALL_ARGS).
const CALL_ARGS: u8 = 0xe5;
/// bpf_tail_call as the verifier rewrites it (linux/filter.h BPF_TAIL_CALL).
const TAIL_CALL: u8 = 0xf5;
const CLASS_MASK: u8 = 0x07;
const CLASS_JMP: u8 = 0x05;
const CLASS_JMP32: u8 = 0x06;

/// `src` of an LD_IMM64 whose immediate is the descriptor of a map, or in a dump the id of a map
/// (linux/bpf.h BPF_PSEUDO_MAP_FD).
const PSEUDO_MAP_FD: u8 = 1;
const MAP_LOOKUP_ELEM: i32 = 1;
/// The register that only the kernel uses, to blind constants (linux/filter.h BPF_REG_AX).
const REG_AX: u8 = 11;
/// Where the prologue builds the 12 byte key, relative to the frame pointer.
const KEY: i16 = -16;

/// One eBPF instruction, `struct bpf_insn` of linux/bpf.h.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Insn {
    /// Operation: class, size or source, and mode or operator.
    pub code: u8,
    /// Destination register, 0 to 10 (11 in the kernel only).
    pub dst: u8,
    /// Source register, or the kind of a pseudo instruction.
    pub src: u8,
    /// Jump distance in instructions, or offset in bytes.
    pub off: i16,
    pub imm: i32,
}

impl Insn {
    /// Bytes of one instruction.
    pub const SIZE: usize = 8;

    /// Reads one instruction in this machine's byte order.
    pub fn from_bytes(bytes: [u8; Self::SIZE]) -> Self {
        let [code, regs, o0, o1, i0, i1, i2, i3] = bytes;
        // dst and src are bit fields of one byte. The compiler places the first one in the low or
        // high half, depending on the byte order.
        let (low, high) = (regs & 0x0f, regs >> 4);
        let (dst, src) = if cfg!(target_endian = "little") {
            (low, high)
        } else {
            (high, low)
        };
        let off = i16::from_ne_bytes([o0, o1]);
        let imm = i32::from_ne_bytes([i0, i1, i2, i3]);
        Self {
            code,
            dst,
            src,
            off,
            imm,
        }
    }

    /// The instruction in this machine's byte order.
    pub fn to_bytes(self) -> [u8; Self::SIZE] {
        let (low, high) = if cfg!(target_endian = "little") {
            (self.dst, self.src)
        } else {
            (self.src, self.dst)
        };
        let [o0, o1] = self.off.to_ne_bytes();
        let [i0, i1, i2, i3] = self.imm.to_ne_bytes();
        [self.code, (low & 0x0f) | (high << 4), o0, o1, i0, i1, i2, i3]
    }

    fn class(self) -> u8 {
        self.code & CLASS_MASK
    }

    /// Whether this is a zero extension, which the verifier inserts where the JIT needs one
    /// (linux/filter.h `insn_is_zext`).
    fn is_zext(self) -> bool {
        self.code == MOV32_REG && self.imm == 1
    }

    /// The distance of a jump, counted from the next instruction; `None` if the instruction is not
    /// a jump.
    fn jump(self) -> Option<i64> {
        match (self.class(), self.code) {
            (_, JA32) => Some(i64::from(self.imm)),
            (CLASS_JMP, CALL | EXIT | CALL_ARGS | TAIL_CALL) => None,
            (CLASS_JMP | CLASS_JMP32, _) => Some(i64::from(self.off)),
            _ => None,
        }
    }
}

/// Instructions from their bytes; `None` if the length is not a multiple of 8.
pub fn decode(bytes: &[u8]) -> Option<Vec<Insn>> {
    let insns = bytes.chunks_exact(Insn::SIZE);
    if !insns.remainder().is_empty() {
        return None;
    }
    insns
        .map(|bytes| bytes.try_into().ok().map(Insn::from_bytes))
        .collect()
}

/// The bytes of instructions.
pub fn encode(insns: &[Insn]) -> Vec<u8> {
    insns.iter().flat_map(|insn| insn.to_bytes()).collect()
}

const fn insn(code: u8, dst: u8, src: u8, off: i16, imm: i32) -> Insn {
    Insn {
        code,
        dst,
        src,
        off,
        imm,
    }
}

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

/// The instructions as text, one per line with its index, similar to `bpftool prog dump xlated`.
pub fn disassemble(insns: &[Insn]) -> String {
    let mut text = String::new();
    let mut index = 0;
    while let Some(insn) = insns.get(index) {
        let next = insns.get(index + 1);
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{index:4}: {}", mnemonic(*insn, next));
        index += if insn.code == LD_IMM64 { 2 } else { 1 };
    }
    text
}

fn mnemonic(insn: Insn, next: Option<&Insn>) -> String {
    let Insn {
        code,
        dst,
        src,
        off,
        imm,
    } = insn;
    match code {
        LD_IMM64 if src == PSEUDO_MAP_FD => format!("r{dst} = map {imm}"),
        LD_IMM64 if src == 0 => {
            let high = next.map_or(0, |next| next.imm);
            format!(
                "r{dst} = {:#x} ll",
                (high as u32 as u64) << 32 | u64::from(imm as u32)
            )
        }
        CALL if src == 0 => format!("call {imm}"),
        EXIT => "exit".to_owned(),
        JA => format!("goto {off:+}"),
        _ => match insn.class() {
            1 => load(insn).map(|(bits, at)| format!("r{dst} = *(u{bits} *)({at})")),
            3 => load(Insn { src: dst, ..insn }).map(|(bits, at)| format!("*(u{bits} *)({at}) = r{src}")),
            4 | 7 => arithmetic(insn),
            CLASS_JMP | CLASS_JMP32 => condition(insn),
            _ => None,
        }
        .unwrap_or_else(|| format!("code {code:#04x} dst {dst} src {src} off {off} imm {imm:#x}")),
    }
}

/// Size in bits and address of a load or store through `src` (BPF_MEM only).
fn load(insn: Insn) -> Option<(u8, String)> {
    let bits = match insn.code & 0xf8 {
        0x60 => 32,
        0x68 => 16,
        0x70 => 8,
        0x78 => 64,
        _ => return None,
    };
    Some((bits, format!("r{} {:+}", insn.src, insn.off)))
}

/// The letter of the registers for an operation of this width, and the second operand.
fn operand(insn: Insn, wide: bool) -> (char, String) {
    let letter = if wide { 'r' } else { 'w' };
    let from_register = insn.code & 0x08 != 0;
    (
        letter,
        if from_register {
            format!("{letter}{}", insn.src)
        } else {
            format!("{:#x}", insn.imm)
        },
    )
}

fn arithmetic(insn: Insn) -> Option<String> {
    let operator = match insn.code & 0xf0 {
        0x00 => "+=",
        0x10 => "-=",
        0x40 => "|=",
        0x50 => "&=",
        0x60 => "<<=",
        0x70 => ">>=",
        0xa0 => "^=",
        0xb0 => "=",
        _ => return None,
    };
    let (letter, operand) = operand(insn, insn.class() == 7);
    Some(format!("{letter}{} {operator} {operand}", insn.dst))
}

fn condition(insn: Insn) -> Option<String> {
    let operator = match insn.code & 0xf0 {
        0x10 => "==",
        0x20 => ">",
        0x30 => ">=",
        0x40 => "&",
        0x50 => "!=",
        0xa0 => "<",
        0xb0 => "<=",
        _ => return None,
    };
    let (letter, operand) = operand(insn, insn.class() == CLASS_JMP);
    Some(format!(
        "if {letter}{} {operator} {operand} goto {:+}",
        insn.dst, insn.off
    ))
}

#[cfg(test)]
mod tests;

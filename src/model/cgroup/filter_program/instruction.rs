//! eBPF instructions, as the kernel takes them and as it shows them of a loaded program.

pub(super) const LDX_W: u8 = 0x61;
pub(super) const LD_IMM64: u8 = 0x18;
pub(super) const STX_W: u8 = 0x63;
pub(super) const MOV64_IMM: u8 = 0xb7;
pub(super) const MOV64_REG: u8 = 0xbf;
pub(super) const MOV32_REG: u8 = 0xbc;
pub(super) const ADD64_IMM: u8 = 0x07;
pub(super) const AND32_IMM: u8 = 0x54;
pub(super) const AND32_REG: u8 = 0x5c;
pub(super) const RSH32_IMM: u8 = 0x74;
pub(super) const JEQ_IMM: u8 = 0x15;
pub(super) const JNE32_REG: u8 = 0x5e;
pub(super) const JA: u8 = 0x05;
pub(super) const JA32: u8 = 0x06;
pub(super) const CALL: u8 = 0x85;
pub(super) const EXIT: u8 = 0x95;
/// A helper call whose number the verifier has replaced by an address (linux/filter.h
/// BPF_CALL_ARGS).
pub(super) const CALL_ARGS: u8 = 0xe5;
/// bpf_tail_call as the verifier rewrites it (linux/filter.h BPF_TAIL_CALL).
pub(super) const TAIL_CALL: u8 = 0xf5;
pub(super) const CLASS_MASK: u8 = 0x07;
pub(super) const CLASS_JMP: u8 = 0x05;
pub(super) const CLASS_JMP32: u8 = 0x06;

/// `src` of an LD_IMM64 whose immediate is the descriptor of a map, or in a dump the id of a map
/// (linux/bpf.h BPF_PSEUDO_MAP_FD).
pub(super) const PSEUDO_MAP_FD: u8 = 1;
/// The register that only the kernel uses, to blind constants (linux/filter.h BPF_REG_AX).
pub(super) const REG_AX: u8 = 11;

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

    pub(super) fn class(self) -> u8 {
        self.code & CLASS_MASK
    }

    /// Whether this is a zero extension, which the verifier inserts where the JIT needs one
    /// (linux/filter.h `insn_is_zext`).
    pub(super) fn is_zext(self) -> bool {
        self.code == MOV32_REG && self.imm == 1
    }

    /// The distance of a jump, counted from the next instruction; `None` if the instruction is not
    /// a jump.
    pub(super) fn jump(self) -> Option<i64> {
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

pub(super) const fn insn(code: u8, dst: u8, src: u8, off: i16, imm: i32) -> Insn {
    Insn {
        code,
        dst,
        src,
        off,
        imm,
    }
}

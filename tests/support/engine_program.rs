//! A device program such as engines attach: made from a list of rules, of which the last that
//! matches decides.
//!
//! Shared by the unit tests (user-space VM) and the tests on the kernel: `Insn` is whatever the
//! including module has under that name. Knows nothing of prologues and grants.

use super::Insn;

/// One rule of an engine: `None` is the wildcard.
#[derive(Debug, Clone, Copy)]
pub struct EngineRule {
    /// BPF_DEVCG_DEV_BLOCK (1) or BPF_DEVCG_DEV_CHAR (2).
    pub kind: Option<u32>,
    pub major: Option<u32>,
    pub minor: Option<u32>,
    /// BPF_DEVCG_ACC_* bits. An allow rule matches when it has all that is asked, a deny rule when
    /// it has any.
    pub access: u32,
    pub allow: bool,
}

impl EngineRule {
    /// Allows one character device.
    #[allow(dead_code, reason = "not every test file that includes this one needs it")]
    pub fn char(major: u32, minor: u32, access: u32) -> Self {
        Self {
            kind: Some(2),
            major: Some(major),
            minor: Some(minor),
            access,
            allow: true,
        }
    }

    /// What the rules decide, told without instructions.
    #[allow(dead_code, reason = "not every test file that includes this one needs it")]
    pub fn decide(rules: &[EngineRule], kind: u32, major: u32, minor: u32, access: u32) -> bool {
        let decisive = rules.iter().rev().find(|rule| {
            rule.kind.is_none_or(|it| it == kind)
                && rule.major.is_none_or(|it| it == major)
                && rule.minor.is_none_or(|it| it == minor)
                && if rule.allow {
                    access & !rule.access == 0
                } else {
                    access & rule.access != 0
                }
        });
        decisive.is_some_and(|rule| rule.allow)
    }
}

const LDX_W: u8 = 0x61;
const MOV32_REG: u8 = 0xbc;
const MOV64_IMM: u8 = 0xb7;
const AND32_IMM: u8 = 0x54;
const RSH32_IMM: u8 = 0x74;
const JNE32_IMM: u8 = 0x56;
const JNE32_REG: u8 = 0x5e;
const JEQ32_IMM: u8 = 0x16;
const CALL: u8 = 0x85;
const EXIT: u8 = 0x95;

fn insn(code: u8, dst: u8, src: u8, off: i16, imm: i32) -> Insn {
    Insn {
        code,
        dst,
        src,
        off,
        imm,
    }
}

/// The program of these rules; what no rule matches is denied.
pub fn engine_program(rules: &[EngineRule]) -> Vec<Insn> {
    let mut program = vec![
        insn(LDX_W, 2, 1, 0, 0),
        insn(MOV32_REG, 3, 2, 0, 0),
        insn(AND32_IMM, 2, 0, 0, 0xffff),
        insn(RSH32_IMM, 3, 0, 0, 16),
        insn(LDX_W, 4, 1, 4, 0),
        insn(LDX_W, 5, 1, 8, 0),
    ];
    for rule in rules.iter().rev() {
        let mut block = Vec::new();
        for (register, value) in [(2, rule.kind), (4, rule.major), (5, rule.minor)] {
            if let Some(value) = value {
                block.push(insn(JNE32_IMM, register, 0, 0, value as i32));
            }
        }
        block.push(insn(MOV32_REG, 1, 3, 0, 0));
        block.push(insn(AND32_IMM, 1, 0, 0, rule.access as i32));
        block.push(if rule.allow {
            insn(JNE32_REG, 1, 3, 0, 0)
        } else {
            insn(JEQ32_IMM, 1, 0, 0, 0)
        });
        block.push(insn(MOV64_IMM, 0, 0, 0, i32::from(rule.allow)));
        block.push(insn(EXIT, 0, 0, 0, 0));
        let len = block.len();
        for (index, insn) in block.iter_mut().enumerate() {
            if matches!(insn.code, JNE32_IMM | JNE32_REG | JEQ32_IMM) {
                insn.off = (len - index - 1) as i16;
            }
        }
        program.extend(block);
    }
    program.extend([insn(MOV64_IMM, 0, 0, 0, 0), insn(EXIT, 0, 0, 0, 0)]);
    program
}

/// A program that calls a helper (bpf_get_current_uid_gid, helper 15) and allows everything: the
/// dump of such a program is not enough to load it again.
#[allow(dead_code, reason = "not every test file that includes this one needs it")]
pub fn program_that_calls_a_helper() -> Vec<Insn> {
    vec![
        insn(CALL, 0, 0, 0, 15),
        insn(MOV64_IMM, 0, 0, 0, 1),
        insn(EXIT, 0, 0, 0, 0),
    ]
}

//! What a device program decides about one access, computed without the kernel: for programs that
//! oci-hotplug must not replace.
//!
//! Supports what engines and systemd generate: loads of the context, arithmetic, comparisons.
//! Anything else leads to no verdict.

use super::instruction::{CLASS_JMP, CLASS_JMP32, CLASS_MASK, EXIT, Insn, JA, JA32, LD_IMM64};
use crate::model::device::{Access, DevKind, DevNum};

/// The most instructions that are followed. Device programs compare and do not loop.
const MAX_STEPS: usize = 1 << 16;

/// What a register holds.
#[derive(Clone, Copy)]
enum Value {
    Unknown,
    Number(u64),
    /// The address of `struct bpf_cgroup_dev_ctx`.
    Context,
}

/// Whether the program surely refuses to open the device for reading or for writing, as far as
/// `access` includes that. The right to create nodes does not count: a process that has the node
/// need not create it.
pub(crate) fn refuses(program: &[Insn], num: DevNum, access: Access) -> bool {
    [Access::READ, Access::WRITE]
        .into_iter()
        .filter(|one| access.covers(*one))
        .any(|one| allows(program, num, one) == Some(false))
}

/// What the program decides; `None` if it contains an unsupported instruction.
pub(crate) fn allows(program: &[Insn], num: DevNum, access: Access) -> Option<bool> {
    let mut registers = [Value::Unknown; 11];
    registers[1] = Value::Context;
    let context = context(num, access);
    let mut at = 0;
    for _ in 0..MAX_STEPS {
        let insn = *program.get(at)?;
        at += 1;
        match insn.code & CLASS_MASK {
            _ if insn.code == EXIT => return number(registers[0]).map(|result| result & 1 != 0),
            _ if insn.code == LD_IMM64 && insn.src == 0 => {
                let high = program.get(at)?.imm;
                let value = u64::from(high as u32) << 32 | u64::from(insn.imm as u32);
                *registers.get_mut(usize::from(insn.dst))? = Value::Number(value);
                at += 1;
            }
            1 => {
                let loaded = load(insn, *registers.get(usize::from(insn.src))?, &context)?;
                *registers.get_mut(usize::from(insn.dst))? = Value::Number(loaded);
            }
            // Stores go to the stack, and values loaded from the stack count as unknown.
            2 | 3 => {}
            4 | 7 => {
                let result = arithmetic(insn, &registers)?;
                *registers.get_mut(usize::from(insn.dst))? = result;
            }
            CLASS_JMP | CLASS_JMP32 if jumps(insn, &registers)? => {
                at = usize::try_from(at as i64 + insn.jump()?).ok()?;
            }
            CLASS_JMP | CLASS_JMP32 => {}
            _ => return None,
        }
    }
    None
}

/// `struct bpf_cgroup_dev_ctx` (linux/bpf.h): access_type, major, minor.
fn context(num: DevNum, access: Access) -> [u8; 12] {
    let kind: u32 = match num.kind {
        DevKind::Block => 1,
        DevKind::Char => 2,
    };
    let mut bytes = [0; 12];
    for (place, word) in bytes
        .chunks_exact_mut(4)
        .zip([access.bits() << 16 | kind, num.major, num.minor])
    {
        place.copy_from_slice(&word.to_ne_bytes());
    }
    bytes
}

fn number(value: Value) -> Option<u64> {
    match value {
        Value::Number(number) => Some(number),
        Value::Unknown | Value::Context => None,
    }
}

/// A load of 4, 2 or 1 bytes from the context (BPF_MEM).
fn load(insn: Insn, from: Value, context: &[u8; 12]) -> Option<u64> {
    if !matches!(from, Value::Context) {
        return None;
    }
    let start = usize::try_from(insn.off).ok()?;
    let bytes = |length: usize| context.get(start..start + length);
    match insn.code & 0xf8 {
        0x60 => Some(u32::from_ne_bytes(bytes(4)?.try_into().ok()?).into()),
        0x68 => Some(u16::from_ne_bytes(bytes(2)?.try_into().ok()?).into()),
        0x70 => Some(bytes(1)?[0].into()),
        _ => None,
    }
}

/// The second operand: a register or the sign-extended immediate.
fn operand(insn: Insn, registers: &[Value; 11]) -> Option<Value> {
    if insn.code & 0x08 != 0 {
        registers.get(usize::from(insn.src)).copied()
    } else {
        Some(Value::Number(i64::from(insn.imm) as u64))
    }
}

fn arithmetic(insn: Insn, registers: &[Value; 11]) -> Option<Value> {
    let wide = insn.code & CLASS_MASK == 7;
    let second = operand(insn, registers)?;
    if insn.code & 0xf0 == 0xb0 && insn.off == 0 {
        return Some(match second {
            Value::Number(second) => Value::Number(truncated(second, wide)),
            other if wide => other,
            _ => return None,
        });
    }
    let second = number(second)?;
    let first = number(*registers.get(usize::from(insn.dst))?)?;
    // The kernel masks shift counts to the width (Documentation/bpf/standardization).
    let (first, second) = (truncated(first, wide), truncated(second, wide));
    let distance = second as u32 & if wide { 63 } else { 31 };
    let result = match insn.code & 0xf0 {
        0x00 => first.wrapping_add(second),
        0x10 => first.wrapping_sub(second),
        0x40 => first | second,
        0x50 => first & second,
        0x60 => first << distance,
        0x70 => first >> distance,
        0xa0 => first ^ second,
        _ => return None,
    };
    Some(Value::Number(truncated(result, wide)))
}

fn truncated(value: u64, wide: bool) -> u64 {
    if wide { value } else { value & u64::from(u32::MAX) }
}

fn jumps(insn: Insn, registers: &[Value; 11]) -> Option<bool> {
    if insn.code == JA || insn.code == JA32 {
        return Some(true);
    }
    let wide = insn.code & CLASS_MASK == CLASS_JMP;
    let first = truncated(number(*registers.get(usize::from(insn.dst))?)?, wide);
    let second = truncated(number(operand(insn, registers)?)?, wide);
    Some(match insn.code & 0xf0 {
        0x10 => first == second,
        0x20 => first > second,
        0x30 => first >= second,
        0x40 => first & second != 0,
        0x50 => first != second,
        0xa0 => first < second,
        0xb0 => first <= second,
        _ => return None,
    })
}

//! Instructions as text, for diagnosis and tests.

use std::fmt::Write;

use super::instruction::{CALL, CLASS_JMP, CLASS_JMP32, EXIT, Insn, JA, LD_IMM64, PSEUDO_MAP_FD};

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

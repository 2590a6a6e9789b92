//! The prologue as text, and spliced programs run in a user-space VM with a table of grants.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;

use proptest::prelude::*;

use super::instruction::{CLASS_JMP, CLASS_JMP32, JA, JA32};
use super::*;

use crate::model::device::{Access, DevKind, DevNum};

mod verdicts;

// Public for the tests of `tests`.
#[allow(unreachable_pub)]
#[path = "../../../../tests/support/engine_program.rs"]
mod engine_program;
use engine_program::{EngineRule, engine_program};

type Table = BTreeMap<(u32, u32, u32), u32>;

thread_local! {
    /// The "map" of the helper, and the value that the helper returns to the program.
    static TABLE: RefCell<(Table, Box<u32>)> = RefCell::default();
}

const MAP_FD: i32 = 0x77;

/// bpf_map_lookup_elem for the VM. The key is on the VM's stack; /proc/self/mem reads it without
/// `unsafe`.
fn map_lookup_elem(map: u64, key: u64, _: u64, _: u64, _: u64) -> u64 {
    assert_eq!(map, MAP_FD as u64, "the map that was spliced in");
    let mut bytes = [0_u8; 12];
    File::open("/proc/self/mem")
        .unwrap()
        .read_exact_at(&mut bytes, key)
        .unwrap();
    let word = |at: usize| u32::from_ne_bytes(bytes[at..at + 4].try_into().unwrap());
    TABLE.with_borrow_mut(|(table, value)| match table.get(&(word(0), word(4), word(8))) {
        Some(access) => {
            **value = *access;
            std::ptr::from_ref(&**value) as u64
        }
        None => 0,
    })
}

/// What a device program returns for one access.
fn run(program: &[Insn], grants: &Table, kind: u32, major: u32, minor: u32, access: u32) -> bool {
    let bytes = encode(program);
    let value = TABLE.with_borrow_mut(|(table, value)| {
        table.clone_from(grants);
        std::ptr::from_ref(&**value) as u64
    });
    let mut context: Vec<u8> = [(access << 16) | kind, major, minor]
        .iter()
        .flat_map(|word| word.to_ne_bytes())
        .collect();
    let mut vm = rbpf::EbpfVmRaw::new(Some(&bytes)).unwrap();
    vm.register_helper(MAP_LOOKUP_ELEM as u32, map_lookup_elem)
        .unwrap();
    vm.register_allowed_memory(&[value, value + 1, value + 2, value + 3]);
    vm.execute_program(&mut context).unwrap() == 1
}

/// The program as the kernel shows it after loading, with the inlined look-up.
fn as_dumped(program: &[Insn], map_id: i32) -> Vec<Insn> {
    let mut dumped = Vec::new();
    for insn in program {
        match (insn.code, insn.src) {
            (LD_IMM64, PSEUDO_MAP_FD) => dumped.push(Insn { imm: map_id, ..*insn }),
            (CALL, _) => dumped.extend([
                Insn {
                    imm: 0x1d2f0,
                    ..*insn
                },
                super::insn(JEQ_IMM, 0, 0, 1, 0),
                super::insn(ADD64_IMM, 0, 0, 0, 64),
            ]),
            _ => dumped.push(*insn),
        }
    }
    dumped
}

#[test]
fn the_prologue_disassembles_as_intended() {
    let expected = "   0: r6 = r1
   1: r2 = *(u32 *)(r1 +0)
   2: w7 = w2
   3: w7 >>= 0x10
   4: w2 &= 0xffff
   5: *(u32 *)(r10 -16) = r2
   6: r2 = *(u32 *)(r1 +4)
   7: *(u32 *)(r10 -12) = r2
   8: r2 = *(u32 *)(r1 +8)
   9: *(u32 *)(r10 -8) = r2
  10: r1 = map 119
  12: r2 = r10
  13: r2 += 0xfffffff0
  14: call 1
  15: if r0 == 0x0 goto +5
  16: r0 = *(u32 *)(r0 +0)
  17: w0 &= w7
  18: if w0 != w7 goto +2
  19: r0 = 0x1
  20: exit
  21: r1 = r6
";
    assert_eq!(disassemble(&prologue(MAP_FD)), expected);
}

#[test]
fn the_program_of_an_engine_disassembles_as_its_rules() {
    let program = engine_program(&[EngineRule::char(1, 3, 6)]);
    let expected = "   0: r2 = *(u32 *)(r1 +0)
   1: w3 = w2
   2: w2 &= 0xffff
   3: w3 >>= 0x10
   4: r4 = *(u32 *)(r1 +4)
   5: r5 = *(u32 *)(r1 +8)
   6: if w2 != 0x2 goto +7
   7: if w4 != 0x1 goto +6
   8: if w5 != 0x3 goto +5
   9: w1 = w3
  10: w1 &= 0x6
  11: if w1 != w3 goto +2
  12: r0 = 0x1
  13: exit
  14: r0 = 0x0
  15: exit
";
    assert_eq!(disassemble(&program), expected);
}

#[test]
fn constants_jumps_and_unknown_codes_are_disassembled_too() {
    let program = [
        insn(LD_IMM64, 3, 0, 0, 0x11),
        insn(0, 0, 0, 0, 0x22),
        insn(JA, 0, 0, 2, 0),
        insn(0xb4, 1, 0, 0, 7),
        insn(0x6b, 10, 1, -8, 0),
        insn(0xdb, 1, 2, 0, 0),
    ];
    let expected = "   0: r3 = 0x2200000011 ll
   2: goto +2
   3: w1 = 0x7
   4: *(u16 *)(r10 -8) = r1
   5: code 0xdb dst 1 src 2 off 0 imm 0x0
";
    assert_eq!(disassemble(&program), expected);
}

#[test]
fn every_operator_is_disassembled_in_both_widths_and_with_both_kinds_of_operands() {
    let shown = |insn: Insn| {
        disassemble(&[insn])
            .trim_start_matches("   0: ")
            .trim_end()
            .to_owned()
    };
    for (code, operator) in [
        (0x00, "+="),
        (0x10, "-="),
        (0x40, "|="),
        (0x50, "&="),
        (0x60, "<<="),
        (0x70, ">>="),
        (0xa0, "^="),
        (0xb0, "="),
    ] {
        assert_eq!(shown(insn(code | 7, 2, 0, 0, 16)), format!("r2 {operator} 0x10"));
        assert_eq!(shown(insn(code | 0x0f, 2, 3, 0, 0)), format!("r2 {operator} r3"));
        assert_eq!(shown(insn(code | 4, 2, 0, 0, 16)), format!("w2 {operator} 0x10"));
        assert_eq!(shown(insn(code | 0x0c, 2, 3, 0, 0)), format!("w2 {operator} w3"));
    }
    for (code, operator) in [
        (0x10, "=="),
        (0x20, ">"),
        (0x30, ">="),
        (0x40, "&"),
        (0x50, "!="),
        (0xa0, "<"),
        (0xb0, "<="),
    ] {
        assert_eq!(
            shown(insn(code | 5, 2, 0, 1, 16)),
            format!("if r2 {operator} 0x10 goto +1")
        );
        assert_eq!(
            shown(insn(code | 0x0e, 2, 3, -1, 0)),
            format!("if w2 {operator} w3 goto -1")
        );
    }
    for (code, bits) in [(0x60, 32), (0x68, 16), (0x70, 8), (0x78, 64)] {
        assert_eq!(
            shown(insn(code | 1, 2, 3, 4, 0)),
            format!("r2 = *(u{bits} *)(r3 +4)")
        );
        assert_eq!(
            shown(insn(code | 3, 2, 3, -4, 0)),
            format!("*(u{bits} *)(r2 -4) = r3")
        );
    }
    // Codes without a text.
    for code in [0x27, 0x65, 0x06, 0x62, 0x40, 0xe1] {
        let text = shown(insn(code, 2, 3, 4, 5));
        assert_eq!(text, format!("code {code:#04x} dst 2 src 3 off 4 imm 0x5"));
    }
    assert_eq!(shown(insn(CALL, 0, 0, 0, 14)), "call 14");
    for src in [1, 2] {
        assert_eq!(
            shown(insn(CALL, 0, src, 0, 14)),
            format!("code 0x85 dst 0 src {src} off 0 imm 0xe")
        );
    }
    assert_eq!(
        shown(insn(LD_IMM64, 3, 2, 0, 0x11)),
        "code 0x18 dst 3 src 2 off 0 imm 0x11"
    );
    assert_eq!(
        shown(insn(LD_IMM64, 3, 0, 0, -1)),
        "r3 = 0xffffffff ll",
        "cut short"
    );
}

#[test]
fn an_instruction_has_the_layout_of_the_kernels_struct() {
    let insn = Insn {
        code: LDX_W,
        dst: 2,
        src: 10,
        off: -4,
        imm: -2,
    };
    let regs = if cfg!(target_endian = "little") {
        0xa2
    } else {
        0x2a
    };
    let [o0, o1] = (-4_i16).to_ne_bytes();
    let [i0, i1, i2, i3] = (-2_i32).to_ne_bytes();
    assert_eq!(insn.to_bytes(), [LDX_W, regs, o0, o1, i0, i1, i2, i3]);
    assert_eq!(decode(&encode(&[insn])), Some(vec![insn]));
    assert_eq!(decode(&[0; 12]), None);
}

#[test]
fn a_grant_allows_its_access_and_the_program_decides_the_rest() {
    let spliced = splice(&engine_program(&[EngineRule::char(1, 3, 6)]), MAP_FD).unwrap();
    let grants = Table::from([((2, 188, 0), 2)]);
    assert!(run(&spliced, &grants, 2, 1, 3, 6), "the engine's own device");
    assert!(run(&spliced, &grants, 2, 188, 0, 2), "granted for reading");
    assert!(!run(&spliced, &grants, 2, 188, 0, 6), "not granted for writing");
    assert!(
        !run(&spliced, &grants, 1, 188, 0, 2),
        "the block device of the same number"
    );
    assert!(!run(&spliced, &grants, 2, 188, 1, 2), "another minor");
    assert!(!run(&spliced, &Table::new(), 2, 188, 0, 2), "revoked");
}

#[test]
fn an_instruction_that_cannot_be_loaded_again_is_refused_with_index_and_kind() {
    let exit = insn(EXIT, 0, 0, 0, 0);
    let zero = insn(0, 0, 0, 0, 0);
    let cases = [
        (vec![insn(CALL, 0, 0, 0, 14), exit], Obstacle::Helper),
        (vec![insn(CALL_ARGS, 0, 0, 0, 0), exit], Obstacle::Helper),
        (vec![insn(CALL, 0, 1, 0, 1), exit, exit], Obstacle::Function),
        (vec![insn(CALL, 0, 2, 0, 9), exit], Obstacle::Kfunc),
        (vec![insn(TAIL_CALL, 0, 0, 0, 0), exit], Obstacle::TailCall),
        (vec![insn(LD_IMM64, 1, 1, 0, 5), zero, exit], Obstacle::PseudoLoad),
        (vec![insn(LD_IMM64, 1, 4, 0, 5), zero, exit], Obstacle::PseudoLoad),
        (vec![insn(MOV64_IMM, 11, 0, 0, 5), exit], Obstacle::Blinded),
        (vec![insn(JA, 0, 0, 1, 0), exit], Obstacle::Jump),
        (vec![insn(JA32, 0, 0, 0, 1), exit], Obstacle::Jump),
        (vec![insn(JEQ_IMM, 0, 0, -3, 0), exit], Obstacle::Jump),
    ];
    for (tail, obstacle) in cases {
        let program = [vec![insn(MOV64_IMM, 0, 0, 0, 1)], tail].concat();
        let error = splice(&program, MAP_FD).unwrap_err();
        assert_eq!(error, SpliceError::Instruction { index: 1, obstacle });
        assert_eq!(error.to_string(), format!("instruction 1 {obstacle}"));
    }
    assert_eq!(
        splice(&vec![exit; MAX_INSNS], MAP_FD),
        Err(SpliceError::TooLong { len: MAX_INSNS + 22 })
    );
    let helper = splice(&[insn(CALL, 0, 0, 0, 14), exit], MAP_FD).unwrap_err();
    assert_eq!(helper.to_string(), "instruction 0 calls a kernel helper");
}

#[test]
fn a_program_that_just_fits_and_one_that_jumps_to_its_beginning_are_spliced() {
    let longest = vec![insn(EXIT, 0, 0, 0, 0); MAX_INSNS - prologue(MAP_FD).len()];
    assert_eq!(splice(&longest, MAP_FD).unwrap().len(), MAX_INSNS);
    let back = [
        insn(MOV64_IMM, 0, 0, 0, 1),
        insn(JEQ_IMM, 0, 0, -2, 0),
        longest[0],
    ];
    assert_eq!(strip(&splice(&back, MAP_FD).unwrap()), Some(&back[..]));
}

#[test]
fn constants_of_64_bits_can_be_spliced_whatever_their_second_half_holds() {
    let program = [
        insn(LD_IMM64, 0, 0, 0, 1),
        insn(0, 0, 0, 0, 0x85),
        insn(EXIT, 0, 0, 0, 0),
    ];
    assert_eq!(strip(&splice(&program, MAP_FD).unwrap()), Some(&program[..]));
}

#[test]
fn a_zero_extension_of_the_verifier_becomes_a_move() {
    let program = [
        insn(MOV32_REG, 3, 3, 0, 1),
        insn(MOV64_IMM, 0, 0, 0, 0),
        insn(EXIT, 0, 0, 0, 0),
    ];
    let spliced = splice(&program, MAP_FD).unwrap();
    assert_eq!(strip(&spliced).unwrap()[0], insn(MOV32_REG, 3, 3, 0, 0));
}

#[test]
fn only_a_complete_prologue_is_stripped() {
    let original = engine_program(&[]);
    let spliced = splice(&original, MAP_FD).unwrap();
    assert_eq!(strip(&original), None);
    assert_eq!(strip(&spliced[..20]), None, "cut short");
    for index in 0..prologue(MAP_FD).len() {
        let mut changed = spliced.clone();
        changed[index].off += 1;
        assert_eq!(strip(&changed), None, "instruction {index} is not ours");
    }
    let dumped = as_dumped(&spliced, 7);
    for index in 0..prologue(MAP_FD).len() + 2 {
        let mut changed = dumped.clone();
        changed[index].off += 1;
        assert_eq!(
            strip(&changed),
            None,
            "instruction {index} is not what the kernel makes of ours"
        );
    }
}

fn access() -> impl Strategy<Value = u32> {
    0_u32..8
}

fn rule() -> impl Strategy<Value = EngineRule> {
    let few = |range: std::ops::Range<u32>| proptest::option::of(range);
    (few(1..3), few(0..4), few(0..4), access(), any::<bool>()).prop_map(
        |(kind, major, minor, access, allow)| EngineRule {
            kind,
            major,
            minor,
            access,
            allow,
        },
    )
}

#[test]
fn no_verdict_is_computed_for_a_program_that_calls_the_kernel() {
    let program = [
        insn(CALL, 0, 0, 0, 15),
        insn(MOV64_IMM, 0, 0, 0, 0),
        insn(EXIT, 0, 0, 0, 0),
    ];
    let num = DevNum {
        kind: DevKind::Char,
        major: 188,
        minor: 0,
    };
    assert_eq!(verdict::allows(&program, num, Access::READ), None);
    assert!(!verdict::refuses(&program, num, Access::ALL));
    let nobody = &program[1..];
    assert!(verdict::refuses(nobody, num, Access::READ));
    assert!(!verdict::refuses(nobody, num, Access::MKNOD));
}

proptest! {
    #[test]
    fn a_spliced_program_allows_what_a_grant_or_the_original_allows(
        rules in proptest::collection::vec(rule(), 0..12),
        grants in proptest::collection::btree_map((1_u32..3, 0_u32..4, 0_u32..4), access(), 0..8),
        asked in proptest::collection::vec((1_u32..3, 0_u32..4, 0_u32..4, access()), 1..8),
    ) {
        let original = engine_program(&rules);
        let spliced = splice(&original, MAP_FD).unwrap();
        for (kind, major, minor, access) in asked {
            let engine = EngineRule::decide(&rules, kind, major, minor, access);
            prop_assert_eq!(run(&original, &grants, kind, major, minor, access), engine);
            let granted = grants.get(&(kind, major, minor)).is_some_and(|grant| access & !grant == 0);
            prop_assert_eq!(run(&spliced, &grants, kind, major, minor, access), granted || engine);
        }
    }

    #[test]
    fn the_verdict_of_an_engines_program_is_known_without_running_it(
        rules in proptest::collection::vec(rule(), 0..12),
        asked in proptest::collection::vec((any::<bool>(), 0_u32..4, 0_u32..4, 1_u32..8), 1..8),
    ) {
        let program = engine_program(&rules);
        for (is_block, major, minor, access) in asked {
            let kind = if is_block { DevKind::Block } else { DevKind::Char };
            let num = DevNum { kind, major, minor };
            let decided = EngineRule::decide(&rules, if is_block { 1 } else { 2 }, major, minor, access);
            let access = Access::from_bits_truncate(access);
            prop_assert_eq!(verdict::allows(&program, num, access), Some(decided));
        }
    }

    #[test]
    fn computing_the_verdict_of_any_program_ends(bytes in proptest::collection::vec(any::<[u8; 8]>(), 0..40)) {
        let program = decode(&bytes.concat()).unwrap();
        let num = DevNum { kind: DevKind::Char, major: 188, minor: 0 };
        let _ = verdict::allows(&program, num, Access::ALL);
    }

    #[test]
    fn stripping_a_spliced_program_yields_the_original(
        rules in proptest::collection::vec(rule(), 0..12), map_id in any::<i32>(),
    ) {
        let original = engine_program(&rules);
        let spliced = splice(&original, MAP_FD).unwrap();
        prop_assert_eq!(strip(&spliced), Some(&original[..]));
        let dumped = as_dumped(&spliced, map_id);
        prop_assert_eq!(strip(&dumped), Some(&original[..]));
    }

    #[test]
    fn instructions_survive_encoding_and_decoding(bytes in proptest::collection::vec(any::<[u8; 8]>(), 0..20)) {
        let bytes = bytes.concat();
        prop_assert_eq!(encode(&decode(&bytes).unwrap()), bytes);
    }
}

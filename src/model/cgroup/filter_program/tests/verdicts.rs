//! The computed verdict, compared instruction by instruction with the user-space VM.

use super::*;

const JSET_IMM: u8 = 0x45;
const LDX_DW: u8 = 0x79;

/// The operators on numbers and the conditions of jumps that the computation supports.
const ARITHMETIC: [u8; 8] = [0x00, 0x10, 0x40, 0x50, 0x60, 0x70, 0xa0, 0xb0];
const CONDITIONS: [u8; 7] = [0x10, 0x20, 0x30, 0x40, 0x50, 0xa0, 0xb0];

/// The device that all programs here decide about, with bits in every byte.
const NUM: DevNum = DevNum {
    kind: DevKind::Char,
    major: 0x1234_5678,
    minor: 0x9abc_def1,
};

fn exit() -> Insn {
    insn(EXIT, 0, 0, 0, 0)
}

fn mov(dst: u8, imm: i32) -> Insn {
    insn(MOV64_IMM, dst, 0, 0, imm)
}

/// The value of r0 after the VM has run the program.
fn result(program: &[Insn]) -> u64 {
    let mut context: Vec<u8> = [(Access::READ.bits() << 16) | 2, NUM.major, NUM.minor]
        .iter()
        .flat_map(|word| word.to_ne_bytes())
        .collect();
    let bytes = encode(program);
    let vm = rbpf::EbpfVmRaw::new(Some(&bytes)).unwrap();
    vm.execute_program(&mut context).unwrap()
}

fn verdict_on(program: &[Insn]) -> Option<bool> {
    verdict::allows(program, NUM, Access::READ)
}

/// The registers that programs here compute with. r1 is the context.
const REGISTERS: [u8; 5] = [0, 2, 3, 8, 9];

fn any_register() -> impl Strategy<Value = u8> {
    prop::sample::select(&REGISTERS[..])
}

/// Small numbers, which are often equal, and arbitrary ones.
fn any_number() -> impl Strategy<Value = i32> {
    prop_oneof![-2..4_i32, 30..34_i32, 62..66_i32, any::<i32>()]
}

/// An operator on registers and numbers, of either width.
fn any_operation(operators: &'static [u8], classes: [u8; 2]) -> impl Strategy<Value = Insn> {
    let operator = prop::sample::select(operators);
    let parts = (
        operator,
        any::<(bool, bool)>(),
        any_register(),
        any_register(),
        any_number(),
    );
    parts.prop_map(move |(operator, (is_first, from_register), dst, src, imm)| {
        let class = if is_first { classes[0] } else { classes[1] };
        match from_register {
            true => insn(operator | 0x08 | class, dst, src, 0, 0),
            false => insn(operator | class, dst, 0, 0, imm),
        }
    })
}

fn any_arithmetic() -> impl Strategy<Value = Vec<Insn>> {
    any_operation(&ARITHMETIC, [7, 4]).prop_map(|operation| {
        // rbpf leaves the sign of a 32-bit sum in the upper half, where the kernel has zeros.
        let zero_extension = insn(MOV32_REG, operation.dst, operation.dst, 0, 0);
        let is_short = operation.class() == 4;
        [operation]
            .into_iter()
            .chain(is_short.then_some(zero_extension))
            .collect()
    })
}

/// A jump over the next instruction; the program's result shows whether it was taken.
fn any_jump() -> impl Strategy<Value = Vec<Insn>> {
    let jump = any_operation(&CONDITIONS, [CLASS_JMP, CLASS_JMP32]);
    (jump, any_register(), any_number())
        .prop_map(|(jump, dst, imm)| vec![Insn { off: 1, ..jump }, mov(dst, imm)])
}

/// A load of a part of the context.
fn any_load() -> impl Strategy<Value = Vec<Insn>> {
    let size = prop::sample::select(&[(0x61, 4), (0x69, 2), (0x71, 1)][..]);
    (size, 0..12_i16, any_register()).prop_map(|((code, size), at, dst)| {
        let at = at / size * size;
        vec![insn(code, dst, 1, at, 0)]
    })
}

fn any_constant() -> impl Strategy<Value = Vec<Insn>> {
    (any_register(), any_number(), any_number())
        .prop_map(|(dst, low, high)| vec![insn(LD_IMM64, dst, 0, 0, low), insn(0, 0, 0, 0, high)])
}

proptest! {
    #[test]
    fn the_result_of_loads_arithmetic_and_jumps_is_known_without_running_them(
        first in prop::array::uniform5(any_number()),
        steps in prop::collection::vec(
            prop_oneof![3 => any_arithmetic(), 3 => any_jump(), 1 => any_load(), 1 => any_constant()],
            1..12,
        ),
        shown in any_register(),
        bit in 0..64_i32,
    ) {
        let mut program: Vec<Insn> = REGISTERS.into_iter().zip(first).map(|(dst, imm)| mov(dst, imm)).collect();
        program.extend(steps.concat());
        // The verdict is the lowest bit of r0, so shift each bit of the shown register there.
        program.extend([insn(MOV64_REG, 0, shown, 0, 0), insn(0x77, 0, 0, 0, bit), exit()]);
        prop_assert_eq!(verdict_on(&program), Some(result(&program) & 1 == 1));
    }
}

/// Puts a number of 64 bits into a register.
fn load_number(dst: u8, number: u64) -> [Insn; 2] {
    let (low, high) = (number as u32 as i32, (number >> 32) as u32 as i32);
    [insn(LD_IMM64, dst, 0, 0, low), insn(0, 0, 0, 0, high)]
}

/// Each operator of these classes with r2 as its first operand, and operands that partly differ in
/// one half alone; each after the instructions that load the operands.
fn each_operation(operators: &[u8], classes: [u8; 2]) -> Vec<(Vec<Insn>, Insn)> {
    const NUMBERS: [u64; 8] = [0, 1, 2, 33, 0xffff_ffff, 1 << 32, (1 << 32) + 1, u64::MAX];
    let mut all = Vec::new();
    for code in operators
        .iter()
        .flat_map(|code| classes.map(|class| code | class))
    {
        for (first, second) in NUMBERS
            .iter()
            .flat_map(|first| NUMBERS.map(|second| (*first, second)))
        {
            let load = [load_number(2, first), load_number(3, second)].concat();
            all.push((load.clone(), insn(code | 0x08, 2, 3, 0, 0)));
            all.push((load, insn(code, 2, 0, 0, second as i32)));
        }
    }
    all
}

#[test]
fn the_result_of_every_operator_is_the_same_as_in_the_vm() {
    for (load, operation) in each_operation(&ARITHMETIC, [7, 4]) {
        // See any_arithmetic().
        let zero_extension = (operation.class() == 4).then_some(insn(MOV32_REG, 2, 2, 0, 0));
        let begin: Vec<Insn> = load
            .into_iter()
            .chain([operation])
            .chain(zero_extension)
            .collect();
        let expected = result(&[&begin[..], &[insn(MOV64_REG, 0, 2, 0, 0), exit()]].concat());
        let is_expected = [
            load_number(9, expected).to_vec(),
            vec![mov(0, 1), insn(JEQ_IMM | 0x08, 2, 9, 1, 0), mov(0, 0), exit()],
        ]
        .concat();
        let program = [begin, is_expected].concat();
        assert_eq!(verdict_on(&program), Some(true), "{}", disassemble(&program));
    }
}

#[test]
fn every_condition_jumps_as_in_the_vm() {
    for (load, condition) in each_operation(&CONDITIONS, [CLASS_JMP, CLASS_JMP32]) {
        let jump = Insn { off: 1, ..condition };
        let program = [load, vec![mov(0, 1), jump, mov(0, 0), exit()]].concat();
        let jumps = result(&program) == 1;
        assert_eq!(verdict_on(&program), Some(jumps), "{}", disassemble(&program));
    }
}

#[test]
fn sums_and_differences_of_32_bits_have_a_zero_upper_half() {
    for (code, first, second) in [(0x04, -1, 1), (0x14, 0, 1), (0x04, i32::MAX, 1)] {
        let program = [
            insn(0xb4, 2, 0, 0, first),
            insn(code, 2, 0, 0, second),
            insn(MOV64_REG, 0, 2, 0, 0),
            insn(0x77, 0, 0, 0, 32),
            exit(),
        ];
        assert_eq!(verdict_on(&program), Some(false), "{code:#x}");
    }
}

#[test]
fn the_context_is_followed_from_register_to_register() {
    let program = [
        insn(MOV64_REG, 6, 1, 0, 0),
        insn(MOV64_REG, 7, 6, 0, 0),
        insn(LDX_W, 0, 7, 8, 0),
        exit(),
    ];
    assert_eq!(verdict_on(&program), Some(true), "the minor number is odd");
}

#[test]
fn stores_are_skipped_and_long_jumps_are_taken() {
    let program = [
        mov(0, 1),
        insn(STX_W, 10, 0, -4, 0),
        insn(0x62, 10, 0, -8, 0),
        insn(JA32, 0, 0, 0, 1),
        mov(0, 0),
        insn(JA, 0, 0, 1, 0),
        mov(0, 0),
        exit(),
    ];
    assert_eq!(verdict_on(&program), Some(true));
}

#[test]
fn a_backward_jump_is_followed_as_long_as_the_program_ends() {
    let program = [
        mov(0, 0),
        insn(ADD64_IMM, 0, 0, 0, 1),
        insn(JEQ_IMM, 0, 0, 1, 3),
        insn(JA, 0, 0, -3, 0),
        exit(),
    ];
    assert_eq!(verdict_on(&program), Some(true), "r0 is 3");
    assert_eq!(verdict_on(&[insn(JA, 0, 0, -1, 0)]), None, "it never ends");
}

#[test]
fn an_unsupported_instruction_leads_to_no_verdict() {
    let cases: &[(&str, &[Insn])] = &[
        ("a load from the stack", &[insn(LDX_W, 0, 10, -4, 0)]),
        ("a load from behind the context", &[insn(LDX_W, 0, 1, 12, 0)]),
        (
            "a load across the end of the context",
            &[insn(LDX_W, 0, 1, 10, 0)],
        ),
        ("a load from before the context", &[insn(LDX_W, 0, 1, -4, 0)]),
        ("a load of 64 bits", &[insn(LDX_DW, 0, 1, 0, 0)]),
        ("a multiplication", &[mov(0, 1), insn(0x27, 0, 0, 0, 1)]),
        ("a signed comparison", &[mov(0, 1), insn(0x65, 0, 0, 0, 0)]),
        (
            "a move that extends the sign",
            &[mov(0, 1), insn(MOV64_REG, 0, 0, 8, 0)],
        ),
        ("a half of the context's address", &[insn(MOV32_REG, 0, 1, 0, 0)]),
        (
            "a load from a half of the context's address",
            &[insn(MOV32_REG, 2, 1, 0, 0), insn(LDX_W, 0, 2, 8, 0)],
        ),
        ("a half of what is unknown", &[insn(MOV32_REG, 0, 5, 0, 0)]),
        (
            "a sum with the context's address",
            &[mov(0, 1), insn(0x0f, 0, 1, 0, 0)],
        ),
        ("a sum with what is unknown", &[mov(0, 1), insn(0x0f, 0, 5, 0, 0)]),
        (
            "a comparison of what is unknown",
            &[mov(0, 1), insn(JSET_IMM, 5, 0, 0, 0)],
        ),
        (
            "a comparison with what is unknown",
            &[mov(0, 1), insn(JSET_IMM | 0x08, 0, 5, 0, 0)],
        ),
        ("a map", &[insn(LD_IMM64, 0, 1, 0, 1), insn(0, 0, 0, 0, 0)]),
        ("a call", &[mov(0, 1), insn(CALL, 0, 0, 0, 1)]),
        ("no result", &[]),
        (
            "the context's address as the result",
            &[insn(MOV64_REG, 0, 1, 0, 0)],
        ),
        ("a register that does not exist", &[insn(MOV64_IMM, 11, 0, 0, 1)]),
    ];
    for (what, program) in cases {
        let mut program = program.to_vec();
        program.push(exit());
        assert_eq!(verdict_on(&program), None, "{what}");
    }
    assert_eq!(verdict_on(&[mov(0, 1)]), None, "no end");
}

#[test]
fn a_program_refuses_a_device_only_if_it_surely_denies_reading_or_writing() {
    // Allows only reading: r0 = (access_type >> 17) & 1.
    let reading = [
        insn(LDX_W, 0, 1, 0, 0),
        insn(RSH32_IMM, 0, 0, 0, 17),
        insn(AND32_IMM, 0, 0, 0, 1),
        exit(),
    ];
    for (access, is_refused) in [
        (Access::READ, false),
        (Access::WRITE, true),
        (Access::READ | Access::WRITE, true),
        (Access::MKNOD, false),
        (Access::READ | Access::MKNOD, false),
        (Access::NONE, false),
    ] {
        assert_eq!(verdict::refuses(&reading, NUM, access), is_refused, "{access}");
    }
}

#[test]
fn block_and_character_devices_are_distinguished() {
    let is_block = [
        insn(LDX_W, 2, 1, 0, 0),
        insn(AND32_IMM, 2, 0, 0, 0xffff),
        mov(0, 1),
        insn(JEQ_IMM, 2, 0, 1, 1),
        mov(0, 0),
        exit(),
    ];
    assert_eq!(verdict_on(&is_block), Some(false));
    let block = DevNum {
        kind: DevKind::Block,
        ..NUM
    };
    assert_eq!(verdict::allows(&is_block, block, Access::ALL), Some(true));
}

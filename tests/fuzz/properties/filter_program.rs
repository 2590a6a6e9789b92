//! Device programs of cgroup v2, as the kernel shows those that are attached.

use oci_hotplug::model::cgroup::filter_program::{
    Insn, decode, disassemble, encode, prologue, splice, strip,
};

/// What is spliced is the original behind our prologue, and is found there again; a program is not
/// spliced twice by mistake, and its listing stays in bounds.
pub fn hold(input: &[u8]) {
    let Some(original) = decode(input) else {
        assert_ne!(input.len() % 8, 0, "whole instructions are decoded");
        return;
    };
    assert_eq!(encode(&original), input);
    let listing = disassemble(&original);
    assert!(listing.len() <= 160 * original.len() + 160);
    if let Some(rest) = strip(&original) {
        assert!(original.ends_with(rest) && rest.len() + prologue(0).len() <= original.len());
    }
    match splice(&original, 7) {
        Ok(spliced) => {
            assert!(spliced.starts_with(&prologue(7)));
            let rest = strip(&spliced).expect("our own prologue is known");
            assert_eq!(rest.len(), original.len());
            for (ours, theirs) in rest.iter().zip(&original) {
                // The mark of the verifier's zero extensions is the only thing that is not kept.
                let unmarked = Insn { imm: 0, ..*theirs };
                assert!(ours == theirs || *ours == unmarked, "{theirs:?} became {ours:?}");
            }
        }
        Err(error) => super::is_fit_for_a_log(&error),
    }
}

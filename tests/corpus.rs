//! Runs every parser of untrusted input on the inputs that fuzzing (tests/fuzz) found, and on
//! mutations of them. The properties are those of the fuzz targets, so faults that were found do
//! not return.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use proptest::sample::Index;

#[path = "fuzz/properties/mod.rs"]
mod properties;

/// The files of one parser; of all if the name is empty.
fn entries(name: &str) -> Vec<PathBuf> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/corpus")
        .join(name);
    let entries = fs::read_dir(&directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
    let mut paths: Vec<_> = entries
        .map(|entry| entry.expect("list the corpus").path())
        .collect();
    paths.sort();
    paths
}

fn inputs(name: &str) -> Vec<Vec<u8>> {
    let read = |path: &PathBuf| fs::read(path).expect("read an entry of the corpus");
    entries(name).iter().map(read).collect()
}

/// Names the input if a property does not hold.
struct Tried<'a> {
    reader: &'a str,
    input: &'a [u8],
}

impl Drop for Tried<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!(
                "{} does not hold for \"{}\"",
                self.reader,
                self.input.escape_ascii()
            );
        }
    }
}

fn try_on(reader: &str, hold: properties::Property, input: &[u8]) {
    let _tried = Tried { reader, input };
    hold(input);
}

#[test]
fn the_properties_hold_for_all_inputs_that_fuzzing_has_kept() {
    for &(reader, hold) in properties::ALL {
        for path in entries(reader) {
            println!("{}", path.display());
            try_on(
                reader,
                hold,
                &fs::read(&path).expect("read an entry of the corpus"),
            );
        }
    }
}

#[test]
fn each_reader_has_a_corpus_and_the_whole_is_small() {
    let readers: BTreeSet<_> = properties::ALL
        .iter()
        .map(|(name, _)| (*name).to_owned())
        .collect();
    let directories: BTreeSet<_> = entries("")
        .iter()
        .map(|path| path.file_name().expect("a name").to_string_lossy().into_owned())
        .collect();
    match cfg!(feature = "kubernetes") {
        true => assert_eq!(directories, readers),
        // Some readers do not exist.
        false => assert!(
            directories.is_superset(&readers),
            "{directories:?} and {readers:?}"
        ),
    }
    let sizes = readers.iter().map(|reader| {
        let inputs = inputs(reader);
        assert!(!inputs.is_empty(), "{reader} has no corpus");
        inputs.iter().map(Vec::len).sum::<usize>()
    });
    let all: usize = sizes.sum();
    assert!(
        all <= 200 * 1024,
        "the corpus has {all} bytes: `tests/fuzz/run.sh --minimise` makes it smaller"
    );
}

/// A mutation of an input.
#[derive(Debug, Clone)]
enum Slip {
    /// Removes a piece.
    Omit(Index, Index),
    /// Repeats a piece.
    Repeat(Index, Index),
    /// Changes one byte.
    Replace(Index, u8),
    /// Continues with another input.
    Continue(Index, Index, Index),
}

fn slip() -> impl Strategy<Value = Slip> {
    let letters = prop::sample::select(b"\0\n\x1b\\\",;:=/&!*[]{}()<>.-+ 09afzAF\x7f\x80\xc3\xff".to_vec());
    prop_oneof![
        (any::<Index>(), any::<Index>()).prop_map(|(from, to)| Slip::Omit(from, to)),
        (any::<Index>(), any::<Index>()).prop_map(|(from, to)| Slip::Repeat(from, to)),
        (any::<Index>(), letters).prop_map(|(at, byte)| Slip::Replace(at, byte)),
        (any::<Index>(), any::<Index>(), any::<Index>())
            .prop_map(|(at, other, from)| Slip::Continue(at, other, from)),
    ]
}

fn slipped(mut input: Vec<u8>, slips: &[Slip], others: &[Vec<u8>]) -> Vec<u8> {
    for slip in slips {
        let places = input.len() + 1;
        let piece = |from: &Index, to: &Index| {
            let (one, other) = (from.index(places), to.index(places));
            one.min(other)..one.max(other)
        };
        match slip {
            Slip::Omit(from, to) => drop(input.drain(piece(from, to))),
            Slip::Repeat(from, to) => {
                let piece = piece(from, to);
                let copy = input[piece.clone()].to_vec();
                input.splice(piece.start..piece.start, copy);
            }
            Slip::Replace(at, byte) => {
                let at = at.index(places);
                input.splice(at..(at + 1).min(places - 1), [*byte]);
            }
            Slip::Continue(at, other, from) => {
                let other = other.get(others);
                input.truncate(at.index(places));
                input.extend_from_slice(&other[from.index(other.len() + 1)..]);
            }
        }
    }
    input
}

#[test]
fn the_properties_hold_for_inputs_that_are_nearly_those() {
    for &(reader, hold) in properties::ALL {
        let kept = inputs(reader);
        let strategy = (any::<Index>(), prop::collection::vec(slip(), 1..6));
        proptest!(|((entry, slips) in strategy)| {
            let input = slipped(entry.get(&kept).clone(), &slips, &kept);
            try_on(reader, hold, &input);
        });
    }
}

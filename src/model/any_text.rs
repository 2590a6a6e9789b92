//! Strings of arbitrary characters for property tests.

use proptest::prelude::*;
use proptest::strategy::ValueTree;

/// A string of up to 40 characters, many of them special: control characters, escapes, direction
/// marks, quotes. (`any::<String>()` never yields control characters.)
pub(crate) fn any_text() -> impl Strategy<Value = String> {
    prop::collection::vec(any::<char>(), 0..=40).prop_map(String::from_iter)
}

#[test]
fn some_texts_contain_control_characters() {
    let mut runner = proptest::test_runner::TestRunner::default();
    let texts = (0..100).map(|_| any_text().new_tree(&mut runner).expect("a text").current());
    let with_control = texts.filter(|text| text.contains(char::is_control)).count();
    assert!((1..100).contains(&with_control), "{with_control} of 100");
}

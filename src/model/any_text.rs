//! Texts of any characters, for the properties of tests.

use proptest::prelude::*;
use proptest::strategy::ValueTree;

/// A text of up to 40 characters of which many are special: control characters, escapes, direction
/// marks, quotes. (`any::<String>()` has no control characters at all.)
pub fn any_text() -> impl Strategy<Value = String> {
    prop::collection::vec(any::<char>(), 0..=40).prop_map(String::from_iter)
}

#[test]
fn a_text_has_control_characters_at_times() {
    let mut runner = proptest::test_runner::TestRunner::default();
    let texts = (0..100).map(|_| any_text().new_tree(&mut runner).expect("a text").current());
    let with_control = texts.filter(|text| text.contains(char::is_control)).count();
    assert!((1..100).contains(&with_control), "{with_control} of 100");
}

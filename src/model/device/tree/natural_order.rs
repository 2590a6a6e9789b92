//! The order of names with numbers: 2 before 10.

use std::cmp::Ordering;

/// Compares numbers by their value and everything else by characters.
pub(super) fn natural(a: &str, b: &str) -> Ordering {
    let (mut a, mut b) = (a, b);
    loop {
        let (number_a, rest_a) = number(a);
        let (number_b, rest_b) = number(b);
        let order = match (number_a, number_b) {
            (Some(a), Some(b)) => a.cmp(&b),
            _ => a.chars().next().cmp(&b.chars().next()),
        };
        if order != Ordering::Equal || a.is_empty() {
            return order;
        }
        (a, b) = match (number_a, number_b) {
            (Some(_), Some(_)) => (rest_a, rest_b),
            _ => (without_first(a), without_first(b)),
        };
    }
}

/// The number at the beginning of a text, and the rest. Eighteen digits fit.
fn number(text: &str) -> (Option<u64>, &str) {
    let digits = text.bytes().take(18).take_while(u8::is_ascii_digit).count();
    (text[..digits].parse().ok(), &text[digits..])
}

fn without_first(text: &str) -> &str {
    let mut letters = text.chars();
    letters.next();
    letters.as_str()
}

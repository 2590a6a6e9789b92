//! The value of an unquoted text, on which YAML libraries disagree.

use super::Scalar;

/// The rules for interpreting unquoted texts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// YAML 1.2's core schema: `0403`, `1_000` and `yes` are text.
    Core,
    /// gopkg.in/yaml.v3 (viper): additionally the numbers of YAML 1.1; `0403` is 259 and `0825` is
    /// 825 (its resolve.go).
    GoV3,
    /// gopkg.in/yaml.v2 (sigs.k8s.io/yaml, ghodss/yaml): additionally the booleans of YAML 1.1,
    /// `yes` and `on` (its resolve.go).
    GoV2,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Resolved<'n> {
    /// `null`, `~`, or an empty text.
    Null,
    Bool(bool),
    /// A whole number of 64 bits, signed or unsigned.
    Integer(i128),
    /// Another finite number, or an explicit infinity or NaN.
    Float(f64),
    Text(&'n str),
}

impl Scalar {
    pub(super) fn resolve(&self, dialect: Dialect) -> Option<Resolved<'_>> {
        let text = self.text.as_str();
        let Some(tag) = self.tag.as_deref() else {
            return Some(match self.is_plain {
                true => dialect.resolve(text),
                false => Resolved::Text(text),
            });
        };
        let resolved = dialect.resolve(text);
        match (tag, resolved) {
            ("null", Resolved::Null)
            | ("bool", Resolved::Bool(_))
            | ("int", Resolved::Integer(_))
            | ("float", Resolved::Float(_)) => Some(resolved),
            ("float", Resolved::Integer(number)) => Some(Resolved::Float(number as f64)),
            ("null" | "bool" | "int" | "float", _) => None,
            _ => Some(Resolved::Text(text)),
        }
    }
}

impl Dialect {
    pub fn resolve(self, text: &str) -> Resolved<'_> {
        let resolved = core(text).or_else(|| match self {
            Self::Core => None,
            Self::GoV3 => go_number(text),
            Self::GoV2 => go_word(text).or_else(|| go_number(text)),
        });
        resolved.unwrap_or(Resolved::Text(text))
    }
}

/// YAML 1.2.2, 10.3.2, and binary numbers.
fn core(text: &str) -> Option<Resolved<'static>> {
    Some(match text {
        "" | "~" | "null" | "Null" | "NULL" => Resolved::Null,
        "true" | "True" | "TRUE" => Resolved::Bool(true),
        "false" | "False" | "FALSE" => Resolved::Bool(false),
        ".inf" | ".Inf" | ".INF" | "+.inf" | "+.Inf" | "+.INF" => Resolved::Float(f64::INFINITY),
        "-.inf" | "-.Inf" | "-.INF" => Resolved::Float(f64::NEG_INFINITY),
        ".nan" | ".NaN" | ".NAN" => Resolved::Float(f64::NAN),
        _ => {
            let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
            if has_leading_zero(digits) || digits.starts_with(['+', '-']) {
                return None;
            }
            let (radix, rest) = match digits.get(..2) {
                Some("0x") => (16, &digits[2..]),
                Some("0o") => (8, &digits[2..]),
                Some("0b") => (2, &digits[2..]),
                _ => (10, digits),
            };
            match integer(rest, radix, text.starts_with('-')) {
                Some(number) => Resolved::Integer(number),
                None => finite(text).map(Resolved::Float)?,
            }
        }
    })
}

/// Whether it has the form of `007`, which is text.
fn has_leading_zero(digits: &str) -> bool {
    digits.len() > 1 && digits.starts_with('0') && digits.bytes().all(|digit| digit.is_ascii_digit())
}

/// A number of 64 bits that consists of digits alone.
fn integer(digits: &str, radix: u32, is_negative: bool) -> Option<i128> {
    if digits.starts_with(['+', '-']) {
        return None;
    }
    let value = i128::from(u64::from_str_radix(digits, radix).ok()?);
    let value = if is_negative { -value } else { value };
    (value >= i128::from(i64::MIN)).then_some(value)
}

fn finite(text: &str) -> Option<f64> {
    text.parse().ok().filter(|number: &f64| number.is_finite())
}

fn go_word(text: &str) -> Option<Resolved<'static>> {
    match text {
        "y" | "Y" | "yes" | "Yes" | "YES" | "on" | "On" | "ON" => Some(Resolved::Bool(true)),
        "n" | "N" | "no" | "No" | "NO" | "off" | "Off" | "OFF" => Some(Resolved::Bool(false)),
        _ => None,
    }
}

fn go_number(text: &str) -> Option<Resolved<'static>> {
    if !text.starts_with(|first: char| first.is_ascii_digit() || "+-.".contains(first)) {
        return None;
    }
    let text = text.replace('_', "");
    go_integer(&text)
        .map(Resolved::Integer)
        .or_else(|| go_decimal(&text).map(Resolved::Float))
}

/// A whole number as parsed by Go's `strconv.ParseInt` with base 0: a leading 0 means octal.
pub fn go_integer(text: &str) -> Option<i128> {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    let lower = digits.to_ascii_lowercase();
    let (radix, rest) = match lower.get(..2) {
        Some("0x") => (16, &lower[2..]),
        Some("0o") => (8, &lower[2..]),
        Some("0b") => (2, &lower[2..]),
        Some(_) if lower.starts_with('0') => (8, &lower[1..]),
        _ => (10, lower.as_str()),
    };
    integer(rest, radix, text.starts_with('-'))
}

/// A number that matches the regular expression for floating point numbers in Go's libraries.
fn go_decimal(text: &str) -> Option<f64> {
    let is_of_a_number = |letter: char| letter.is_ascii_digit() || "+-.eE".contains(letter);
    text.chars().all(is_of_a_number).then(|| finite(text)).flatten()
}

//! Regular expressions in Go's syntax (its regexp/syntax, which is that of RE2), converted to
//! expressions of the crate `regex-automata`.
//!
//! Both run in linear time and share most of their syntax. This module rewrites the differences:
//! `\Q…\E`, octal numbers, `\p{^…}`, `\d`, `\s`, `\w` and `\b`, which are ASCII in Go, braces that
//! are not repetitions, and characters that are special only in the crate, such as `[` and `&&`
//! between brackets.

use std::iter::Peekable;
use std::str::Chars;

use regex_automata::nfa::thompson::{NFA, pikevm::PikeVM};
use regex_automata::util::syntax;

/// The most memory of one expression, in bytes.
const MAX_SIZE: usize = 4 << 20;

/// The names in `[:…:]`.
const NAMED: [&str; 14] = [
    "alnum", "alpha", "ascii", "blank", "cntrl", "digit", "graph", "lower", "print", "punct", "space",
    "upper", "word", "xdigit",
];

/// Go's limit of `x{n}`.
const MAX_REPEAT: u32 = 1000;

/// A compiled expression.
#[derive(Debug, Clone)]
pub struct GoRegex {
    machine: PikeVM,
}

impl GoRegex {
    /// Compiles an expression.
    ///
    /// # Errors
    ///
    /// Which part of it is not Go's syntax.
    pub(super) fn new(expression: &str) -> Result<Self, String> {
        let rewritten = rewrite(expression)?;
        let parsed = syntax::parse(&rewritten).map_err(|error| {
            // The error is in the last line; the other lines show its position in the rewritten
            // expression.
            let text = error.to_string();
            let last = text.lines().last().unwrap_or_default();
            last.trim_start_matches("error: ").to_owned()
        })?;
        let limited = NFA::config().nfa_size_limit(Some(MAX_SIZE));
        let states = NFA::compiler().configure(limited).build_from_hir(&parsed);
        let machine = states
            .and_then(PikeVM::new_from_nfa)
            .map_err(|error| error.to_string())?;
        Ok(Self { machine })
    }

    /// Whether it matches anywhere in a text.
    pub fn is_match(&self, text: &str) -> bool {
        self.machine.is_match(&mut self.machine.create_cache(), text)
    }
}

fn rewrite(expression: &str) -> Result<String, String> {
    let mut out = String::new();
    let mut letters = expression.chars().peekable();
    while let Some(letter) = letters.next() {
        match letter {
            '\\' => escape(&mut letters, &mut out)?,
            '[' => class(&mut letters, &mut out)?,
            '(' => group(&mut letters, &mut out)?,
            '{' => repeat(&mut letters, &mut out)?,
            ']' | '}' => literal(letter, &mut out),
            letter => out.push(letter),
        }
    }
    Ok(out)
}

/// A literal character.
fn literal(letter: char, out: &mut String) {
    // With a backslash, these two would be word boundaries.
    if letter.is_ascii_punctuation() && !['<', '>'].contains(&letter) {
        out.push('\\');
    }
    out.push(letter);
}

/// Parses what follows a `\` outside brackets.
fn escape(letters: &mut Peekable<Chars<'_>>, out: &mut String) -> Result<(), String> {
    match letters.peek() {
        Some('Q') => {
            let rest: String = letters.clone().skip(1).collect();
            let quoted = rest.split_once("\\E").map_or(rest.as_str(), |(quoted, _)| quoted);
            quoted.chars().for_each(|letter| literal(letter, out));
            let taken = 1 + quoted.chars().count() + "\\E".len();
            letters.by_ref().take(taken).for_each(drop);
            Ok(())
        }
        Some(letter @ ('A' | 'z')) => {
            out.extend(['\\', *letter]);
            letters.next();
            Ok(())
        }
        Some(letter @ ('b' | 'B')) => {
            out.push_str(&format!("(?-u:\\{letter})"));
            letters.next();
            Ok(())
        }
        _ => match set(letters)? {
            Some(set) => {
                out.push_str(&set);
                Ok(())
            }
            None => {
                let letter = character(letters)?;
                literal(letter, out);
                Ok(())
            }
        },
    }
}

/// Parses a set of characters after a `\`: `\d`, `\pL`, `\p{Greek}`.
fn set(letters: &mut Peekable<Chars<'_>>) -> Result<Option<String>, String> {
    let known = match letters.peek() {
        Some('d') => "[0-9]",
        Some('D') => "[^0-9]",
        Some('s') => "[\\t\\n\\f\\r ]",
        Some('S') => "[^\\t\\n\\f\\r ]",
        Some('w') => "[0-9A-Za-z_]",
        Some('W') => "[^0-9A-Za-z_]",
        Some('p' | 'P') => {
            let is_negated = letters.next() == Some('P');
            return property(letters, is_negated).map(Some);
        }
        _ => return Ok(None),
    };
    letters.next();
    Ok(Some(known.to_owned()))
}

/// Parses what follows `\p` or `\P`.
fn property(letters: &mut Peekable<Chars<'_>>, mut is_negated: bool) -> Result<String, String> {
    let name: String = match letters.next() {
        Some('{') => {
            let name = braced(letters)?;
            match name.strip_prefix('^') {
                Some(name) => {
                    is_negated = !is_negated;
                    name.to_owned()
                }
                None => name,
            }
        }
        Some(letter) => letter.to_string(),
        None => return Err("nothing follows its \\p".to_owned()),
    };
    let is_name = !name.is_empty()
        && name
            .chars()
            .all(|letter| letter.is_ascii_alphanumeric() || letter == '_');
    if !is_name {
        return Err(format!("\\p{{{name}}} is not a class of characters"));
    }
    let letter = if is_negated { 'P' } else { 'p' };
    Ok(format!("\\{letter}{{{name}}}"))
}

/// Parses a single character after a `\`.
fn character(letters: &mut Peekable<Chars<'_>>) -> Result<char, String> {
    let letter = letters.next().ok_or("nothing follows its last \\")?;
    let unknown = || format!("\\{letter} is not part of Go's syntax");
    match letter {
        'a' => Ok('\x07'),
        'f' => Ok('\x0c'),
        'n' => Ok('\n'),
        'r' => Ok('\r'),
        't' => Ok('\t'),
        'v' => Ok('\x0b'),
        'x' => {
            let digits: String = match letters.next_if_eq(&'{') {
                Some(_) => braced(letters)?,
                None => letters.by_ref().take(2).collect(),
            };
            let value = u32::from_str_radix(&digits, 16).ok();
            value.and_then(char::from_u32).ok_or_else(unknown)
        }
        '0'..='7' => {
            // A single digit would be a back reference.
            if letter != '0' && !matches!(letters.peek(), Some('0'..='7')) {
                return Err(unknown());
            }
            let mut value = letter.to_digit(8).unwrap_or_default();
            for _ in 0..2 {
                let Some(digit) = letters.next_if(|letter| ('0'..='7').contains(letter)) else {
                    break;
                };
                value = value * 8 + digit.to_digit(8).unwrap_or_default();
            }
            char::from_u32(value).ok_or_else(unknown)
        }
        letter if letter.is_ascii() && !letter.is_ascii_alphanumeric() => Ok(letter),
        _ => Err(unknown()),
    }
}

/// Parses what follows a `(`: an ordinary group, a name, or flags.
fn group(letters: &mut Peekable<Chars<'_>>, out: &mut String) -> Result<(), String> {
    out.push('(');
    if letters.next_if_eq(&'?').is_none() {
        return Ok(());
    }
    out.push('?');
    let rest: String = letters.clone().take(2).collect();
    if rest == "<=" || rest == "<!" || rest.starts_with(['=', '!']) {
        return Err(format!(
            "(?{rest} looks around, which Go's regular expressions do not support"
        ));
    }
    if rest == "P<" || rest.starts_with('<') {
        return Ok(());
    }
    for letter in letters.by_ref() {
        out.push(letter);
        match letter {
            'i' | 'm' | 's' | 'U' | '-' => {}
            ':' | ')' => return Ok(()),
            other => return Err(format!("(?{other} is not part of Go's syntax")),
        }
    }
    Err("its last ( has no )".to_owned())
}

/// Parses what follows a `{`: a repetition, or a literal brace.
fn repeat(letters: &mut Peekable<Chars<'_>>, out: &mut String) -> Result<(), String> {
    let rest: String = letters.clone().take_while(|letter| *letter != '}').collect();
    let is_closed = letters.clone().nth(rest.chars().count()) == Some('}');
    let (least, most) = match rest.split_once(',') {
        Some((least, most)) => (least, Some(most)),
        None => (rest.as_str(), None),
    };
    let is_number = |text: &str| !text.is_empty() && text.chars().all(|digit| digit.is_ascii_digit());
    let is_repeat =
        is_closed && is_number(least) && most.is_none_or(|most| most.is_empty() || is_number(most));
    if !is_repeat {
        literal('{', out);
        return Ok(());
    }
    let is_few = |text: &str| text.parse::<u32>().is_ok_and(|number| number <= MAX_REPEAT);
    if !is_few(least) || most.is_some_and(|most| !most.is_empty() && !is_few(most)) {
        return Err(format!("{{{rest}}} repeats more than {MAX_REPEAT} times"));
    }
    out.push_str(&format!("{{{rest}}}"));
    letters.by_ref().take(rest.chars().count() + 1).for_each(drop);
    Ok(())
}

/// Why a class without an end is rejected.
const OPEN_CLASS: &str = "its [ has no ]";

/// Parses what follows a `[`.
fn class(letters: &mut Peekable<Chars<'_>>, out: &mut String) -> Result<(), String> {
    out.push('[');
    if letters.next_if_eq(&'^').is_some() {
        out.push('^');
    }
    let mut is_first = true;
    loop {
        match letters.next().ok_or(OPEN_CLASS)? {
            ']' if !is_first => {
                out.push(']');
                return Ok(());
            }
            '[' if named(letters).is_some() => {
                let name = named(letters).unwrap_or_default();
                if !NAMED.contains(&name.trim_start_matches('^')) {
                    return Err(format!("[:{name}:] is not a class of characters"));
                }
                out.push_str(&format!("[:{name}:]"));
                letters
                    .by_ref()
                    .take(name.chars().count() + ":::".len())
                    .for_each(drop);
            }
            letter => member(letter, letters, out)?,
        }
        is_first = false;
    }
}

/// Parses a member of a class that begins with this letter: a character, a range, or a set such as
/// `\d`.
fn member(letter: char, letters: &mut Peekable<Chars<'_>>, out: &mut String) -> Result<(), String> {
    let low = match letter {
        '\\' => match set(letters)? {
            Some(set) => {
                out.push_str(&set);
                return Ok(());
            }
            None => character(letters)?,
        },
        letter => letter,
    };
    literal(low, out);
    let mut ahead = letters.clone();
    if ahead.next() == Some('-') && ahead.peek().is_some_and(|letter| *letter != ']') {
        letters.next();
        let high = match letters.next().ok_or(OPEN_CLASS)? {
            '\\' => character(letters)?,
            letter => letter,
        };
        out.push('-');
        literal(high, out);
    }
    Ok(())
}

/// The name in `[:alpha:]` and the like, after the `[`.
fn named(letters: &Peekable<Chars<'_>>) -> Option<String> {
    let rest: String = letters.clone().collect();
    let (name, _) = rest.strip_prefix(':')?.split_once(":]")?;
    Some(name.to_owned())
}

/// The content of braces, after the `{`.
fn braced(letters: &mut Peekable<Chars<'_>>) -> Result<String, String> {
    let mut text = String::new();
    for letter in letters.by_ref() {
        if letter == '}' {
            return Ok(text);
        }
        text.push(letter);
    }
    Err("its last { has no }".to_owned())
}

#[cfg(test)]
mod tests;

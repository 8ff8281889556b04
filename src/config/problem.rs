//! What is wrong with a configuration, and where.

use std::fmt;

use super::positions::{Position, Positions, Unreadable, join};

/// Everything that is wrong with one configuration.
#[derive(Debug)]
pub struct ConfigError {
    /// The file's name as it was given; empty when all came from the command line.
    source: String,
    /// The file's lines, to show the one that is meant.
    lines: Vec<String>,
    problems: Vec<Problem>,
}

#[derive(Debug)]
struct Problem {
    at: Option<Position>,
    /// The key path, or the command line's option.
    key: String,
    message: String,
}

/// Collects problems, and knows where keys stand.
pub(crate) struct Problems<'a> {
    pub(super) positions: &'a Positions,
    /// Keys whose values came from elsewhere, and that place's name for them.
    pub(super) overridden: &'a [(&'static str, &'static str)],
    found: Vec<Problem>,
}

impl<'a> Problems<'a> {
    pub(crate) fn new(
        positions: &'a Positions,
        overridden: &'a [(&'static str, &'static str)],
    ) -> Self {
        Self { positions, overridden, found: Vec::new() }
    }

    /// Notes that the value of `key` is wrong.
    pub(crate) fn add(&mut self, key: &str, message: impl Into<String>) {
        let flag = self.overridden.iter().find(|(path, _)| *path == key);
        let (at, key) = match flag {
            Some((_, flag)) => (None, *flag),
            None => (self.positions.value_at(key), key),
        };
        self.found.push(Problem { at, key: key.to_owned(), message: message.into() });
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    pub(crate) fn into_error(mut self, source: &str, text: &str) -> ConfigError {
        self.found.sort_by_key(|problem| problem.at.map(|at| (at.line, at.column)));
        ConfigError::new(source, text, self.found)
    }
}

/// The lines as YAML counts them: one may end in CR alone.
pub(super) fn lines(text: &str) -> impl Iterator<Item = &str> {
    text.split('\n').flat_map(|line| line.strip_suffix('\r').unwrap_or(line).split('\r'))
}

/// The nearest place within the text: readers of YAML may count further, as where it does not end in a line's end.
fn within(text: &str, at: Position) -> Position {
    let Some((n, line)) = lines(text).enumerate().take(at.line).last() else { return at };
    let end = line.chars().count() + 1;
    let column = if n + 1 < at.line { end } else { at.column.min(end) };
    Position { line: n + 1, column }
}

/// The place of what has so many bytes before it.
fn position(text: &str, before: usize) -> Position {
    let before = text.get(..before).unwrap_or(text);
    let last = lines(before).last().unwrap_or_default();
    Position { line: lines(before).count(), column: last.chars().count() + 1 }
}

/// The text with the secret part of each capability left out: one may stand in the place of its file.
fn without_caps(text: &str) -> String {
    let is_secret = |c: char| c.is_ascii_alphanumeric() || ":-%_".contains(c);
    let (mut shown, mut rest) = (String::new(), text);
    while let Some(at) = rest.find("URI") {
        let (before, after) = rest.split_at(at + "URI".len());
        shown.push_str(before);
        rest = after;
        // As it stands in a URL, too.
        let secret = [":", "%3A", "%3a"].iter().find_map(|colon| after.strip_prefix(colon));
        if let Some(secret) = secret.filter(|secret| secret.starts_with(is_secret)) {
            shown.push_str(":…");
            rest = secret.trim_start_matches(is_secret);
        }
    }
    shown + rest
}

impl ConfigError {
    fn new(source: &str, text: &str, mut problems: Vec<Problem>) -> Self {
        let lines: Vec<String> = lines(text).map(without_caps).collect();
        for Problem { at, key, message } in &mut problems {
            (*key, *message) = (without_caps(key), without_caps(message));
            *at = at.map(|at| within(text, at));
        }
        Self { source: source.to_owned(), lines, problems }
    }

    /// A problem with the file as a whole.
    pub(crate) fn whole(source: &str, message: String) -> Self {
        Self::new(source, "", vec![Problem { at: None, key: String::new(), message }])
    }

    /// A text that is not UTF-8.
    pub(super) fn not_utf8(source: &str, bytes: &[u8], valid: usize) -> Self {
        let text = String::from_utf8_lossy(bytes.get(..valid).unwrap_or_default());
        let at = Some(position(&text, text.len()));
        let message = "not UTF-8 from here on; save the file as UTF-8".to_owned();
        Self::new(source, &text, vec![Problem { at, key: String::new(), message }])
    }

    pub(super) fn unreadable(source: &str, text: &str, why: Unreadable) -> Self {
        let (at, key, message) = match why {
            Unreadable::Empty => {
                let message = "the file is empty; expected at least one section, such as `node:` \
                               (without -c every setting has its default)";
                return Self::whole(source, message.to_owned());
            }
            Unreadable::Syntax(at, what) => {
                (at, String::new(), format!("not YAML: {what}{}", quoting_hint(text, at.line)))
            }
            Unreadable::Twice(at, key) => (at, key, "the key stands here a second time".to_owned()),
            Unreadable::Deep(at) => {
                (at, String::new(), "nested too deeply; no configuration is".to_owned())
            }
        };
        Self::new(source, text, vec![Problem { at: Some(at), key, message }])
    }

    /// An error of the YAML reader, made precise with the positions of the second pass.
    pub(super) fn shape(
        source: &str,
        text: &str,
        positions: &Positions,
        error: &serde_yaml::Error,
    ) -> Self {
        let said = error.to_string();
        let place = error.location();
        let said = match said.rsplit_once(" at line ") {
            Some((said, _)) if place.is_some() => said,
            _ => &said,
        };
        let is_path = |path: &str| {
            !path.is_empty()
                && path.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-.[]".contains(&b))
        };
        let (path, said) = match said.split_once(": ") {
            Some((path, rest)) if is_path(path) => (path, rest),
            _ => ("", said),
        };
        // Its own lines end at more than ours do, so the bytes are counted.
        let reported = place.map(|at| position(text, at.index()));
        let unknown = said.strip_prefix("unknown field `").and_then(|rest| rest.split_once('`'));
        let (at, key, message) = match unknown {
            Some((field, rest)) => {
                let key = join(path, field);
                let expected = rest.trim_start_matches(", ").replace('`', "");
                (positions.key_at(&key).or(reported), key, format!("unknown key; {expected}"))
            }
            None => (reported, path.to_owned(), sections(said)),
        };
        Self::new(source, text, vec![Problem { at, key, message }])
    }
}

/// serde speaks of Rust's types; people know sections.
fn sections(said: &str) -> String {
    match said.split_once("expected struct ") {
        Some((before, rest)) => {
            let after = rest.trim_start_matches(|c: char| c.is_ascii_alphanumeric());
            format!("{before}expected a section of keys and values{after}")
        }
        None => said.replace("unit value", "nothing"),
    }
}

/// `agent: [::1]:5290` is a list to YAML, and then nonsense.
fn quoting_hint(text: &str, line: usize) -> &'static str {
    let near = |n: usize| lines(text).nth(n.wrapping_sub(1)).unwrap_or_default();
    let bracketed = |line: &str| line.contains('[') && line.contains("]:");
    if bracketed(near(line)) || bracketed(near(line.wrapping_sub(1))) {
        "; an IPv6 address must be quoted: \"[::1]:5290\""
    } else {
        ""
    }
}

#[cfg(any(test, feature = "fuzzing"))]
impl ConfigError {
    /// The line and the column of each problem, where it has a place.
    pub(super) fn places(&self) -> impl Iterator<Item = Option<(usize, usize)>> {
        self.problems.iter().map(|problem| problem.at.map(|at| (at.line, at.column)))
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, problem) in self.problems.iter().enumerate() {
            if n > 0 {
                writeln!(f)?;
            }
            if !self.source.is_empty() {
                f.write_str(&self.source)?;
                if let Some(at) = problem.at {
                    write!(f, ":{}:{}", at.line, at.column)?;
                }
                f.write_str(": ")?;
            }
            if !problem.key.is_empty() {
                write!(f, "{}: ", problem.key)?;
            }
            f.write_str(&problem.message)?;
            if let Some(at) = problem.at
                && let Some(line) = self.lines.get(at.line.wrapping_sub(1))
            {
                caret(f, line, at)?;
            }
        }
        Ok(())
    }
}

/// Shows the line, and a caret below the column; a long line is cut around it.
fn caret(f: &mut fmt::Formatter<'_>, line: &str, at: Position) -> fmt::Result {
    const WIDTH: usize = 100;
    let column = at.column.saturating_sub(1);
    let skip = column.saturating_sub(WIDTH / 2);
    let shown: String =
        line.chars().skip(skip).take(WIDTH).map(|c| if c.is_control() { ' ' } else { c }).collect();
    let number = at.line.to_string();
    write!(
        f,
        "\n  {number} | {shown}\n  {:w$} | {:c$}^",
        "",
        "",
        w = number.len(),
        c = column - skip
    )
}

impl std::error::Error for ConfigError {}

#[cfg(test)]
mod tests {
    use super::super::{Config, Sources};
    use super::*;

    #[test]
    fn capabilities_are_left_out_however_they_are_written() {
        for (text, shown) in [
            ("a URI:CHK:abc:2 b", "a URI:… b"),
            ("http://h/uri/URI%3ADIR2%3Aabc/f?URI%3aLIT%3aa", "http://h/uri/URI:…/f?URI:…"),
            ("URI:CHK:URI:abc", "URI:…"),
            ("URI: of URI, URI", "URI: of URI, URI"),
        ] {
            assert_eq!(without_caps(text), shown);
        }
    }

    #[test]
    fn mistakes_have_their_places_in_the_text() {
        for (text, place) in [
            ("a: |\n  b\n$", "f:3:2: "),
            ("a: [b\n", "f:2:1: "),
            ("a: [b", "f:1:6: "),
            ("# a\n%\u{85}b \0", "f:2:6: "),
            // Where an older YAML has a line end.
            ("# ä\u{85}ö\r\nnode: here\n", "f:1:5: "),
        ] {
            let error = Config::parse("f", text, &Sources::default()).unwrap_err().to_string();
            assert!(error.starts_with(place), "{error}");
        }
    }
}

//! Where each key and value of a YAML text stands: a second pass, by a parser of events.

use std::collections::HashMap;

use saphyr_parser::{Event, Marker, Parser, ScanError};

/// A place in a text; both count from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Position {
    pub(super) line: usize,
    pub(super) column: usize,
}

impl From<&Marker> for Position {
    fn from(marker: &Marker) -> Self {
        Self { line: marker.line(), column: marker.col() + 1 }
    }
}

/// The positions of every key path, such as `services.write.maxconn` or `listen.agent[1]`.
#[derive(Debug, Default)]
pub(crate) struct Positions {
    keys: HashMap<String, Position>,
    values: HashMap<String, Position>,
}

/// A text that no configuration is written as.
#[derive(Debug)]
pub(super) enum Unreadable {
    /// Not YAML.
    Syntax(Position, String),
    /// A key stands twice in one mapping.
    Twice(Position, String),
    /// Deeper than any configuration.
    Deep(Position),
    /// Nothing but white space and comments.
    Empty,
}

/// Far deeper than the format, and far shallower than what a recursive reader would choke on.
const DEPTH: usize = 32;

enum Open {
    /// The path of the mapping, and the key whose value comes next.
    Mapping(String, Option<String>),
    /// The path of the sequence, and the index that comes next.
    Sequence(String, usize),
}

impl Positions {
    /// Reads a text.
    pub(super) fn of(text: &str) -> Result<Self, Unreadable> {
        let mut positions = Self::default();
        let mut open: Vec<Open> = Vec::new();
        let mut empty = true;
        for event in Parser::new_from_str(text) {
            let (event, span) = event.map_err(|e| syntax(&e))?;
            let at = Position::from(&span.start);
            match event {
                Event::Scalar(scalar, ..) => {
                    if let Some(Open::Mapping(path, key @ None)) = open.last_mut() {
                        let path = join(path, &scalar);
                        if positions.keys.insert(path.clone(), at).is_some() {
                            return Err(Unreadable::Twice(at, path));
                        }
                        *key = Some(path);
                    } else {
                        empty &= open.is_empty() && scalar.trim_matches('~').is_empty();
                        positions.value(&mut open, at);
                    }
                }
                Event::Alias(_) => {
                    empty = false;
                    positions.value(&mut open, at);
                }
                Event::MappingStart(..) | Event::SequenceStart(..) => {
                    empty = false;
                    if open.len() >= DEPTH {
                        return Err(Unreadable::Deep(at));
                    }
                    let path = positions.value(&mut open, at);
                    open.push(match event {
                        Event::MappingStart(..) => Open::Mapping(path, None),
                        _ => Open::Sequence(path, 0),
                    });
                }
                Event::MappingEnd | Event::SequenceEnd => {
                    open.pop();
                }
                _ => {}
            }
        }
        if empty { Err(Unreadable::Empty) } else { Ok(positions) }
    }

    /// Notes that a value stands at `at`, and returns its path.
    fn value(&mut self, open: &mut [Open], at: Position) -> String {
        let path = match open.last_mut() {
            None => return String::new(),
            Some(Open::Mapping(_, key)) => key.take().unwrap_or_default(),
            Some(Open::Sequence(path, next)) => {
                *next += 1;
                format!("{path}[{}]", *next - 1)
            }
        };
        self.values.insert(path.clone(), at);
        path
    }

    /// Where the value of this key path stands; of the nearest key above it, when it is not there.
    pub(super) fn value_at(&self, path: &str) -> Option<Position> {
        let mut path = path;
        loop {
            if let Some(at) = self.values.get(path) {
                return Some(*at);
            }
            path = &path[..path.rfind(['.', '['])?];
        }
    }

    /// Where this key itself stands.
    pub(super) fn key_at(&self, path: &str) -> Option<Position> {
        self.keys.get(path).copied()
    }
}

/// The path of `key` in the mapping at `path`.
pub(super) fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

fn syntax(error: &ScanError) -> Unreadable {
    Unreadable::Syntax(error.marker().into(), error.info().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_and_values_are_found() {
        let text =
            "node:\n  every: 1s\nlisten:\n  agent:\n    - a:1\n    - b:2\nlog: {level: info}\n";
        let positions = Positions::of(text).unwrap();
        let at = |line, column| Some(Position { line, column });
        assert_eq!(positions.value_at("node.every"), at(2, 10));
        assert_eq!(positions.key_at("node.every"), at(2, 3));
        assert_eq!(positions.value_at("listen.agent[1]"), at(6, 7));
        assert_eq!(positions.value_at("log.level"), at(7, 14));
        assert_eq!(positions.value_at("log.format"), at(7, 6), "the mapping that lacks it");
    }

    #[test]
    fn what_is_no_configuration_is_told_apart() {
        let of = |text: &str| Positions::of(text).unwrap_err();
        for text in ["", "\n", "# only this\n", "---\n", "~"] {
            assert!(matches!(of(text), Unreadable::Empty), "{text:?}");
        }
        assert!(matches!(
            of("a: 1\nb: 2\na: 3\n"),
            Unreadable::Twice(Position { line: 3, column: 1 }, _)
        ));
        assert!(matches!(of(&"[".repeat(100)), Unreadable::Deep(_)));
        // Far deeper, the parser itself refuses.
        assert!(matches!(of(&"[".repeat(100_000)), Unreadable::Deep(_) | Unreadable::Syntax(..)));
        assert!(matches!(of("a: [1\nb: 2"), Unreadable::Syntax(..)));
    }
}

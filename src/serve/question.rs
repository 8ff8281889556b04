//! What a balancer asks on the agent port: `SERVICE[ key=value]…`.

use std::time::Duration;

use super::words::printable;

/// A question, read.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Question<'a> {
    /// The service; empty for the default one.
    pub(super) service: &'a str,
    /// Whether the balancer's own admin state is to be left alone.
    pub(super) keep_admin: bool,
    /// How long the answer may be held until something changes.
    pub(super) hold: Option<Duration>,
    /// The options that were not understood, as they may be shown.
    pub(super) ignored: Option<String>,
}

/// The longest time that an answer is held.
const MOST_HOLD: Duration = Duration::from_mins(1);

impl<'a> Question<'a> {
    /// Reads a line, without its end. Words that are not understood do not spoil the others: a
    /// newer haproxy.cfg must never take a farm out.
    pub(super) fn parse(line: &'a str) -> Self {
        let mut question = Self { service: "", keep_admin: false, hold: None, ignored: None };
        for (n, word) in line.split_ascii_whitespace().enumerate() {
            match word.split_once('=') {
                Some(("admin", "keep")) => question.keep_admin = true,
                // A label for metrics: BACKEND/SERVER.
                Some(("as", label)) if !label.is_empty() && label.len() <= 128 => {}
                Some(("hold", time)) => match humantime::parse_duration(time) {
                    Ok(time) if time > Duration::ZERO && time <= MOST_HOLD => {
                        question.hold = Some(time);
                    }
                    _ => question.ignore(word),
                },
                None if n == 0 => question.service = word,
                _ => question.ignore(word),
            }
        }
        question
    }

    fn ignore(&mut self, word: &str) {
        self.ignored.get_or_insert_with(|| printable(word, 40));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn question(service: &str) -> Question<'_> {
        Question { service, keep_admin: false, hold: None, ignored: None }
    }

    #[test]
    fn questions_are_read() {
        let hold = Some(Duration::from_secs(9));
        for (line, expected) in [
            ("", question("")),
            ("write", question("write")),
            ("  write  as=be_write/gw1 ", question("write")),
            ("read admin=keep", Question { keep_admin: true, ..question("read") }),
            ("read hold=9s", Question { hold, ..question("read") }),
            ("hold=9s", Question { hold, ..question("") }),
        ] {
            assert_eq!(Question::parse(line), expected, "{line}");
        }
    }

    #[test]
    fn what_is_not_understood_is_ignored_and_named() {
        for (line, ignored) in [
            ("read colour=blue admin=keep", "colour=blue"),
            ("read admin=take", "admin=take"),
            ("read hold=soon", "hold=soon"),
            ("read hold=61s", "hold=61s"),
            ("read hold=0s", "hold=0s"),
            ("read as=", "as="),
            ("read write", "write"),
            ("read \u{7f}=\u{e9}", "?=?"),
        ] {
            let question = Question::parse(line);
            assert_eq!((question.service, question.ignored.as_deref()), ("read", Some(ignored)));
        }
        assert!(Question::parse("read colour=blue admin=keep").keep_admin);
    }
}

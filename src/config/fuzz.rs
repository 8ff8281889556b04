//! The configuration.

use super::problem::lines;
use super::{Config, ConfigError, Sources};

/// A configuration file.
pub(crate) fn config(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else { return };
    let parse = |text: &str| Config::parse("hcf.yaml", text, &Sources::default());
    match parse(text) {
        Ok(config) => {
            let shown = config.show();
            match parse(&shown) {
                Ok(again) => {
                    assert_eq!(config.effective, again.effective, "{shown}");
                    assert_eq!(config.hash(), again.hash());
                }
                Err(e) => panic!("what is in force is no configuration: {e}\n{shown}"),
            }
        }
        Err(e) => is_placed(&e, text),
    }
}

/// What is said of a file names places within it, and no secret.
pub(crate) fn is_placed(error: &ConfigError, text: &str) {
    let lines: Vec<usize> = lines(text).map(|line| line.chars().count()).collect();
    let mut places = error.places().peekable();
    assert!(places.peek().is_some(), "nothing is wrong");
    for (line, column) in places.flatten() {
        // One beyond a line is its end.
        let width = lines.get(line.wrapping_sub(1));
        assert!(width.is_some_and(|w| (1..=w + 1).contains(&column)), "{line}:{column}: {error}");
    }
    let said = error.to_string();
    for colon in ["URI:", "URI%3A", "URI%3a"] {
        let mut after = said.split(colon).skip(1);
        let secret = |after: &str| after.starts_with(|c: char| c.is_ascii_alphanumeric());
        assert!(!after.any(secret), "a secret is shown: {said}");
    }
}

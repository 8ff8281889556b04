//! The file in which the book is kept: JSON that people can read, with a checksum that shows rot and tears.

use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::spoken::Spoken;
use super::{Book, Entry, Expiry, Now, time};

/// The most bytes of a file: many times what a full book takes.
pub(super) const MOST: u64 = 4 << 20;
/// Other programs of this name may keep more, which this one must not lose.
const VERSION: u32 = 1;

#[derive(Serialize, Deserialize)]
struct Sealed {
    /// Of the bytes of `kept`, in hexadecimal.
    crc32: String,
    kept: Box<RawValue>,
}

#[derive(Serialize, Deserialize)]
struct Kept {
    version: u32,
    /// Counts what was ever kept here.
    generation: u64,
    lost: bool,
    overrides: Vec<Line>,
}

#[derive(Serialize, Deserialize)]
struct Line {
    service: String,
    owner: String,
    #[serde(flatten)]
    word: Spoken,
    reason: String,
    by: String,
    #[serde(with = "time::wall")]
    since: SystemTime,
    expiry: Expiry,
}

impl From<&Entry> for Line {
    fn from(entry: &Entry) -> Self {
        Self {
            service: entry.service.to_string(),
            owner: entry.owner.to_string(),
            word: entry.word.into(),
            reason: entry.reason.to_string(),
            by: entry.by.to_string(),
            since: entry.since,
            expiry: entry.expiry.clone(),
        }
    }
}

impl From<Line> for Entry {
    fn from(line: Line) -> Self {
        Self {
            service: line.service.into(),
            owner: line.owner.into(),
            word: line.word.into(),
            reason: line.reason.into(),
            by: line.by.into(),
            since: line.since,
            expiry: line.expiry,
        }
    }
}

fn checksum(kept: &RawValue) -> String {
    format!("{:08x}", crc32fast::hash(kept.get().as_bytes()))
}

/// The bytes that keep a book.
pub(super) fn write(book: &Book, generation: u64) -> serde_json::Result<Vec<u8>> {
    let overrides = book.entries().map(Line::from).collect();
    let kept = Kept { version: VERSION, generation, lost: book.is_lost(), overrides };
    let kept = serde_json::value::to_raw_value(&kept)?;
    let mut bytes = serde_json::to_vec(&Sealed { crc32: checksum(&kept), kept })?;
    bytes.push(b'\n');
    Ok(bytes)
}

/// Bytes whose checksum is right, whatever they keep; `None` where that is not JSON.
#[cfg(any(test, feature = "fuzzing"))]
pub(super) fn seal(kept: &str) -> Option<Vec<u8>> {
    let kept = RawValue::from_string(kept.to_owned()).ok()?;
    serde_json::to_vec(&Sealed { crc32: checksum(&kept), kept }).ok()
}

/// The book that was kept, and its generation; or why the bytes cannot be trusted.
pub(super) fn read(bytes: &[u8], now: &Now) -> Result<(Book, u64), String> {
    let sealed: Sealed = serde_json::from_slice(bytes).map_err(|e| format!("it is torn: {e}"))?;
    if checksum(&sealed.kept) != sealed.crc32 {
        return Err("its checksum is wrong".to_owned());
    }
    let strange = |e: serde_json::Error| format!("another version of hcf wrote it: {e}");
    let kept: Kept = serde_json::from_str(sealed.kept.get()).map_err(strange)?;
    if kept.version != VERSION {
        return Err(format!("a newer hcf wrote it, in version {} of the format", kept.version));
    }
    let entries = kept.overrides.into_iter().map(Entry::from).collect();
    Ok((Book::restored(kept.lost, entries, now), kept.generation))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::super::{Lasting, Request};
    use super::*;
    use crate::health::{Weight, Word};

    fn now() -> Now {
        Now { boot_id: "one".into(), ..Now::read() }
    }

    fn book(now: &Now) -> Book {
        let mut book = Book::default();
        let words = [Word::Maint, Word::Down, Word::Drain, Word::Up, Word::Weight(Weight::LEAST)];
        for (n, word) in words.into_iter().enumerate() {
            let hour = Duration::from_hours(1);
            let expiry =
                [Lasting::Never, Lasting::For(hour), Lasting::Until(now.wall + hour)][n % 3];
            let request = Request {
                services: vec![format!("s{n}").into()],
                owner: "ann".into(),
                word,
                reason: "\"umlauts\" äöü \\ and 🦀".into(),
                by: "root (uid 0)".into(),
                expiry,
            };
            book.set(&request, now).unwrap();
        }
        book
    }

    #[test]
    fn what_is_read_is_what_was_written() {
        let now = now();
        for book in [book(&now), Book::default(), Book::lost()] {
            let bytes = write(&book, 7).unwrap();
            assert_eq!(read(&bytes, &now), Ok((book, 7)));
        }
    }

    #[test]
    fn another_format_is_not_guessed_at() {
        let sealed = seal(r#"{"version":2,"generation":1,"lost":false,"overrides":[]}"#).unwrap();
        let error = read(&sealed, &now()).unwrap_err();
        assert_eq!(error, "a newer hcf wrote it, in version 2 of the format");
    }

    proptest! {
        #[test]
        fn a_torn_file_is_never_read(cut in 0usize..1000) {
            let bytes = write(&book(&now()), 7).unwrap();
            // Without the last line feed it is whole.
            let cut = cut % (bytes.len() - 1);
            prop_assert!(read(&bytes[..cut], &now()).is_err());
        }

        #[test]
        fn a_changed_byte_never_changes_what_is_read(at in 0usize..10_000, bit in 0u8..8) {
            let now = now();
            let book = book(&now);
            let mut bytes = write(&book, 7).unwrap();
            let at = at % bytes.len();
            bytes[at] ^= 1 << bit;
            // White space outside of what is sealed is all that may change.
            if let Ok(read) = read(&bytes, &now) {
                prop_assert_eq!(read, (book, 7));
            }
        }
    }
}

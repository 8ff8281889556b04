//! The lines of a history.

use super::segments::{line, read};

/// Lines of a file.
pub(crate) fn history_lines(data: &[u8]) {
    let mut records = Vec::new();
    let bad = read(data, |record, length| {
        assert!(length <= data.len());
        records.push(record);
        true
    });
    assert!(bad.is_ok_and(|bad| bad + records.len() as u64 <= data.len() as u64));
    for record in records {
        // What was read can be written, and read again.
        let again = |record: &_| {
            let mut again = None;
            let line = line(record).unwrap_or_default();
            let bad = read(line.as_bytes(), |record, _| {
                again = Some(record);
                true
            });
            assert!(line.len() > 1 << 16 || bad.is_ok_and(|bad| bad == 0), "{line}");
            again
        };
        if let Some(first) = again(&record) {
            assert!(again(&first).is_some(), "{first:?}");
        }
    }
}

//! Orders: over the admin socket, as files, and as they are kept.

use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use super::folder::{Folder, Look, Sheet};
use super::{Book, Clear, Entry, Now, Put, Refused, Ruling, kept};

fn now(secs: u64) -> Now {
    let wall = UNIX_EPOCH + Duration::from_secs(1_795_527_780 + secs);
    Now { wall, boot: Duration::from_secs(1000 + secs), boot_id: "one".into() }
}

/// The body of an order.
pub(crate) fn admin_request(data: &[u8]) {
    let now = now(0);
    let put = match Put::parse(data, now.wall) {
        Ok(put) => put,
        Err(why) => return assert!(why.len() < data.len() * 8 + 300, "{why}"),
    };
    let services: Vec<Arc<str>> = vec!["read".into(), "write".into()];
    let request = put.request(services, "root (uid 0)".into());
    let mut book = Book::default();
    match book.set(&request, &now) {
        Ok(set) => assert_eq!(set.len(), 2),
        Err(Refused::Senseless(why)) => return assert!(why.contains("must be in the future")),
        Err(refused) => panic!("{refused}"),
    }
    assert!(book.entries().all(|entry| shows(entry) && !entry.expiry.is_over(&now)));
    keeps(&book, &now);
    let mut old = book.clone();
    old.clear(&Clear { services: None, owner: Some(request.owner), by: "root".into() });
    assert_eq!(old, Book::default(), "its owner can end it");
}

/// The same order, kept and read again.
fn keeps(book: &Book, now: &Now) {
    let bytes = kept::write(book, 7).unwrap_or_default();
    assert!(kept::read(&bytes, now) == Ok((book.clone(), 7)), "what is kept is read again");
}

/// What is shown of an order is whole, and on one line.
fn shows(entry: &Entry) -> bool {
    let odd = |text: &str| text.chars().any(char::is_control);
    let ruling = Ruling::new(1, false, vec![entry.clone()], Vec::new());
    let mut orders = ruling.services.values().flatten();
    entry.reason.chars().count() <= 200
        && !entry.reason.trim().is_empty()
        && !odd(&entry.to_string())
        && orders.next().is_some_and(|order| order.word == entry.word && !odd(&order.text))
        && serde_json::to_string(entry).is_ok()
}

/// A file of orders as it is written anew again and again; a zero byte stands between two versions.
pub(crate) fn order_file(data: &[u8]) {
    let mut folder = Folder::new("/state/override.d".into());
    let mut stood: Option<Entry> = None;
    for (n, text) in data.split(|b| *b == 0).take(20).enumerate() {
        let now = now(n as u64);
        let text = match str::from_utf8(text) {
            Ok(text) => Ok(text.to_owned()),
            Err(e) => Err(e.to_string()),
        };
        let sheet = Sheet { name: "write".to_owned(), written: now.wall, owner: 7, text };
        folder.take(Ok(Look { sheets: vec![sheet], more: false }), &now);
        let entry = folder.entries().next().cloned();
        let wrong = folder.notes().next().is_some();
        assert!(entry.as_ref().is_none_or(shows));
        if wrong {
            assert_eq!(entry, stood, "what makes no sense ends nothing");
        } else {
            assert!(entry.is_some(), "an order is in force, or something is wrong");
        }
        stood = entry;
    }
    folder.take(Ok(Look { sheets: Vec::new(), more: false }), &now(30));
    assert_eq!((folder.entries().count(), folder.notes().count()), (0, 0), "it is removed");
}

/// What the state directory holds: once as it is, once with a checksum that is right.
pub(crate) fn order_store(data: &[u8]) {
    let now = now(0);
    let sealed = str::from_utf8(data).ok().and_then(kept::seal);
    for bytes in [Some(data), sealed.as_deref()].into_iter().flatten() {
        let Ok((book, generation)) = kept::read(bytes, &now) else { continue };
        let again = kept::write(&book, generation).unwrap_or_default();
        assert!(kept::read(&again, &now) == Ok((book.clone(), generation)), "{book:?}");
    }
}

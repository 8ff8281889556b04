//! What the node sends, and what stands in its directory and in the files of capabilities.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, SystemTime};

use super::cap::{Cap, Caps};
use super::gridmanager;
use super::identity::{Shown, Started};
use super::page::Reader;
use super::{ManagerKey, NodeDir};
use crate::health::Moment;

/// The status page, read twice in a row.
pub(crate) fn status_page(data: &[u8]) {
    let mut reader = Reader::new(Duration::from_mins(4));
    let mut read =
        |secs| reader.read(data, Moment::after_epoch(Duration::from_secs(secs)), 1_795_527_780.0);
    let (first, second) = match (read(10), read(20)) {
        (Ok(first), Ok(second)) => (first, second),
        (Err(first), Err(second)) => {
            assert_eq!((first.kind, &first.text), (second.kind, &second.text));
            assert!(first.text.len() < 100, "nothing of the page is said: {}", first.text);
            return;
        }
        other => panic!("the same page is read in two ways: {other:?}"),
    };
    let introducers = first.introducers;
    assert!(introducers.connected <= introducers.configured && introducers.configured <= 4096);
    assert!(first.servers.len() <= 4096 && first.servers.is_sorted_by(|a, b| a.id < b.id));
    assert_eq!(first.servers.len(), second.servers.len());
    for (first, second) in first.servers.iter().zip(&second.servers) {
        assert!(first.silent <= second.silent, "time passes");
        let later = crate::health::Server { silent: first.silent, ..second.clone() };
        assert_eq!(*first, later, "and nothing else changes");
    }
}

/// What shows a node's identity: its welcome page, and what it wrote of its process.
pub(crate) fn welcome_page(data: &[u8]) {
    if let Some(shown) = Shown::on(data) {
        let said = [&b"title=\"TubID: "[..], shown.tub, b"\">", shown.key, b"<"].concat();
        assert!(data.windows(said.len()).any(|window| window == said));
        assert!(!shown.tub.contains(&b'"') && !shown.key.contains(&b'<'));
        if let (Ok(tub), Ok(key)) = (std::str::from_utf8(shown.tub), std::str::from_utf8(shown.key))
        {
            assert!(shown.is(tub, None) && !shown.is(&format!("{tub}x"), None));
            assert_eq!(shown.is(tub, Some(key)), !key.starts_with("pub-"));
        }
    }
    if let Ok(text) = std::str::from_utf8(data) {
        let _ = Started::parse(text);
    }
}

/// A node's `tahoe.cfg`.
pub(crate) fn tahoe_cfg(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let read = || NodeDir::parse(Path::new("/node"), text.to_owned());
    let dir = read();
    assert_eq!(dir, read(), "the same file says the same");
    let Ok(dir) = dir else { return };
    assert!(dir.keepalive.as_secs() > 0);
    assert!(dir.nickname.len() <= text.len() && dir.nickname.trim() == dir.nickname);
    if let Ok(target) = dir.web {
        assert!(!target.to_string().is_empty());
    }
}

/// A file of capabilities.
pub(crate) fn caps(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match Caps::parse("/the/file", text) {
        Err(why) => {
            let line = why.strip_prefix("/the/file, line ").map(|rest| rest.split(':').next());
            let line = line.flatten().and_then(|n| n.parse::<usize>().ok());
            let known = line.is_some_and(|n| (1..=text.lines().count()).contains(&n));
            assert!(known || why == "/the/file holds no capability", "{why}");
            assert!(why.len() < 100, "nothing of the file is said: {why}");
        }
        Ok(caps) => {
            assert!(!format!("{caps:?}").contains("URI"), "nothing of the file is shown");
            for cap in std::iter::once(&caps.read).chain(&caps.write) {
                let uri = cap.path().parse::<hyper::Uri>();
                assert!(uri.is_ok_and(|uri| uri.path() == &**cap.path() && uri.query().is_none()));
            }
            let write = caps.write.as_ref().unwrap_or(&caps.read);
            let kept = Caps::text(&caps.read, write);
            let again = Caps::parse("/the/file", &kept);
            assert!(again.is_ok_and(|again| again == caps), "what is kept is read again");
        }
    }
    let _ = Cap::parse(text);
}

/// A grid manager of tests, and the servers that it has certified.
const KEY: &str = "pub-v0-6s6sm4c65bnnlefpbfdquvy4wpgdsp73dvhz47rwunjrwd4ipeha";
const CERTIFIED: &str = include_str!("../../tests/data/tahoe/grid-manager-cache.yaml");

/// An introducer's cache: whatever it says, only what the grid manager has signed counts.
pub(crate) fn grid_manager(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let _ = ManagerKey::parse(text);
    let keys: Vec<ManagerKey> = ManagerKey::parse(KEY).into_iter().collect();
    let read = |text: &str| {
        let mut until: BTreeMap<Box<str>, SystemTime> = BTreeMap::new();
        gridmanager::read(text, &keys, &mut until).map(|()| until)
    };
    let signed = read(CERTIFIED).unwrap_or_default();
    assert_eq!(signed.len(), 3);
    for (id, until) in read(text).unwrap_or_default() {
        assert!(signed.get(&id).is_some_and(|last| until <= *last), "{id} was never certified");
    }
}

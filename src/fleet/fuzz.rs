//! The fleet file, and what sidecars say.

use super::Fleet;
use super::config::NODES;
use super::follow::{Events, News};
use crate::config::fuzz::is_placed;

/// A fleet file.
pub(crate) fn fleet(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else { return };
    match Fleet::parse("fleet.yaml", text) {
        Ok(fleet) => {
            assert!((1..=NODES).contains(&fleet.nodes.len()) && fleet.min_available <= 100);
            assert!(fleet.output.is_absolute() && !fleet.cluster.is_empty());
            assert!(fleet.nodes.is_sorted_by(|a, b| a.name < b.name && a.address != b.address));
        }
        Err(e) => is_placed(&e, text),
    }
}

/// A sidecar's stream of events; the first byte says how it is cut up.
pub(crate) fn fleet_events(data: &[u8]) {
    let Some((size, stream)) = data.split_first() else { return };
    let heard = |size: usize| {
        let (mut events, mut heard) = (Events::default(), Vec::new());
        for piece in stream.chunks(size) {
            events.push(piece);
            heard.extend(std::iter::from_fn(|| events.next()));
        }
        (heard, events.0.rest().to_vec())
    };
    let (said, rest) = heard(usize::from(*size) + 1);
    assert_eq!(
        (&said, &rest),
        (&heard(usize::MAX).0, &heard(usize::MAX).1),
        "the cuts do not matter"
    );
    for (news, counts) in said {
        assert!(counts.as_secs() <= 24 * 3600);
        assert!(matches!(news, News::Heard { .. }), "{news:?}");
    }
}

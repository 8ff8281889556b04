//! How many connections each listener and all gates may have.

use tokio::sync::Semaphore;

/// Connections that one HTTP listener serves at a time.
pub(super) const HTTP: usize = 1024;
/// More on the agent port: most of those that last are held questions.
pub(super) const AGENT: usize = 2048;

/// Fewer on the grpc port: a balancer keeps one or two for all that it asks, and each has room for streams.
pub(super) const GRPC: usize = 256;

/// Room for connections, so that all listeners together leave enough descriptors to look at the node by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Room {
    /// In each listener that answers questions.
    pub(super) listener: usize,
    /// In all gates together.
    pub(super) gates: usize,
}

impl Room {
    /// The room under this process's limit of open files.
    pub(super) fn here(listeners: usize, gates: bool) -> Self {
        let limit = rlimit::getrlimit(rlimit::Resource::NOFILE).map_or(1024, |(soft, _)| soft);
        Self::of(usize::try_from(limit).unwrap_or(usize::MAX), listeners, gates)
    }

    /// A gate's connections take two descriptors each, and gates take what there is; but never so much
    /// that balancers are not answered.
    fn of(limit: usize, listeners: usize, gates: bool) -> Self {
        const RESERVE: usize = 64;
        let all = limit.saturating_sub(RESERVE);
        let for_listeners = if gates { all / 12 } else { all.saturating_sub(2 * 8) };
        let listener = (for_listeners / listeners.max(1)).clamp(8, AGENT);
        let gates = all.saturating_sub(listener * listeners) / 2;
        Self { listener, gates: gates.clamp(8, Semaphore::MAX_PERMITS) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gates_have_what_others_leave() {
        assert_eq!(Room::of(1 << 20, 3, false).listener, AGENT);
        assert_eq!(Room::of(1024, 3, false).listener, 314);
        let room = Room::of(20_000, 4, true);
        assert!(room.gates >= 9_000, "{room:?}");
        for limit in [0, 64, 256, 1024, 20_000, 1 << 30] {
            for listeners in [0, 3, 5] {
                for gates in [false, true] {
                    let room = Room::of(limit, listeners, gates);
                    let taken = room.listener * listeners + 2 * room.gates;
                    assert!(taken + 64 <= limit.max(64 + 8 * (listeners + 2)), "{limit}: {room:?}");
                }
            }
        }
    }
}

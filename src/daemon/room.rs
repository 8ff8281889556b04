//! How many connections each listener and each gate may have.

/// Connections that one HTTP listener serves at a time.
pub(super) const HTTP: usize = 1024;
/// More on the agent port: most of those that last are held questions.
pub(super) const AGENT: usize = 2048;

/// Room for connections, so that all listeners together leave enough descriptors to look at the node by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Room {
    /// In each listener that answers questions.
    pub(super) listener: usize,
    /// In each gate.
    pub(super) gate: usize,
}

impl Room {
    /// The room under this process's limit of open files.
    pub(super) fn here(listeners: usize, gates: usize) -> Self {
        let limit = rlimit::getrlimit(rlimit::Resource::NOFILE).map_or(1024, |(soft, _)| soft);
        Self::of(usize::try_from(limit).unwrap_or(usize::MAX), listeners, gates)
    }

    /// A gate's connections take two descriptors each, and gates take what there is; but never so much
    /// that balancers are not answered.
    fn of(limit: usize, listeners: usize, gates: usize) -> Self {
        const RESERVE: usize = 64;
        let all = limit.saturating_sub(RESERVE);
        if gates == 0 {
            return Self { listener: (all / listeners.max(1)).max(8), gate: 0 };
        }
        let listener = (all / 12 / listeners.max(1)).clamp(8, AGENT);
        let gate = all.saturating_sub(listener * listeners) / 2 / gates;
        Self { listener, gate: gate.max(8) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gates_have_what_others_leave() {
        assert_eq!(Room::of(1 << 20, 3, 0).listener, 349_504);
        let room = Room::of(20_000, 3, 1);
        assert!(room.gate >= 9_000, "{room:?}");
        for limit in [0, 64, 256, 1024, 20_000, 1 << 30] {
            for (listeners, gates) in [(0, 1), (3, 1), (5, 4)] {
                let room = Room::of(limit, listeners, gates);
                let taken = room.listener * listeners + 2 * room.gate * gates;
                let least = 64 + 8 * (listeners + 2 * gates);
                assert!(taken + 64 <= limit.max(least), "{limit}: {room:?}");
            }
        }
    }
}

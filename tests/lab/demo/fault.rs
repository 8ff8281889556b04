//! What is broken, and how it is mended.

use std::time::Duration;

use crate::lab::cut::{Cut, How};
use crate::lab::tahoe::Grid;

/// One way to break the grid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Nothing: shows what the numbers are worth.
    Nothing,
    /// One gateway sees 2 of 5 servers.
    CutSome,
    /// One gateway sees none.
    CutAll,
    /// One server is gone, for both gateways alike; 4 are enough.
    Storage,
    /// The introducer is gone; a running grid does not need it.
    Introducer,
    /// One gateway's process is gone.
    Killed,
    /// One gateway's process hangs.
    Frozen,
    /// Each gateway sees another part of the grid, none enough of it.
    Split,
}

impl Fault {
    /// In the order in which they are shown; the one that leaves damaged directories comes last.
    pub const ALL: [Self; 8] = [
        Self::Nothing,
        Self::CutSome,
        Self::CutAll,
        Self::Storage,
        Self::Introducer,
        Self::Killed,
        Self::Frozen,
        Self::Split,
    ];

    /// Its name in the timeline and the table.
    pub fn title(self) -> &'static str {
        match self {
            Self::Nothing => "nothing broken",
            Self::CutSome => "gw1 cut off from 3 of 5 storage servers",
            Self::CutAll => "gw1 cut off from all storage servers",
            Self::Storage => "a storage server killed",
            Self::Introducer => "the introducer stopped",
            Self::Killed => "gw1 killed",
            Self::Frozen => "gw1 frozen (SIGSTOP)",
            Self::Split => "split: gw1 sees 2 servers, gw2 the other 3",
        }
    }

    /// How long it lasts: long enough for the slowest of the checks to notice.
    pub fn lasts(self) -> Duration {
        Duration::from_secs(match self {
            Self::Nothing => 4,
            Self::Frozen => 12,
            _ => 7,
        })
    }

    /// Whether this gateway, by its index, sees fewer servers than `happy`: what it accepts then is unsafe.
    pub fn blinds(self, gateway: usize) -> bool {
        match self {
            Self::CutSome | Self::CutAll => gateway == 0,
            Self::Split => true,
            _ => false,
        }
    }

    /// Breaks it; a cut lasts as long as what is returned.
    pub fn break_it(self, grid: &mut Grid) -> Vec<Cut> {
        let ports = grid.storage_ports(5);
        let [first, second, ..] = &grid.gateways[..] else { panic!("the demo has gateways") };
        match self {
            Self::Nothing => {}
            Self::CutSome => return vec![Cut::new(first, &ports[..3], How::Reject)],
            Self::CutAll => return vec![Cut::new(first, &ports, How::Reject)],
            Self::Split => {
                return vec![
                    Cut::new(first, &ports[..3], How::Reject),
                    Cut::new(second, &ports[3..], How::Reject),
                ];
            }
            Self::Storage => grid.storage[0].kill(),
            Self::Introducer => grid.introducer.term(),
            Self::Killed => grid.gateways[0].node.kill(),
            Self::Frozen => first.node.stop(),
        }
        Vec::new()
    }

    /// Undoes it; cuts are undone by dropping them.
    pub fn mend(self, grid: &mut Grid) {
        match self {
            Self::Storage => grid.storage[0].start(),
            Self::Introducer => grid.introducer.start(),
            Self::Killed => grid.gateways[0].node.start(),
            Self::Frozen => grid.gateways[0].node.cont(),
            Self::Nothing | Self::CutSome | Self::CutAll | Self::Split => {}
        }
    }
}

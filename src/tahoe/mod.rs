//! Everything that knows Tahoe-LAFS: how to ask a gateway, how to read what it says, and how to
//! tell that it is the right one. What comes out are observations, which know nothing of Tahoe.

mod ages;
mod cfg;
mod client;
mod endpoint;
mod files;
mod identity;
mod page;
mod poller;
#[cfg(feature = "tls")]
mod tls;

pub use cfg::{CfgError, NodeDir, Shares};
pub use endpoint::{Endpoint, Target, Trust};
pub use poller::{Measures, Poller, Prober, Timing};

/// Shares that Tahoe-LAFS uses when `tahoe.cfg` says nothing, or is not known.
pub const DEFAULT_SHARES: Shares = Shares::DEFAULT;

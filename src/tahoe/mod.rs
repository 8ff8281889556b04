//! Everything that knows Tahoe-LAFS: how to ask a gateway, how to read what it says, and how to
//! tell that it is the right one. What comes out are observations, which know nothing of Tahoe.

mod ages;
mod canaries;
mod canary;
mod cap;
mod cfg;
mod client;
mod endpoint;
mod extras;
mod files;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzz;
mod gridmanager;
mod identity;
mod page;
mod poller;
mod spool;
#[cfg(feature = "tls")]
mod tls;
mod tripwire;

pub use canaries::{Canaries, Plan, Results};
pub use canary::create as create_canaries;
pub use cap::Caps;
pub use cfg::{CfgError, NodeDir, Shares};
pub use endpoint::{Endpoint, Target, Trust};
pub use extras::Extras;
pub use gridmanager::ManagerKey;
pub use identity::Way;
pub use poller::{Measures, Poller, Prober, Timing, Trip};

/// Shares that Tahoe-LAFS uses when `tahoe.cfg` says nothing, or is not known.
pub const DEFAULT_SHARES: Shares = Shares::DEFAULT;

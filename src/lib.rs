//! hcf ("halt and catch fire", Tahoe-LAFS ticket #529): a sidecar that watches one Tahoe-LAFS
//! gateway, decides whether it is in a good state, and tells the load balancer in the balancer's
//! own language.
//!
//! ```text
//! tahoe::Poller --Observation--> judge::Judge --Answers--> board::Board <-- serve::{agent, health, status}
//!                                 |
//!                                 health: the deciding core, pure
//! ```
//!
//! - [`config`] reads what the operator wants, and checks it as a whole.
//! - [`tahoe`] is all that knows Tahoe-LAFS: it looks at the node and says what it saw, and [`lookout`]
//!   says at what.
//! - [`health`] decides: criteria, damping, verdict. No I/O, no clock.
//! - [`history`] keeps what was, and explains it.
//! - [`judge`] is the one task that publishes verdicts, on the [`board`].
//! - [`serve`] are the listeners, which read the board and nothing else.
//! - [`ask`] asks another sidecar, and [`tls`] is what is spoken where that, or a listener, is to be private.
//! - [`fleet`] follows the sidecars of many nodes, and writes the file by which Envoy knows them.
//! - [`daemon`] puts them together; [`cmd`] are the commands beside it, [`cli`] their words.

pub mod ask;
pub mod board;
pub mod cli;
pub mod clock;
pub mod cmd;
pub mod config;
pub mod counts;
pub mod daemon;
pub mod events;
pub mod fleet;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzz;
pub mod health;
pub mod history;
pub mod host;
pub mod judge;
pub mod log;
pub mod lookout;
pub mod overrides;
pub mod serve;
pub mod systemd;
pub mod tahoe;
pub mod tls;

/// The version, with the commit in brackets where it is known.
pub const VERSION: &str = env!("HCF_VERSION");

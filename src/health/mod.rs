//! The deciding core: from what was seen of a node to a verdict per service.
//!
//! It is pure. No I/O, no task, no clock: time comes in as a [`Moment`], so that every rule here can
//! be tested by properties and gives the same verdict for the same input. It knows observations
//! only, never the kind of node that they came from.
//!
//! ```text
//! Observation --criteria--> Findings --damping--> Level --ramp, orders, staleness--> Verdict
//! ```

mod canary;
mod criteria;
mod damping;
mod judge;
mod moment;
mod observation;
mod orders;
mod reason;
mod roll;
mod verdict;
mod weighing;

pub use canary::{Canary, Mishap, Proof, Tried};
pub use criteria::{Chosen, Criterion, Else, Finding, Floor, Rule};
pub use damping::{Counts, Damper, Damping, Level};
pub use judge::{Kept, Rules, ServiceJudge};
pub use moment::Moment;
pub use observation::{
    Facts, FailureKind, Host, Introducers, Link, Observation, ProbeFailure, Server,
};
pub use orders::{Orders, Override, Stop, Word};
pub use reason::{Code, Reason};
pub use roll::{Roll, Since};
pub use verdict::{State, Verdict, Weight};
pub use weighing::{Part, Scale, Weighing};

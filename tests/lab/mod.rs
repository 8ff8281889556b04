//! The lab: real Tahoe-LAFS grids, HAProxy, Envoy and hcf on this machine, started, broken and asked by tests,
//! benches and the demo. Whatever the lab starts ends with it, however it ends; `deploy/parts` installs what it runs.

#![allow(
    dead_code,
    unreachable_pub,
    reason = "each program that includes the lab uses a part of it"
)]
#![allow(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    clippy::expect_used,
    clippy::missing_panics_doc,
    clippy::missing_errors_doc,
    clippy::must_use_candidate,
    reason = "outside of the product: real time is what is measured, and a lab that cannot go on panics"
)]
#![allow(clippy::doc_markdown, reason = "HAProxy and PyPI are names, not code")]

pub mod browser;
pub mod certificates;
pub mod cut;
pub mod detour;
pub mod eds;
pub mod envoy;
pub mod fake;
pub mod forwarder;
pub mod grpc;
pub mod haproxy;
pub mod hcf;
pub mod http;
pub mod keepalived;
pub mod large;
pub mod measure;
pub mod net;
pub mod nginx;
pub mod past;
pub mod place;
pub mod ports;
pub mod process;
pub mod rule;
pub mod shipped;
pub mod sidecar;
pub mod tahoe;
pub mod wait;

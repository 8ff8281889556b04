//! Tests from outside: the program as a user starts it, on fake and on real nodes, behind real
//! balancers. What is not here is a missing promise; see the modules.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a test that cannot go on fails, and says what it saw on the way"
)]

#[path = "../lab/mod.rs"]
mod lab;

mod access;
mod agent;
mod api;
mod canary;
mod cli;
mod clients;
mod config;
mod deploy;
mod e2e;
mod eds;
mod failures;
mod faults;
mod gate;
mod grpc;
mod health;
mod history;
mod lifecycle;
mod log;
mod metrics;
mod operator;
mod page;
mod peers;
mod program;
mod relay;
mod reload;
mod situations;
mod tls;
mod watch;
mod weights;

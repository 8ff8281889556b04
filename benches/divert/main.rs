//! How soon traffic is elsewhere, and how exactly it is shared out: every way to tell a balancer, side by side, on a real
//! grid with three gateways, behind the shipped files: `cargo bench --bench divert [-- WORD...]`.
//!
//! WORD picks parts: a cause (`drain`, `killed`, `lost`, `frozen`, `weight`), `split` or `follow`; a number is how often
//! each cause comes (20). All ways meet the same fault in the same moment. Where other programs run, only
//! `chrt -f 1 cargo bench ...` as root keeps them out of the figures. Ends with 1 when a limit of `follow` is missed.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::disallowed_types,
    clippy::cast_precision_loss,
    reason = "a bench measures real time, prints, and may fail loudly"
)]

mod causes;
mod clients;
#[path = "../../tests/lab/mod.rs"]
mod lab;
mod split;
mod ways;

use std::process::ExitCode;

use causes::Cause;

fn main() -> ExitCode {
    let words: Vec<String> =
        std::env::args().skip(1).filter(|word| !word.starts_with("--")).collect();
    let rounds = words.iter().find_map(|word| word.parse().ok()).unwrap_or(20);
    let words: Vec<String> = words.into_iter().filter(|w| w.parse::<usize>().is_err()).collect();
    let wants = |what: &str| words.is_empty() || words.iter().any(|word| word == what);
    if wants("split") {
        split::errors();
    }
    let missed = if wants("follow") { split::follow(rounds) } else { 0 };
    let causes: Vec<Cause> = Cause::ALL.into_iter().filter(|cause| wants(cause.word())).collect();
    if !causes.is_empty() {
        causes::measure(&causes, rounds);
    }
    if missed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

//! The real three together: a real grid, hcf, and real balancers in front.

mod convergence;
mod examples;
mod failclosed;
pub(crate) mod farm;
mod gate;
mod grid;
mod lost_update;
mod node;
mod readme;
mod relay;
mod snippets;
mod unit;
mod web_port;

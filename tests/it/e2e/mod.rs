//! The real three together: a real grid, hcf, and real balancers in front.

mod canary;
mod clients;
mod convergence;
mod eds;
mod examples;
mod failclosed;
pub(crate) mod farm;
mod fronts;
mod gate;
mod grid;
mod history;
mod in_flight;
mod keepalived;
mod lost_update;
mod measures;
mod node;
mod passing;
mod readme;
mod relay;
mod shares;
mod snippets;
mod unit;
mod web_port;
mod weights;

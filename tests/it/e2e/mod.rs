//! The real three together: a real grid, hcf, and real balancers in front.

mod clients;
mod convergence;
mod examples;
mod failclosed;
mod farm;
mod fronts;
mod gate;
mod grid;
mod in_flight;
mod keepalived;
mod lost_update;
mod node;
mod passing;
mod readme;
mod relay;
mod snippets;
mod web_port;

//! keyswap swaps a credential on a fleet of CI runner hosts over SSH, or puts the old one back.
//!
//! The crate is a library and a thin binary. `ARCHITECTURE.md` is the map: what each module is for, which
//! modules it may use, and the invariants that hold across all of them.

pub mod approval;
pub mod cli;
pub mod engine;
pub mod event;
pub mod journal;
pub mod load;
pub mod model;
pub mod plan;
pub mod remote;
pub mod report;
pub mod rollout;
pub mod sandbox;
pub mod secret;
pub mod service;
pub mod step;

#[cfg(test)]
mod testing;

//! The one integration binary.
#![cfg(test)]

mod desk;
mod e2e;
mod e2e_safety;
mod fleet;
mod forge;
mod harness;
mod infisical;
#[cfg(debug_assertions)]
mod kills;
mod lies;
mod report;
mod sentinel;
mod sim;
mod ssh;
mod support;
mod terminal;
mod tidy;

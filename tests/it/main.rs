//! The one integration binary.
#![cfg(test)]

mod e2e;
mod e2e_safety;
mod forge;
mod harness;
mod sentinel;
mod ssh;
mod support;
mod tidy;

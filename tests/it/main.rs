//! The one integration binary.
#![cfg(test)]

mod forge;
mod harness;
mod sentinel;
mod ssh;
mod support;
mod tidy;

//! The one integration binary.
#![cfg(test)]

mod forge;
mod harness;
mod ssh;
mod support;

//! The one integration binary.
#![cfg(test)]

mod ssh;
mod support;

//! SSH over russh.

pub mod known_hosts;

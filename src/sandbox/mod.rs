//! Throw-away runner hosts and stand-in services for `demo`, `sandbox` and the tests.

pub mod faults;
pub mod forge;

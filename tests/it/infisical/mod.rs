//! The real program against a stand-in Infisical (simulated) and throw-away hosts: mint, prove, roll out, take back.

mod approved;
mod bench;
mod faults;
mod mint;
#[cfg(debug_assertions)]
mod prove;
#[cfg(debug_assertions)]
mod retire;
mod story;

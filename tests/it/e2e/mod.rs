//! The real program against real OpenSSH and sudo: rotation, every step made to fail, and every way back.

mod any_point;
mod audit;
mod back;
mod cut_off;
mod drain;
mod failures;
mod late_prepare;
mod privileges;
pub(crate) mod publish;
mod rotation;
mod two_names;
mod way_back;

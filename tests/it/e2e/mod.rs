//! The real program against real OpenSSH and sudo: rotation, and every step made to fail.

mod rotation;

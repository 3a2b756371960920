//! HTTP clients: the forge and Infisical. `reqwest` is used nowhere else.

pub mod http;

//! HTTP clients: the forge and Infisical. `reqwest` is used nowhere else.

pub mod forge;
pub mod http;
pub mod infisical;

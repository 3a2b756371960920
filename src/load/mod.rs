//! TOML files to a checked model: every error with its place.

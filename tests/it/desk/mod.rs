//! What an operator has at hand beside runs: ad-hoc commands, files to start from, schemas, pages, and papers that are true.

mod codes;
mod exec;
mod init;
mod manual;
mod output;
mod papers;
mod scene;
mod schema;

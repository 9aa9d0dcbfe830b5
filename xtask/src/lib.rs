//! Ferrule's development commands, and what they share with the integration tests.
//!
//! [`cluster`] lays out a Kubernetes-like cluster of network namespaces; [`traffic`] sends real
//! connections through it; [`api`] is an API server for tests. Nothing here depends on the other crates of the workspace: this one has
//! to build before the BPF compiler is installed.

pub mod api;
pub mod bench;
pub mod cluster;
pub mod command;
pub mod demo;
pub mod image;
pub mod process;
pub mod progress;
pub mod setup;
pub mod test;
pub mod tidy;
pub mod traffic;
pub mod vm;
pub mod workspace;

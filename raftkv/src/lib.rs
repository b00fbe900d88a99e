//! Scratch.
#![forbid(unsafe_code)]
mod client;
mod input;
mod layout;
mod manifest;
mod report;
mod usage;

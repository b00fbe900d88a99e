//! Scratch.
#![forbid(unsafe_code)]
mod client;
mod input;
mod manifest;

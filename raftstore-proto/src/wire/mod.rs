//! The wire form of the vocabulary, compatible with kvproto.

pub(crate) mod region;

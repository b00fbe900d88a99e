//! The wire form of the vocabulary, compatible with kvproto.

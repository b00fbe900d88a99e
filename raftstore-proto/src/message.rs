//! Messages between stores: one raft message in its envelope.

/// A raft message in its envelope.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RaftMessage;

/// What a message is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MessageKind {}

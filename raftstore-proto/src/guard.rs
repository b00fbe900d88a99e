//! Bounds on what bytes from outside may cost before they are decoded.

use crate::DecodeError;

/// What bytes from outside may cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Longest message, in bytes.
    pub message_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            message_bytes: 16 << 20,
        }
    }
}

/// What the scan of an admitted message found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Admitted {
    /// Log entries in it.
    pub entries: usize,
}

/// Checks the wire form of a raft message.
///
/// # Errors
/// Says which bound it breaks.
pub fn check_raft_message(bytes: &[u8], limits: &Limits) -> Result<Admitted, DecodeError> {
    if bytes.len() > limits.message_bytes {
        return Err(DecodeError::TooLarge {
            what: "raft message",
            size_bytes: bytes.len() as u64,
            max_bytes: limits.message_bytes as u64,
        });
    }
    Ok(Admitted::default())
}

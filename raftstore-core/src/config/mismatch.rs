//! What a store does about replicas that differ.

/// What a store does that finds its replica of a region to hold other data than the
/// leader's, at the same index (H75).
///
/// It cannot know which of the two is right. Whatever is chosen, it is counted, logged and
/// told to observers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum OnMismatch {
    /// The store stops: whatever made one replica differ may have touched others too. If
    /// the leader is the one that is wrong, all others stop, and it with them for want of a
    /// quorum.
    #[default]
    Stop,
    /// The replica is taken out of service, and PD is asked to replace it with a copy of
    /// the leader's. For clusters whose engines vouch for what they read.
    Quarantine,
    /// Nothing: the embedder looks for the difference, or decides.
    Report,
}

impl OnMismatch {
    /// What a value in a file looks like.
    pub(super) const NAMES: &'static str = "\"stop\", \"quarantine\" or \"report\"";

    pub(super) fn from_name(name: &str) -> Option<Self> {
        match name {
            "stop" => Some(Self::Stop),
            "quarantine" => Some(Self::Quarantine),
            "report" => Some(Self::Report),
            _ => None,
        }
    }
}

//! The column families of the data engine: which exist, and which clients may touch.

use std::fmt;

/// A column family of a store's data engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Cf {
    /// User values, and the store's own identity records.
    Default,
    /// User data written and deleted at a high rate.
    Lock,
    /// User data, usually small records.
    Write,
    /// Records of the store about its regions. Never reachable by a client.
    Raft,
}

/// The families that hold user data, in name order.
pub const DATA_CFS: [Cf; 3] = [Cf::Default, Cf::Lock, Cf::Write];

impl Cf {
    /// All families, in name order.
    pub const ALL: [Self; 4] = [Self::Default, Self::Lock, Self::Raft, Self::Write];

    /// The family's name, as clients and engines spell it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::Lock => "lock",
            Self::Write => "write",
            Self::Raft => "raft",
        }
    }

    /// The data family of this name; the empty name is `default`. The internal family
    /// and unknown names give `None`, since a client has no business there.
    #[must_use]
    pub fn from_client_name(name: &str) -> Option<Self> {
        match name {
            "" | "default" => Some(Self::Default),
            "lock" => Some(Self::Lock),
            "write" => Some(Self::Write),
            _ => None,
        }
    }

    /// Position in [`Cf::ALL`], for arrays kept per family.
    #[must_use]
    pub const fn index(self) -> usize {
        match self {
            Self::Default => 0,
            Self::Lock => 1,
            Self::Raft => 2,
            Self::Write => 3,
        }
    }

    /// Whether user data lives here.
    #[must_use]
    pub const fn is_data(self) -> bool {
        !matches!(self, Self::Raft)
    }
}

impl fmt::Display for Cf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

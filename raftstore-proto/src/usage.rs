//! How full a store is.

/// How much room a store has left. Ordered: whoever is fuller is greater.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DiskUsage {
    /// There is room.
    #[default]
    Normal,
    /// What is left is for upkeep: no new data.
    AlmostFull,
    /// Nothing but what frees space.
    Full,
}

impl DiskUsage {
    /// As a number on the wire.
    pub(crate) const fn to_number(self) -> u32 {
        match self {
            Self::Normal => 0,
            Self::AlmostFull => 1,
            Self::Full => 2,
        }
    }

    /// From the wire; what later versions may say beyond is full.
    pub(crate) const fn from_number(number: u32) -> Self {
        match number {
            0 => Self::Normal,
            1 => Self::AlmostFull,
            _ => Self::Full,
        }
    }
}

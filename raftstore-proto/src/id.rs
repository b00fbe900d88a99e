//! Identities. None of them is ever zero, and none can stand in for another.

use std::{fmt, num::NonZeroU64};

use crate::DecodeError;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(NonZeroU64);

        impl $name {
            /// The id with this number, or `None` for 0, which names nothing.
            #[must_use]
            pub const fn new(number: u64) -> Option<Self> {
                match NonZeroU64::new(number) {
                    Some(number) => Some(Self(number)),
                    None => None,
                }
            }

            /// The id with this number, for constants and tests.
            ///
            /// # Panics
            /// If the number is 0.
            #[must_use]
            pub const fn must(number: u64) -> Self {
                match NonZeroU64::new(number) {
                    Some(number) => Self(number),
                    None => panic!(concat!($what, " is never 0")),
                }
            }

            /// The number.
            #[must_use]
            pub const fn get(self) -> u64 {
                self.0.get()
            }
        }

        impl TryFrom<u64> for $name {
            type Error = DecodeError;

            fn try_from(number: u64) -> Result<Self, DecodeError> {
                Self::new(number).ok_or(DecodeError::ZeroId { what: $what })
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0)
            }
        }
    };
}

id!(
    /// A region, for its whole life. A split gives a new one to the new part.
    RegionId, "region id"
);
id!(
    /// One replica of one region on one store. Never reused: a larger id for the same
    /// region and store is always a later incarnation.
    PeerId, "peer id"
);
id!(
    /// A store: one process with one data engine and one raft log.
    StoreId, "store id"
);
id!(
    /// The cluster all stores of a key space belong to.
    ClusterId, "cluster id"
);

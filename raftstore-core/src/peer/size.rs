//! What a peer knows of its data's size: what the last look found, and what was applied
//! since.

/// How large a region is, and whether it is worth looking where to cut it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct RegionSize {
    /// Bytes when the data was last looked at; `None` since the peer was built, became
    /// leader, or was cut.
    looked_at: Option<u64>,
    /// Bytes and keys that came since.
    grown_bytes: i64,
    grown_keys: u64,
    /// Keys deleted since the range was last compacted.
    pub(crate) deleted_keys: u64,
    /// A look is under way.
    is_looking: bool,
    /// Look again at the next opportunity, whatever has grown.
    again: bool,
    /// Looks put off because a snapshot was in the making.
    put_off: u32,
}

/// Times that a look is put off for the sake of a snapshot that a cut would void.
const PUT_OFF_MAX: u32 = 3;

impl RegionSize {
    /// Rough bytes of the data.
    pub(crate) fn estimate(&self) -> u64 {
        self.looked_at.unwrap_or(0).saturating_add_signed(self.grown_bytes)
    }

    /// What PD is told: 0 as long as only growth is known, which says little.
    pub(crate) fn reported(&self) -> u64 {
        self.looked_at.map_or(0, |_| self.estimate())
    }

    /// Entries were applied.
    pub(crate) fn applied(&mut self, bytes: i64, keys: u64, deleted_keys: u64) {
        self.grown_bytes = self.grown_bytes.saturating_add(bytes);
        if self.looked_at.is_none() {
            self.grown_bytes = self.grown_bytes.max(0);
        }
        self.grown_keys = self.grown_keys.saturating_add(keys);
        self.deleted_keys = self.deleted_keys.saturating_add(deleted_keys);
    }

    /// Nothing is known any more: the range has changed, or what this replica remembers may
    /// be old.
    pub(crate) fn forget(&mut self) {
        *self = Self { deleted_keys: self.deleted_keys, ..Self::default() };
    }

    /// Whether the region is worth a look: never looked at, grown by so much, or asked for.
    pub(crate) const fn is_due(&self, bytes: u64, keys: u64) -> bool {
        !self.is_looking
            && (self.again
                || self.looked_at.is_none()
                || self.grown_bytes.unsigned_abs() >= bytes
                || self.grown_keys >= keys)
    }

    /// Whether the look is put off because a snapshot is being made: not for ever.
    pub(crate) const fn puts_off(&mut self) -> bool {
        self.put_off += 1;
        self.put_off <= PUT_OFF_MAX
    }

    /// A look begins. What grows from now on is counted anew.
    pub(crate) fn begin_look(&mut self) {
        self.looked_at = Some(self.estimate());
        self.grown_bytes = 0;
        self.grown_keys = 0;
        self.is_looking = true;
        self.again = false;
        self.put_off = 0;
    }

    /// A look has ended with so many bytes.
    pub(crate) fn end_look(&mut self, bytes: u64) {
        if self.is_looking {
            self.is_looking = false;
            self.looked_at = Some(bytes);
        }
    }

    /// What the last look led to has not happened yet.
    pub(crate) fn look_again(&mut self) {
        self.again = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn growth_adds_to_what_was_found() {
        let mut size = RegionSize::default();
        size.applied(50, 2, 0);
        assert_eq!(size.estimate(), 50);
        assert!(size.is_due(1_000, 1_000), "never looked at");
        size.begin_look();
        assert!(!size.is_due(0, 0), "a look is under way");
        size.applied(7, 1, 0);
        size.end_look(500);
        assert_eq!(size.estimate(), 507);
        assert!(!size.is_due(8, 2) && size.is_due(7, 2) && size.is_due(8, 1));
        size.applied(-600, 0, 3);
        assert_eq!((size.estimate(), size.deleted_keys), (0, 3));
        size.forget();
        assert!(size.is_due(u64::MAX, u64::MAX));
        assert_eq!(size.deleted_keys, 3, "what was deleted is still on disk");
    }

    #[test]
    fn a_look_is_put_off_a_few_times_only() {
        let mut size = RegionSize::default();
        let put_off = std::iter::repeat_with(|| size.puts_off()).take_while(|off| *off).count();
        assert_eq!(put_off, PUT_OFF_MAX as usize);
    }
}

//! The slow walk over all pages of the file that finds damage nobody has read yet.

use engine_traits::{Error, Result};

use crate::error::{NAME, io};
use crate::guard::{BlockCheck, Guard};

/// How far a sweep has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SweepProgress {
    /// Pages compared by this call.
    pub slice_pages: u64,
    /// Pages compared in this pass so far.
    pub checked_pages: u64,
    /// Pages of the file now.
    pub total_pages: u64,
    /// Passes over the whole file completed since it was opened.
    pub passes: u64,
}

#[derive(Debug, Default)]
pub(crate) struct SweepPosition {
    next: u64,
    passes: u64,
    /// Damaged reads already reported.
    reported: u64,
}

impl SweepPosition {
    pub(crate) fn advance(&mut self, guard: &Guard, budget_pages: u64) -> Result<SweepProgress> {
        let op = "sweep";
        let met = guard.damaged_reads();
        if met > self.reported {
            self.reported = met;
            return Err(damaged(guard.first_damage().unwrap_or_default()));
        }
        let mut slice_pages = 0;
        for _ in 0..budget_pages {
            let page = self.next;
            self.next += 1;
            match guard.check(page).map_err(io(op))? {
                BlockCheck::Intact => slice_pages += 1,
                BlockCheck::Damaged => {
                    self.reported = guard.damaged_reads();
                    return Err(damaged(page));
                }
                BlockCheck::Absent => {
                    self.next = 0;
                    self.passes += 1;
                    break;
                }
            }
        }
        Ok(SweepProgress {
            slice_pages,
            checked_pages: self.next,
            total_pages: guard.blocks().map_err(io(op))?,
            passes: self.passes,
        })
    }
}

fn damaged(page: u64) -> Error {
    Error::Corrupt {
        engine: NAME,
        place: format!("page {page}"),
        detail: "it is not what was written".to_owned(),
    }
}

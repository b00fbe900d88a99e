//! What goes past single writes: ingestion, sizes, points to split at, copies.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use bytes::Bytes;
use engine_traits::{Cf, Direction, Error, Range, Reader as _, Result};
use rocksdb::checkpoint::Checkpoint;
use rocksdb::{IngestExternalFileOptions, SstFileWriter};

use crate::engine::{RocksEngine, family};
use crate::error::{NAME, during, io};
use crate::folder::{INGEST_NAME, mark_copy};

/// A file to be ingested is followed by the next at this size.
const INGESTED_FILE_BYTES: u64 = 64 << 20;

/// Looks for a point to split at end when it is this part of the range off, or after so many
/// steps.
const SPLIT_TOLERANCE: u64 = 50;
const SPLIT_STEPS: usize = 40;

impl RocksEngine {
    /// Copies the database to the folder `path`, which must not exist. Files are shared by hard
    /// links where the file system has them. The copy has every write that has returned.
    ///
    /// # Errors
    /// `Backend` if the folder exists or cannot be made; `Full`, and what a write fails with.
    pub fn checkpoint(&self, path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        let copy = Checkpoint::new(&self.inner.db)
            .and_then(|checkpoint| checkpoint.create_checkpoint(path));
        copy.map_err(during("copying the database"))?;
        mark_copy(path, self.inner.kind)
    }

    /// Up to `count` keys that part `range` into pieces of about one size, ascending, each a key
    /// of a row. Only what is in files is weighed: none are found in a range that is in memory.
    ///
    /// # Errors
    /// If the rows cannot be read.
    pub fn split_keys(&self, cf: Cf, range: Range<'_>, count: usize) -> Result<Vec<Bytes>> {
        let mut keys = Vec::new();
        let Some((first, last)) = self.ends(cf, range)? else { return Ok(keys) };
        let total = self.size_in_files(cf, &first, &last)?;
        if total == 0 {
            return Ok(keys);
        }
        for piece in 1..=count as u64 {
            let want = total / (count as u64 + 1) * piece;
            let key = self.key_at(cf, (&first, &last), want, total)?;
            if keys.last().unwrap_or(&first) < &key {
                keys.push(key);
            }
        }
        Ok(keys)
    }

    /// First and last key of a range.
    fn ends(&self, cf: Cf, range: Range<'_>) -> Result<Option<(Bytes, Bytes)>> {
        let end = |direction| -> Result<Option<Bytes>> {
            let mut cursor = self.cursor(cf, range, direction)?;
            Ok(cursor.next()?.map(|(key, _)| Bytes::copy_from_slice(key)))
        };
        Ok(end(Direction::Forward)?.zip(end(Direction::Backward)?))
    }

    /// The key with about `want` of `total` bytes between `first` and it: halves the space of keys.
    fn key_at(
        &self,
        cf: Cf,
        (first, last): (&Bytes, &Bytes),
        want: u64,
        total: u64,
    ) -> Result<Bytes> {
        let (mut low, mut high) = (first.clone(), last.clone());
        let mut best = first.clone();
        for _ in 0..SPLIT_STEPS {
            let middle = between(&low, &high);
            let mut cursor = self.cursor(cf, Range::new(&middle, &high), Direction::Forward)?;
            let found = cursor.next()?.map(|(key, _)| Bytes::copy_from_slice(key));
            let Some(key) = found else {
                // No row in the upper half.
                if high.as_ref() == middle.as_slice() {
                    break;
                }
                high = middle.into();
                continue;
            };
            let before = self.size_in_files(cf, first, &key)?;
            if before.abs_diff(want) <= total / SPLIT_TOLERANCE {
                return Ok(key);
            }
            if before > want {
                high = middle.into();
            } else if low == key {
                break;
            } else {
                best = key.clone();
                low = key;
            }
        }
        Ok(best)
    }

    fn size_in_files(&self, cf: Cf, start: &[u8], end: &[u8]) -> Result<u64> {
        let db = &self.inner.db;
        let range = rocksdb::Range::new(start, end);
        let sizes = db.get_approximate_sizes_cf(family(db, cf)?, &[range]);
        Ok(sizes.first().copied().unwrap_or(0))
    }

    pub(crate) fn size(&self, cf: Cf, range: Range<'_>, limit: u64) -> Result<u64> {
        if range.is_empty() {
            return Ok(0);
        }
        let end = match range.end {
            [] => match self.ends(cf, range)? {
                Some((_, last)) => last,
                None => return Ok(0),
            },
            end => Bytes::copy_from_slice(end),
        };
        let in_files = self.size_in_files(cf, range.start, &end)?;
        if in_files >= limit {
            return Ok(in_files);
        }
        let mut total = 0;
        let mut cursor = self.cursor(cf, range, Direction::Forward)?;
        while total < limit
            && let Some((key, value)) = cursor.next()?
        {
            total += (key.len() + value.len()) as u64;
        }
        Ok(total)
    }

    /// Removes files that an ingestion left when it was cut short.
    pub(crate) fn clear_ingested(&self) -> Result<()> {
        let folder = self.inner.path.join(INGEST_NAME);
        if folder.is_dir() {
            fs::remove_dir_all(folder).map_err(io("removing files of an ingestion"))?;
        }
        Ok(())
    }

    pub(crate) fn ingest_files(
        &self,
        cf: Cf,
        rows: &mut dyn Iterator<Item = (Bytes, Bytes)>,
    ) -> Result<()> {
        let mut files = Vec::new();
        let done = self.gather(rows, &mut files).and_then(|()| {
            if files.is_empty() {
                return Ok(());
            }
            let mut options = IngestExternalFileOptions::default();
            options.set_move_files(true);
            self.change(false, |db| {
                let added =
                    db.ingest_external_file_cf_opts(family(db, cf)?, &options, files.clone());
                added.map_err(during("ingest"))
            })
        });
        // Those that were moved are gone from here.
        for file in files {
            let _ = fs::remove_file(file);
        }
        done
    }

    /// Writes rows to files of their own; no more than one unfinished file is left by an error.
    fn gather(
        &self,
        rows: &mut dyn Iterator<Item = (Bytes, Bytes)>,
        files: &mut Vec<PathBuf>,
    ) -> Result<()> {
        let folder = self.inner.path.join(INGEST_NAME);
        let options = self.inner.options.to_native()?;
        let mut rows = rows.peekable();
        let mut last: Option<Bytes> = None;
        while rows.peek().is_some() {
            fs::create_dir_all(&folder).map_err(io("creating a folder"))?;
            let number = self.inner.next_ingested.fetch_add(1, Ordering::Relaxed);
            let file = folder.join(format!("{number}.sst"));
            files.push(file.clone());
            let mut writer = SstFileWriter::create(&options);
            writer.open(&file).map_err(during("ingest"))?;
            while writer.file_size() < INGESTED_FILE_BYTES
                && let Some((key, value)) = rows.next()
            {
                if last.as_ref().is_some_and(|last| *last >= key) {
                    let detail = format!("\"{}\" is out of order", key.escape_ascii());
                    return Err(Error::InvalidBatch { engine: NAME, detail });
                }
                writer.put(&key, &value).map_err(during("ingest"))?;
                last = Some(key);
            }
            writer.finish().map_err(during("ingest"))?;
        }
        Ok(())
    }
}

/// Some bytes halfway from `low` to `high`, which is above it.
fn between(low: &[u8], high: &[u8]) -> Vec<u8> {
    let len = low.len().max(high.len()) + 1;
    let at = |key: &[u8], at: usize| u32::from(key.get(at).copied().unwrap_or(0));
    // The sum, most significant digit first, with room for a carry; then its half.
    let mut sum = vec![0; len + 1];
    let mut carry = 0;
    for digit in (0..len).rev() {
        let value = at(low, digit) + at(high, digit) + carry;
        sum[digit + 1] = value & 0xFF;
        carry = value >> 8;
    }
    sum[0] = carry;
    let mut rest = sum[0];
    let mut half = Vec::with_capacity(len);
    for digit in &sum[1..] {
        let value = (rest << 8) | digit;
        half.push(u8::try_from(value >> 1).unwrap_or(u8::MAX));
        rest = value & 1;
    }
    half
}

#[cfg(test)]
mod tests {
    use super::between;

    #[test]
    fn the_middle_is_between() {
        let pairs: [(&[u8], &[u8]); 6] = [
            (b"", b"\x01"),
            (b"a", b"b"),
            (b"abc", b"abd"),
            (b"\xFF", b"\xFF\xFF"),
            (b"", b"\xFF\xFF\xFF"),
            (b"key 10", b"key 9"),
        ];
        for (low, high) in pairs {
            let middle = between(low, high);
            assert!(low < middle.as_slice() && middle.as_slice() < high, "{low:?} {middle:?}");
        }
    }
}

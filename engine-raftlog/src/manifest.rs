//! The manifest: which files a log has, and how much of each must be there.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Write as _};
use std::path::Path;

use engine_traits::{Error, Result};

use crate::error::{corrupt, foreign, io};
use crate::format::{FileId, Queue};

/// Its name in the folder.
pub(crate) const NAME: &str = "MANIFEST";
/// The name under which the next one is written.
pub(crate) const NEXT_NAME: &str = "MANIFEST.next";
/// What it begins with; the number of the format follows.
const TITLE: &str = "raftstore raft log on raft-engine, format ";
const FORMAT: u32 = 1;

/// What is known of one file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Known {
    /// Bytes from its start that are durable.
    pub(crate) durable: u64,
    /// Number of the last write before its first record.
    pub(crate) base: u64,
}

/// *Shape*: lines of text. Title and format; `append|rewrite <number> <durable> <base>` for each
/// file; `closed` if nothing was written after it; `crc <CRC32 of the lines before>`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Manifest {
    pub(crate) files: BTreeMap<FileId, Known>,
    /// Whether the log was closed in order: the files then have just their durable bytes.
    pub(crate) closed: bool,
}

impl Manifest {
    /// The files of a row, by number.
    pub(crate) fn row(&self, queue: Queue) -> impl DoubleEndedIterator<Item = (FileId, Known)> {
        let all = FileId { queue, number: 0 }..=FileId { queue, number: u64::MAX };
        self.files.range(all).map(|(id, known)| (*id, *known))
    }

    fn encode(&self) -> String {
        let mut text = format!("{TITLE}{FORMAT}\n");
        for (FileId { queue, number }, Known { durable, base }) in &self.files {
            let _ = writeln!(text, "{} {number} {durable} {base}", queue.word());
        }
        if self.closed {
            text.push_str("closed\n");
        }
        let crc = crc32fast::hash(text.as_bytes());
        let _ = writeln!(text, "crc {crc:08x}");
        text
    }

    fn decode(path: &Path, bytes: &[u8]) -> Result<Self> {
        let text = std::str::from_utf8(bytes).map_err(|error| corrupt(path, error))?;
        let Some(title) = text.strip_prefix(TITLE).and_then(|rest| rest.lines().next()) else {
            return Err(foreign(path, "it is not a manifest of a raft log"));
        };
        if let Ok(format) = title.parse::<u32>()
            && format > FORMAT
        {
            return Err(foreign(path, format!("format {format} is newer than {FORMAT}")));
        }
        let whole = text.rfind("crc ").filter(|at| {
            let sum = format!("crc {:08x}\n", crc32fast::hash(&bytes[..*at]));
            text[*at..] == sum
        });
        let Some(end) = whole else {
            return Err(corrupt(path, "its checksum does not fit"));
        };
        let mut manifest = Self::default();
        for line in text[..end].lines().skip(1) {
            if line == "closed" {
                manifest.closed = true;
                continue;
            }
            let (id, known) =
                file_line(line).ok_or_else(|| corrupt(path, format!("the line \"{line}\"")))?;
            manifest.files.insert(id, known);
        }
        Ok(manifest)
    }

    /// The manifest of a folder, or `None` if it has none.
    pub(crate) fn read(folder: &Path) -> Result<Option<Self>> {
        let path = folder.join(NAME);
        match fs::read(&path) {
            Ok(bytes) => Self::decode(&path, &bytes).map(Some),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(io("reading the manifest")(error)),
        }
    }

    /// Puts this in the place of the folder's manifest, durably.
    pub(crate) fn write(&self, folder: &Path) -> io::Result<()> {
        let next = folder.join(NEXT_NAME);
        let mut file = File::create(&next)?;
        file.write_all(self.encode().as_bytes())?;
        file.sync_all()?;
        fs::rename(&next, folder.join(NAME))?;
        sync_folder(folder)
    }
}

fn file_line(line: &str) -> Option<(FileId, Known)> {
    let mut words = line.split(' ');
    let word = words.next()?;
    let queue = Queue::BOTH.into_iter().find(|queue| queue.word() == word)?;
    let mut number = || words.next()?.parse().ok();
    let (id, durable, base) = (number()?, number()?, number()?);
    words.next().is_none().then_some((FileId { queue, number: id }, Known { durable, base }))
}

/// Makes creations, renames and removals in a folder durable.
pub(crate) fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// Refuses a manifest that names no consecutive files.
pub(crate) fn check_rows(folder: &Path, manifest: &Manifest) -> Result<(), Error> {
    for queue in Queue::BOTH {
        let numbers: Vec<u64> = manifest.row(queue).map(|(id, _)| id.number).collect();
        if numbers.is_empty() || numbers.windows(2).any(|pair| pair[0] + 1 != pair[1]) {
            let detail = format!("it names {} files {numbers:?}", queue.word());
            return Err(corrupt(&folder.join(NAME), detail));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Manifest {
        let files =
            [(Queue::Append, 7, 100, 3), (Queue::Append, 8, 69, 9), (Queue::Rewrite, 5, 0, 0)];
        let files = files.map(|(queue, number, durable, base)| {
            (FileId { queue, number }, Known { durable, base })
        });
        Manifest { files: files.into(), closed: true }
    }

    #[test]
    fn it_is_read_back() {
        let text = sample().encode();
        assert_eq!(Manifest::decode(Path::new("m"), text.as_bytes()).unwrap(), sample());
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_noticed() {
        let bytes = sample().encode().into_bytes();
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut bad = bytes.clone();
                bad[at] ^= 1 << bit;
                Manifest::decode(Path::new("m"), &bad).unwrap_err();
            }
            Manifest::decode(Path::new("m"), &bytes[..at]).unwrap_err();
        }
    }

    #[test]
    fn a_newer_format_is_told_from_damage() {
        let text = sample().encode().replacen("format 1", "format 2", 1);
        let error = Manifest::decode(Path::new("m"), text.as_bytes()).unwrap_err();
        assert!(matches!(error, Error::Format { .. }), "{error}");
    }
}

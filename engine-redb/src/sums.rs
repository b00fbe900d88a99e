//! The checksum of every block of the file, and where they rest while the file is closed.
//!
//! At rest they live in a file of their own beside the data, written when the engine closes
//! cleanly and removed, durably, before the first change after an open. So a list that exists
//! describes the file as it must be; without one the stop was unclean, and redb's own
//! integrity check has to vouch for the file before its blocks are trusted again.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

/// Bytes per checksum: redb's page size.
pub(crate) const BLOCK_BYTES: usize = 4096;

const MAGIC: &[u8; 8] = b"RSSUMS1\n";
const HEAD_LEN: usize = MAGIC.len() + 4;

/// The file that keeps the list while the engine is closed.
#[derive(Clone, Debug)]
pub(crate) struct SumsFile {
    path: PathBuf,
}

impl SumsFile {
    /// The list of the data file at `data`.
    pub(crate) fn beside(data: &Path) -> Self {
        let mut path = data.as_os_str().to_owned();
        path.push(".sums");
        Self { path: path.into() }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The list, or `None` if there is none or it is damaged itself.
    pub(crate) fn load(&self) -> io::Result<Option<Vec<u32>>> {
        let mut bytes = Vec::new();
        match File::open(&self.path) {
            Ok(mut file) => file.read_to_end(&mut bytes)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        Ok(decode(&bytes))
    }

    /// Removes the list. Durable when it returns.
    pub(crate) fn remove(&self) -> io::Result<()> {
        match fs::remove_file(&self.path) {
            Ok(()) => sync_folder(&self.path),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Stores the list. Durable, or absent, whatever happens.
    pub(crate) fn save(&self, sums: &[u32]) -> io::Result<()> {
        let mut fresh = self.path.clone().into_os_string();
        fresh.push(".new");
        let fresh = PathBuf::from(fresh);
        let mut file = File::create(&fresh)?;
        file.write_all(&encode(sums))?;
        file.sync_all()?;
        drop(file);
        fs::rename(&fresh, &self.path)?;
        sync_folder(&self.path)
    }
}

/// Makes the creation, renaming or removal of `path` durable.
pub(crate) fn sync_folder(path: &Path) -> io::Result<()> {
    // Only Unix lets a folder be opened and synced; elsewhere the file system orders it.
    if cfg!(unix) {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        File::open(folder.unwrap_or_else(|| Path::new(".")))?.sync_all()?;
    }
    Ok(())
}

fn encode(sums: &[u32]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEAD_LEN + sums.len() * 4);
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(&[0; 4]);
    for sum in sums {
        bytes.extend_from_slice(&sum.to_le_bytes());
    }
    let own = crc32c::crc32c(&bytes[HEAD_LEN..]);
    bytes[MAGIC.len()..HEAD_LEN].copy_from_slice(&own.to_le_bytes());
    bytes
}

fn decode(bytes: &[u8]) -> Option<Vec<u32>> {
    let (own, body) = bytes.strip_prefix(MAGIC)?.split_first_chunk::<4>()?;
    let (sums, rest) = body.as_chunks::<4>();
    if !rest.is_empty() || u32::from_le_bytes(*own) != crc32c::crc32c(body) {
        return None;
    }
    Some(sums.iter().map(|sum| u32::from_le_bytes(*sum)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_comes_back_and_damage_to_it_is_seen() {
        let sums = [1, 2, u32::MAX];
        let bytes = encode(&sums);
        assert_eq!(decode(&bytes).as_deref(), Some(&sums[..]));
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(decode(&flipped), None, "bit {bit}");
        }
        for len in 0..bytes.len() {
            assert_eq!(decode(&bytes[..len]), None, "cut to {len}");
        }
    }

    #[test]
    fn saving_loading_and_removing() {
        let dir = tempfile::tempdir().unwrap();
        let file = SumsFile::beside(&dir.path().join("data"));
        assert_eq!(file.load().unwrap(), None);
        file.remove().unwrap();
        file.save(&[7, 8]).unwrap();
        assert_eq!(file.load().unwrap(), Some(vec![7, 8]));
        file.remove().unwrap();
        assert_eq!(file.load().unwrap(), None);
    }
}

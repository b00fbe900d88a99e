//! Opening a folder: what it is, whether all of it is there, and where the log ends.

use std::fs::{self, File, TryLockError};
use std::io::Write as _;
use std::path::Path;

use engine_traits::{Error, Result};

use crate::error::{NAME, corrupt, foreign, io};
use crate::format::{FileId, HEADER_BYTES, Header, Queue, header, read_header, scan};
use crate::manifest::{self, Known, Manifest, check_rows, sync_folder};

/// Locked while a log is open. raft-engine's own lock comes too late: what precedes it writes.
const LOCK_NAME: &str = "LOCK.raftstore";
/// raft-engine's lock.
const ITS_LOCK_NAME: &str = "LOCK";

/// A folder that raft-engine may open.
pub(crate) struct Prepared {
    /// What lies in it, all of it durable.
    pub(crate) manifest: Manifest,
    /// Number of the last write in it.
    pub(crate) number: u64,
    /// Whether the log was not closed in order, so that its end had to be judged.
    pub(crate) unclean: bool,
    pub(crate) lock: File,
}

/// Checks a folder or makes one, and leaves its last files where the next writes may go.
pub(crate) fn prepare(folder: &Path) -> Result<Prepared> {
    if !folder.try_exists().map_err(io("looking for the folder"))? {
        fs::create_dir_all(folder).map_err(io("creating the folder"))?;
        if let Some(parent) = folder.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            sync_folder(parent).map_err(io("syncing the folder above"))?;
        }
    }
    if !folder.is_dir() {
        return Err(foreign(folder, "it is a file, not a folder"));
    }
    // Once before anything is written to what may be somebody else's folder.
    if Manifest::read(folder)?.is_none() {
        refuse_strangers(folder)?;
    }
    let lock = lock(folder)?;
    let found = Manifest::read(folder)?;
    let unclean = found.as_ref().is_some_and(|manifest| !manifest.closed);
    let (manifest, number) = match found {
        Some(manifest) => recover(folder, manifest)?,
        None => {
            refuse_strangers(folder)?;
            create(folder)?
        }
    };
    Ok(Prepared { manifest, number, unclean, lock })
}

fn lock(folder: &Path) -> Result<File> {
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(folder.join(LOCK_NAME))
        .map_err(io("opening the lock"))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => {
            Err(Error::Locked { engine: NAME, path: folder.display().to_string() })
        }
        Err(TryLockError::Error(error)) => Err(io("locking the folder")(error)),
    }
}

/// Names and lengths of what is in a folder.
fn listing(folder: &Path) -> Result<Vec<(String, u64)>> {
    let failed = || io("listing the folder");
    let mut names = Vec::new();
    for item in fs::read_dir(folder).map_err(failed())? {
        let item = item.map_err(failed())?;
        let len = item.metadata().map_err(failed())?.len();
        names.push((item.file_name().to_string_lossy().into_owned(), len));
    }
    names.sort();
    Ok(names)
}

/// Refuses a folder without a manifest that holds more than a creation may leave behind when it
/// is interrupted.
fn refuse_strangers(folder: &Path) -> Result<()> {
    for (name, len) in listing(folder)? {
        if [LOCK_NAME, ITS_LOCK_NAME, manifest::NEXT_NAME].contains(&name.as_str()) {
            continue;
        }
        match FileId::parse(&name) {
            Some(_) if len <= HEADER_BYTES => {}
            Some(_) => {
                let detail = format!("{} is missing beside {name}", manifest::NAME);
                return Err(foreign(folder, detail));
            }
            None => return Err(foreign(folder, format!("{name} is no file of a raft log"))),
        }
    }
    Ok(())
}

/// Numbers for the files of a new log. raft-engine keeps blocks per thread under the number of a
/// file, for all logs of a process: no two logs may use the same.
fn first_number() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    const RANDOM_BITS: u32 = 36;
    const ROOM_BITS: u32 = 14;
    let random = RandomState::new().hash_one(std::process::id()) >> (64 - RANDOM_BITS);
    (random << ROOM_BITS) + 1
}

fn create(folder: &Path) -> Result<(Manifest, u64)> {
    for (name, _) in listing(folder)? {
        if FileId::parse(&name).is_some() {
            fs::remove_file(folder.join(name)).map_err(io("clearing the folder"))?;
        }
    }
    let mut manifest = Manifest::default();
    for queue in Queue::BOTH {
        add_file(folder, &mut manifest, FileId { queue, number: first_number() }, 0)?;
    }
    manifest.write(folder).map_err(io("writing the manifest"))?;
    Ok((manifest, 0))
}

/// Makes a file without records, durably, and adds it to the manifest value.
fn add_file(folder: &Path, manifest: &mut Manifest, id: FileId, base: u64) -> Result<()> {
    let write = || {
        let mut file = File::create(folder.join(id.name()))?;
        file.write_all(&header())?;
        file.sync_all()?;
        sync_folder(folder)
    };
    write().map_err(io("making a file of the log"))?;
    manifest.files.insert(id, Known { durable: HEADER_BYTES, base });
    Ok(())
}

/// Brings a folder with a manifest into order, or says what is wrong with it.
fn recover(folder: &Path, mut manifest: Manifest) -> Result<(Manifest, u64)> {
    check_rows(folder, &manifest)?;
    let strays = check_files(folder, &manifest)?;
    let mut ends = Vec::new();
    for queue in Queue::BOTH {
        let Some((id, known)) = manifest.row(queue).next_back() else { continue };
        ends.push((id, check_end(folder, id, known, manifest.closed)?));
    }
    // Nothing was changed so far: a log that is refused stays as it was found.
    for stray in strays {
        fs::remove_file(folder.join(stray.name())).map_err(io("removing an old file"))?;
    }
    let number = ends.iter().map(|(_, end)| end.number).max().unwrap_or(0);
    for (id, end) in ends {
        settle(folder, id, end.at)?;
        // Where there was no header, there is one now.
        let durable = end.at.max(HEADER_BYTES);
        manifest.files.insert(id, Known { durable, base: manifest.files[&id].base });
        // What was at a place once may be in raft-engine's cache of blocks: never write there.
        if end.at.max(end.len) > HEADER_BYTES {
            let next = FileId { number: id.number + 1, ..id };
            add_file(folder, &mut manifest, next, number)?;
        }
    }
    manifest.closed = false;
    manifest.write(folder).map_err(io("writing the manifest"))?;
    Ok((manifest, number))
}

/// Compares the files there are with those there must be, and gives those that may go: older ones
/// whose removal did not last, and one that was to be the next.
fn check_files(folder: &Path, manifest: &Manifest) -> Result<Vec<FileId>> {
    let mut strays = Vec::new();
    let mut found = std::collections::BTreeMap::new();
    for (name, len) in listing(folder)? {
        let Some(id) = FileId::parse(&name) else { continue };
        if manifest.files.contains_key(&id) {
            found.insert(id, len);
            continue;
        }
        let first = manifest.row(id.queue).next();
        if len > HEADER_BYTES && first.is_some_and(|(first, _)| id.number > first.number) {
            return Err(corrupt(&folder.join(name), "the manifest does not name it"));
        }
        strays.push(id);
    }
    for queue in Queue::BOTH {
        let last = manifest.row(queue).next_back();
        for (id, known) in manifest.row(queue) {
            let path = folder.join(id.name());
            let Some(len) = found.get(&id) else {
                return Err(corrupt(&path, "it is missing"));
            };
            let is_last = last.is_some_and(|(last, _)| last == id);
            let fits = if is_last && !manifest.closed {
                *len >= known.durable
            } else {
                *len == known.durable
            };
            if !fits {
                let detail = format!("it has {len} bytes of {}", known.durable);
                return Err(corrupt(&path, detail));
            }
        }
    }
    Ok(strays)
}

/// Where the last file of a row ends.
struct End {
    /// After its last whole record; 0 if not even the header is there.
    at: u64,
    len: u64,
    /// The last write in it or before it.
    number: u64,
}

/// Reads the last file of a row, and tells a torn end from damage.
fn check_end(folder: &Path, id: FileId, known: Known, closed: bool) -> Result<End> {
    let path = folder.join(id.name());
    let bytes = fs::read(&path).map_err(io("reading the end of the log"))?;
    let len = bytes.len() as u64;
    match read_header(&bytes) {
        Header::Whole => {}
        Header::Version(version) => {
            return Err(foreign(&path, format!("raft-engine's version {version} is newer")));
        }
        // The power was cut while the file was made.
        Header::Broken if known.durable == 0 => return Ok(End { at: 0, len, number: known.base }),
        Header::Broken => return Err(corrupt(&path, "its header is damaged")),
    }
    let scan = scan(&bytes, id.number);
    let number = scan.last.map_or(known.base, |mark| mark.number);
    if scan.end < known.durable || closed && scan.end != len {
        return Err(corrupt(&path, format!("the record at {} is damaged", scan.end)));
    }
    if scan.durable_behind.is_some_and(|durable| durable > number) {
        let detail = format!("the record at {} is damaged, and was durable", scan.end);
        return Err(corrupt(&path, detail));
    }
    Ok(End { at: scan.end, len, number })
}

/// Cuts a torn end off, and makes what stays durable: a later synced write comes after it.
fn settle(folder: &Path, id: FileId, at: u64) -> Result<()> {
    let settle = || {
        let mut file = File::options().write(true).open(folder.join(id.name()))?;
        file.set_len(at)?;
        if at == 0 {
            file.write_all(&header())?;
        }
        file.sync_all()
    };
    settle().map_err(io("settling the end of the log"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A kill while the next file of a row is made leaves any part of its header.
    #[test]
    fn a_half_made_last_file_is_finished() {
        for queue in Queue::BOTH {
            for len in [0, 1, 20, HEADER_BYTES - 1, HEADER_BYTES, 2 << 20] {
                let dir = tempfile::tempdir().unwrap();
                let mut prepared = prepare(dir.path()).unwrap();
                let (id, known) = prepared.manifest.row(queue).next_back().unwrap();
                let half_made = Known { durable: 0, ..known };
                prepared.manifest.files.insert(id, half_made);
                prepared.manifest.write(dir.path()).unwrap();
                drop(prepared.lock);
                let mut bytes = header();
                bytes.resize(usize::try_from(len).unwrap(), 0);
                fs::write(dir.path().join(id.name()), bytes).unwrap();
                // Also when nothing is written until the log is closed.
                for closed in [false, true, true] {
                    let mut prepared = prepare(dir.path()).unwrap();
                    for (id, known) in &prepared.manifest.files {
                        let len = fs::metadata(dir.path().join(id.name())).unwrap().len();
                        assert_eq!(len, known.durable, "{id:?} of {len} bytes");
                    }
                    prepared.manifest.closed = closed;
                    prepared.manifest.write(dir.path()).unwrap();
                }
            }
        }
    }
}

//! Where a server keeps what it must not forget: one directory, one process, whole files.

use std::{
    fs::{self, File, TryLockError},
    io::{self, Write as _},
    path::{Path, PathBuf},
};

/// A directory that this process alone uses, until this is dropped.
#[derive(Debug)]
pub(super) struct Disk {
    dir: PathBuf,
    _lock: File,
}

impl Disk {
    /// Makes the directory if it is not there.
    ///
    /// # Errors
    /// `WouldBlock` if another process uses it.
    pub(super) fn open(dir: &Path) -> io::Result<Self> {
        fs::create_dir_all(dir)?;
        let lock =
            File::options().create(true).truncate(false).write(true).open(dir.join("LOCK"))?;
        lock.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => io::Error::from(io::ErrorKind::WouldBlock),
            TryLockError::Error(error) => error,
        })?;
        Ok(Self { dir: dir.to_path_buf(), _lock: lock })
    }

    /// A file as it was last written; `None` if it never was.
    pub(super) fn read(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        match fs::read(self.dir.join(name)) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Puts `bytes` in the place of a file. Afterwards, and after a crash at any moment, it
    /// is the old one or the new one; once this has returned, the new one.
    pub(super) fn write(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let draft = self.dir.join(format!("{name}.new"));
        let mut file = File::create(&draft)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&draft, self.dir.join(name))?;
        File::open(&self.dir)?.sync_all()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_the_last_one_written_whatever_a_draft_holds() {
        let dir = tempfile::tempdir().unwrap();
        let disk = Disk::open(dir.path()).unwrap();
        assert_eq!(disk.read("state").unwrap(), None);
        disk.write("state", b"one").unwrap();
        disk.write("state", b"two").unwrap();
        // A crash in the middle of the next one leaves this.
        fs::write(dir.path().join("state.new"), b"th").unwrap();
        assert_eq!(disk.read("state").unwrap().unwrap(), b"two");
        disk.write("state", b"three").unwrap();
        assert_eq!(disk.read("state").unwrap().unwrap(), b"three");
    }

    #[test]
    fn a_directory_has_one_user() {
        let dir = tempfile::tempdir().unwrap();
        let first = Disk::open(dir.path()).unwrap();
        let second = Disk::open(dir.path()).unwrap_err();
        assert_eq!(second.kind(), io::ErrorKind::WouldBlock);
        drop(first);
        Disk::open(dir.path()).unwrap();
    }
}

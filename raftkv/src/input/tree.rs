//! A directory tree: the key of a file is its path below the root, the value its contents.
//!
//! A file larger than one chunk becomes several records: the first under its path, the
//! others under its path, a zero byte (which no path holds) and the chunk's number in
//! hexadecimal, so that they sort in order behind the first. Names are bytes; they need not
//! be text. Symbolic links are not followed: they could lead out of the tree or round in it.

use std::{
    fs::{self, File},
    io::{self, Read},
    path::{Path, PathBuf},
};

use bytes::Bytes;

use super::{InputError, KEY_BYTES_MAX, Record, Survey};

/// Bytes of a file that one record holds.
pub(super) const CHUNK_BYTES: usize = 256 << 10;

/// Bytes that a chunk's number adds to the key.
const SUFFIX_BYTES: usize = 9;

/// One thing in the tree.
enum Found {
    File { path: PathBuf, bytes: u64 },
    Link,
    Special,
    EmptyDirectory,
}

/// Walks a tree in order of names, holding the names of one path's directories at a time.
struct Walk {
    /// What is left of each directory on the way down, last name first.
    levels: Vec<Vec<PathBuf>>,
}

impl Walk {
    fn new(root: &Path) -> Result<Self, InputError> {
        Ok(Self { levels: vec![children(root)?] })
    }

    fn next(&mut self) -> Result<Option<Found>, InputError> {
        while let Some(level) = self.levels.last_mut() {
            let Some(path) = level.pop() else {
                self.levels.pop();
                continue;
            };
            let meta = fs::symlink_metadata(&path)
                .map_err(|source| InputError::Read { path: path.clone(), source })?;
            if meta.is_dir() {
                let below = children(&path)?;
                if below.is_empty() {
                    return Ok(Some(Found::EmptyDirectory));
                }
                self.levels.push(below);
            } else if meta.is_symlink() {
                return Ok(Some(Found::Link));
            } else if meta.is_file() {
                return Ok(Some(Found::File { path, bytes: meta.len() }));
            } else {
                return Ok(Some(Found::Special));
            }
        }
        Ok(None)
    }
}

fn children(folder: &Path) -> Result<Vec<PathBuf>, InputError> {
    let failed = |source| InputError::Read { path: folder.to_path_buf(), source };
    let mut paths = fs::read_dir(folder)
        .and_then(|entries| {
            entries.map(|entry| entry.map(|entry| entry.path())).collect::<io::Result<Vec<_>>>()
        })
        .map_err(failed)?;
    paths.sort_unstable_by(|a, b| b.cmp(a));
    Ok(paths)
}

/// The path below the root as bytes, parts separated by slashes.
fn key_of(root: &Path, path: &Path) -> Result<Vec<u8>, InputError> {
    let below = path.strip_prefix(root).unwrap_or(path);
    let mut key = Vec::new();
    for part in below.components() {
        if !key.is_empty() {
            key.push(b'/');
        }
        key.extend_from_slice(part.as_os_str().as_encoded_bytes());
    }
    if key.len() + SUFFIX_BYTES > KEY_BYTES_MAX {
        return Err(InputError::LongPath { path: path.to_path_buf(), bytes: key.len() });
    }
    Ok(key)
}

fn chunk_key(path_key: &[u8], number: u64) -> Bytes {
    let mut key = path_key.to_vec();
    if number > 0 {
        key.push(0);
        key.extend_from_slice(format!("{number:08x}").as_bytes());
    }
    key.into()
}

/// Counts what [`Tree`] will give, from the sizes the file system tells.
pub(super) fn survey(root: &Path) -> Result<Survey, InputError> {
    let mut survey = Survey::default();
    let mut walk = Walk::new(root)?;
    while let Some(found) = walk.next()? {
        match found {
            Found::File { path, bytes } => {
                let key_bytes = key_of(root, &path)?.len() as u64;
                let chunks = bytes.div_ceil(CHUNK_BYTES as u64).max(1);
                survey.records += chunks;
                survey.bytes += bytes + key_bytes * chunks + SUFFIX_BYTES as u64 * (chunks - 1);
            }
            Found::Link => survey.links += 1,
            Found::Special => survey.specials += 1,
            Found::EmptyDirectory => survey.empty_directories += 1,
        }
    }
    Ok(survey)
}

/// A file being read.
struct Open {
    path: PathBuf,
    key: Vec<u8>,
    file: File,
    chunk: u64,
}

/// Reads a tree.
pub(super) struct Tree {
    root: PathBuf,
    walk: Walk,
    open: Option<Open>,
    is_over: bool,
}

impl Tree {
    pub(super) fn open(root: &Path) -> Result<Self, InputError> {
        let walk = Walk::new(root)?;
        Ok(Self { root: root.to_path_buf(), walk, open: None, is_over: false })
    }

    fn next_record(&mut self) -> Result<Option<Record>, InputError> {
        loop {
            if let Some(open) = &mut self.open {
                let mut value = Vec::new();
                (&mut open.file)
                    .take(CHUNK_BYTES as u64)
                    .read_to_end(&mut value)
                    .map_err(|source| InputError::Read { path: open.path.clone(), source })?;
                // An empty file is a record; the end of any other is none.
                if value.is_empty() && open.chunk > 0 {
                    self.open = None;
                    continue;
                }
                let key = chunk_key(&open.key, open.chunk);
                open.chunk += 1;
                if value.len() < CHUNK_BYTES {
                    self.open = None;
                }
                return Ok(Some(Record { key, value: value.into() }));
            }
            match self.walk.next()? {
                None => return Ok(None),
                Some(Found::File { path, .. }) => {
                    let key = key_of(&self.root, &path)?;
                    match File::open(&path) {
                        Ok(file) => self.open = Some(Open { path, key, file, chunk: 0 }),
                        Err(source) => return Err(InputError::Read { path, source }),
                    }
                }
                Some(_) => {}
            }
        }
    }
}

impl Iterator for Tree {
    type Item = Result<Record, InputError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.is_over {
            return None;
        }
        let next = self.next_record().transpose();
        self.is_over = !matches!(next, Some(Ok(_)));
        next
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let at = |path: &str| folder.path().join(path);
        fs::create_dir_all(at("b/deep")).unwrap();
        fs::create_dir(at("hollow")).unwrap();
        fs::write(at("a.txt"), "first").unwrap();
        fs::write(at("b/deep/none"), "").unwrap();
        fs::write(at("b/exact"), vec![1; CHUNK_BYTES]).unwrap();
        fs::write(at("b/large"), vec![2; 2 * CHUNK_BYTES + 5]).unwrap();
        folder
    }

    fn read(root: &Path) -> Vec<Record> {
        Tree::open(root).unwrap().map(Result::unwrap).collect()
    }

    #[test]
    fn files_become_records_in_chunks() {
        let folder = tree();
        let records = read(folder.path());
        let shapes: Vec<(&[u8], usize)> =
            records.iter().map(|record| (record.key.as_ref(), record.value.len())).collect();
        let expected: [(&[u8], usize); 6] = [
            (b"a.txt", 5),
            (b"b/deep/none", 0),
            (b"b/exact", CHUNK_BYTES),
            (b"b/large", CHUNK_BYTES),
            (b"b/large\x0000000001", CHUNK_BYTES),
            (b"b/large\x0000000002", 5),
        ];
        assert_eq!(shapes, expected);
        assert!(shapes.is_sorted());
    }

    #[test]
    fn the_survey_counts_what_comes() {
        let folder = tree();
        let mut counted = Survey::default();
        read(folder.path()).iter().for_each(|record| counted.count(record));
        counted.empty_directories = 1;
        assert_eq!(survey(folder.path()).unwrap(), counted);
    }

    #[cfg(unix)]
    #[test]
    fn links_are_left_out_and_names_need_not_be_text() {
        use std::{ffi::OsStr, os::unix::ffi::OsStrExt, os::unix::fs::symlink};

        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(OsStr::from_bytes(b"not-\xfftext")), "v").unwrap();
        symlink(folder.path(), folder.path().join("round")).unwrap();
        symlink("/nowhere", folder.path().join("dangling")).unwrap();
        let records = read(folder.path());
        assert_eq!(records.len(), 1);
        assert_eq!(records[0].key.as_ref(), b"not-\xfftext");
        assert_eq!(survey(folder.path()).unwrap().links, 2);
    }
}

//! The directory of a demo or of a node: what may be used, who holds it, and where things lie in it.
//!
//! Nothing is changed in a directory before it is clear that it is ours: it is absent, empty,
//! or carries our marker with the same settings.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Write},
    path::{Path, PathBuf},
};

/// What the marker of a demo begins with; the number is the version of the layout.
const DEMO_FORMAT: &str = "raftkv demo 1";
/// The same for a node.
const NODE_FORMAT: &str = "raftkv node 1";

/// What a directory was made for; later runs must agree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Settings {
    /// The engine's name.
    pub(crate) engine: &'static str,
    /// The name of what holds the raft logs.
    pub(crate) raft_log: &'static str,
    /// How many stores.
    pub(crate) stores: u64,
}

/// The content of a marker.
struct Marker {
    format: &'static str,
    /// Settings in order: name, value, and the value of a marker that has none.
    settings: Vec<(&'static str, String, &'static str)>,
}

impl Settings {
    fn marker(self) -> Marker {
        let Self { engine, raft_log, stores } = self;
        let settings = vec![
            ("engine", engine.to_owned(), "missing"),
            // Directories made before there was a choice have no such line, and logs on redb.
            ("raft-log", raft_log.to_owned(), "redb"),
            ("stores", stores.to_string(), "missing"),
        ];
        Marker { format: DEMO_FORMAT, settings }
    }
}

/// Why a directory cannot be used: what, where, and what to do.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LayoutError {
    /// Another process holds it.
    #[error("{} is in use by another raftkv: wait for its end or name another --dir", path.display())]
    InUse {
        /// The directory.
        path: PathBuf,
    },
    /// It holds something else.
    #[error(
        "{} holds files that are not this program's: name an empty or new directory with --dir",
        path.display()
    )]
    Foreign {
        /// The directory.
        path: PathBuf,
    },
    /// Its marker is of another version, or damaged.
    #[error("{} was made by another version of raftkv ({found}): name another --dir", path.display())]
    Version {
        /// The directory.
        path: PathBuf,
        /// The marker's first line.
        found: String,
    },
    /// It was made with other settings.
    #[error(
        "{} was made with {setting} {found}: run with --{setting} {found} or name another --dir",
        path.display()
    )]
    Settings {
        /// The directory.
        path: PathBuf,
        /// Which setting.
        setting: &'static str,
        /// Its value in the marker.
        found: String,
    },
    /// Something that is no directory is in the way.
    #[error("{} is not a directory: name another --dir", path.display())]
    NotADirectory {
        /// What is in the way.
        path: PathBuf,
    },
    /// The disk takes no writes.
    #[error("{} is on a read-only disk: name a --dir that can be written", path.display())]
    ReadOnly {
        /// The directory.
        path: PathBuf,
    },
    /// Writing is not allowed.
    #[error("no permission to write in {}: change it or name another --dir", path.display())]
    Denied {
        /// The directory.
        path: PathBuf,
    },
    /// The input and the directory lie in each other.
    #[error(
        "the input {} and the directory {} lie in each other: \
         the load would read what it writes: name another --dir",
        input.display(), dir.display()
    )]
    Entangled {
        /// The input.
        input: PathBuf,
        /// The directory.
        dir: PathBuf,
    },
    /// The system's word.
    #[error("cannot {doing} {}: {source}: check the disk or name another --dir", path.display())]
    Io {
        /// What was being done.
        doing: &'static str,
        /// To what.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}

/// A directory that this process holds.
#[derive(Debug)]
pub(crate) struct Layout {
    dir: PathBuf,
    is_new: bool,
    /// Released when the file is closed, also by the end of the process.
    _lock: File,
}

impl Layout {
    /// Takes hold of the `dir` of a demo, making it if needed.
    pub(crate) fn open(dir: &Path, settings: Settings) -> Result<Self, LayoutError> {
        Self::open_marked(dir, &settings.marker())
    }

    /// Takes hold of the `dir` of a node with these engines, making it if needed.
    pub(crate) fn open_node(dir: &Path, engine: &str, raft_log: &str) -> Result<Self, LayoutError> {
        let settings = vec![
            ("engine", engine.to_owned(), "missing"),
            ("raft-log", raft_log.to_owned(), "missing"),
        ];
        Self::open_marked(dir, &Marker { format: NODE_FORMAT, settings })
    }

    fn open_marked(dir: &Path, wanted: &Marker) -> Result<Self, LayoutError> {
        let marker = dir.join("marker");
        let is_new = match read_marker(&marker)? {
            Some(text) => {
                check_marker(dir, &text, wanted)?;
                false
            }
            None => {
                if !is_vacant(dir)? {
                    return Err(LayoutError::Foreign { path: dir.to_path_buf() });
                }
                true
            }
        };
        fs::create_dir_all(dir).map_err(explain("create", dir))?;
        let lock_path = dir.join("lock");
        let lock = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .open(&lock_path)
            .map_err(explain("open", &lock_path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(LayoutError::InUse { path: dir.to_path_buf() });
            }
            Err(TryLockError::Error(source)) => return Err(explain("lock", &lock_path)(source)),
        }
        if is_new {
            write_marker(dir, &marker, wanted)?;
        }
        Ok(Self { dir: dir.to_path_buf(), is_new, _lock: lock })
    }

    /// Whether nothing was stored here before.
    pub(crate) const fn is_new(&self) -> bool {
        self.is_new
    }

    /// Where it is.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// The folder of a store, counted from 1.
    pub(crate) fn store(&self, number: u64) -> PathBuf {
        self.dir.join(format!("store-{number}"))
    }

    /// The manifest of acknowledged writes.
    pub(crate) fn manifest(&self) -> PathBuf {
        self.dir.join("acknowledged")
    }
}

/// Refuses an input that holds the directory, or lies in it.
pub(crate) fn check_apart(input: &Path, dir: &Path) -> Result<(), LayoutError> {
    let (Ok(real_input), Some(real_dir)) = (input.canonicalize(), resolve(dir)) else {
        return Ok(());
    };
    if real_input.starts_with(&real_dir) || real_dir.starts_with(&real_input) {
        return Err(LayoutError::Entangled { input: input.to_path_buf(), dir: dir.to_path_buf() });
    }
    Ok(())
}

/// The real path of something that need not exist yet.
fn resolve(path: &Path) -> Option<PathBuf> {
    let absolute = std::path::absolute(path).ok()?;
    let mut missing = Vec::new();
    for ancestor in absolute.ancestors() {
        if let Ok(real) = ancestor.canonicalize() {
            return Some(missing.iter().rev().fold(real, |path, part| path.join(part)));
        }
        missing.push(ancestor.file_name()?.to_owned());
    }
    None
}

fn explain(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> LayoutError {
    let path = path.to_path_buf();
    move |source| match source.kind() {
        io::ErrorKind::ReadOnlyFilesystem => LayoutError::ReadOnly { path },
        io::ErrorKind::PermissionDenied => LayoutError::Denied { path },
        io::ErrorKind::NotADirectory | io::ErrorKind::AlreadyExists => {
            LayoutError::NotADirectory { path }
        }
        _ => LayoutError::Io { doing, path, source },
    }
}

fn read_marker(marker: &Path) -> Result<Option<String>, LayoutError> {
    match fs::read(marker) {
        Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(explain("read", marker)(error)),
    }
}

/// Whether nothing lies there, but what a run that died at once may have left.
fn is_vacant(dir: &Path) -> Result<bool, LayoutError> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(true),
        Err(error) => return Err(explain("read", dir)(error)),
    };
    for entry in entries {
        let name = entry.map_err(explain("read", dir))?.file_name();
        if name != "lock" && name != "marker.new" {
            return Ok(false);
        }
    }
    Ok(true)
}

fn check_marker(dir: &Path, text: &str, wanted: &Marker) -> Result<(), LayoutError> {
    let path = || dir.to_path_buf();
    let mut lines = text.lines();
    let first = lines.next().unwrap_or_default();
    if first != wanted.format {
        let found = first.chars().filter(|letter| !letter.is_control()).take(40).collect();
        return Err(LayoutError::Version { path: path(), found });
    }
    for (setting, wanted, otherwise) in &wanted.settings {
        let found = lines
            .clone()
            .find_map(|line| line.strip_prefix(setting)?.strip_prefix(' '))
            .unwrap_or(otherwise);
        if found != wanted {
            let (setting, found) = (*setting, found.to_owned());
            return Err(LayoutError::Settings { path: path(), setting, found });
        }
    }
    Ok(())
}

/// The marker comes to its place whole and durable, before anything else does.
fn write_marker(dir: &Path, marker: &Path, wanted: &Marker) -> Result<(), LayoutError> {
    let mut text = format!("{}\n", wanted.format);
    for (setting, value, _) in &wanted.settings {
        text += &format!("{setting} {value}\n");
    }
    let draft = dir.join("marker.new");
    let write = || -> io::Result<()> {
        let mut file = File::create(&draft)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&draft, marker)?;
        File::open(dir)?.sync_all()
    };
    write().map_err(explain("write", marker))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SETTINGS: Settings = Settings { engine: "redb", raft_log: "raft-engine", stores: 3 };

    #[test]
    fn a_new_directory_is_made_and_found_again() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("deep/er");
        let layout = Layout::open(&dir, SETTINGS).unwrap();
        assert!(layout.is_new());
        drop(layout);
        assert!(!Layout::open(&dir, SETTINGS).unwrap().is_new());
    }

    /// XT-11: two processes never are the same store.
    #[test]
    fn xt_11_a_directory_in_use_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let _held = Layout::open(folder.path(), SETTINGS).unwrap();
        let error = Layout::open(folder.path(), SETTINGS).unwrap_err();
        assert!(matches!(error, LayoutError::InUse { .. }), "{error}");
    }

    #[test]
    fn other_settings_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        drop(Layout::open(folder.path(), SETTINGS).unwrap());
        let error = Layout::open(folder.path(), Settings { stores: 5, ..SETTINGS }).unwrap_err();
        assert!(error.to_string().contains("--stores 3"), "{error}");
        let error = Layout::open(folder.path(), Settings { engine: "other", ..SETTINGS });
        assert!(error.unwrap_err().to_string().contains("--engine redb"));
        let error = Layout::open(folder.path(), Settings { raft_log: "redb", ..SETTINGS });
        assert!(error.unwrap_err().to_string().contains("--raft-log raft-engine"));
    }

    /// XT-11: a node's directory is no demo's, of one pair of engines, and of one process.
    #[test]
    fn xt_11_the_directory_of_a_node_is_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let held = Layout::open_node(folder.path(), "redb", "raft-engine").unwrap();
        let error = Layout::open_node(folder.path(), "redb", "raft-engine").unwrap_err();
        assert!(matches!(error, LayoutError::InUse { .. }), "{error}");
        drop(held);
        let error = Layout::open_node(folder.path(), "rocksdb", "raft-engine").unwrap_err();
        assert!(error.to_string().contains("--engine redb"), "{error}");
        let error = Layout::open(folder.path(), SETTINGS).unwrap_err();
        assert!(matches!(error, LayoutError::Version { .. }), "{error}");
        drop(Layout::open_node(folder.path(), "redb", "raft-engine").unwrap());
    }

    #[test]
    fn a_marker_without_a_raft_log_means_redb() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("marker"), "raftkv demo 1\nengine redb\nstores 3\n").unwrap();
        let error = Layout::open(folder.path(), SETTINGS).unwrap_err();
        assert!(error.to_string().contains("--raft-log redb"), "{error}");
        drop(Layout::open(folder.path(), Settings { raft_log: "redb", ..SETTINGS }).unwrap());
    }

    #[test]
    fn the_files_of_others_are_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("letter.txt"), "dear").unwrap();
        let error = Layout::open(folder.path(), SETTINGS).unwrap_err();
        assert!(matches!(error, LayoutError::Foreign { .. }), "{error}");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        fs::write(folder.path().join("marker"), "raftkv demo 99\n").unwrap();
        let error = Layout::open(folder.path(), SETTINGS).unwrap_err();
        assert!(matches!(error, LayoutError::Version { .. }), "{error}");
    }

    #[test]
    fn a_file_in_the_way_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        fs::write(&path, "").unwrap();
        for dir in [path.clone(), path.join("below")] {
            let error = Layout::open(&dir, SETTINGS).unwrap_err();
            assert!(matches!(error, LayoutError::NotADirectory { .. }), "{error}");
        }
    }

    #[test]
    fn the_disk_s_refusals_say_what_to_do() {
        let dir = Path::new("data");
        let said = |kind: io::ErrorKind| explain("create", dir)(kind.into()).to_string();
        assert!(said(io::ErrorKind::ReadOnlyFilesystem).contains("data is on a read-only disk"));
        assert!(said(io::ErrorKind::PermissionDenied).contains("no permission to write in data"));
        assert!(said(io::ErrorKind::StorageFull).contains("check the disk"));
    }

    #[test]
    fn input_and_directory_must_lie_apart() {
        let folder = tempfile::tempdir().unwrap();
        let input = folder.path().join("input");
        fs::create_dir_all(&input).unwrap();
        fs::write(input.join("file"), "").unwrap();
        assert!(check_apart(&input, &input.join("new/data")).is_err());
        assert!(check_apart(&input, &input).is_err());
        assert!(check_apart(&input.join("file"), &input).is_err());
        assert!(check_apart(&input, &folder.path().join("input-data")).is_ok());
    }
}

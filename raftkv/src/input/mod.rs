//! Where the records of a load come from: a file of lines, a directory tree, or a generator.
//!
//! Every input can be read more than once and is read in bounded memory. It is surveyed
//! before anything is stored, so that what is wrong with it is said before it does harm.

mod generate;
mod lines;
mod tree;

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use bytes::Bytes;

pub(crate) use self::generate::Generator;

/// Longest key, in bytes.
pub(crate) const KEY_BYTES_MAX: usize = 4 << 10;

/// Longest value of one record, in bytes. A log entry may hold eight times as much; what
/// 256 callers have in flight has to fit into memory.
pub(crate) const VALUE_BYTES_MAX: usize = 1 << 20;

/// One key and its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    /// The key.
    pub(crate) key: Bytes,
    /// The value.
    pub(crate) value: Bytes,
}

/// What is wrong with an input: what, where, and what to do.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InputError {
    /// Nothing is there.
    #[error("input {} does not exist: name a file of key<TAB>value lines or a directory", path.display())]
    Missing {
        /// Where.
        path: PathBuf,
    },
    /// Neither a file nor a directory.
    #[error("input {} is neither a file nor a directory: name one of the two", path.display())]
    Special {
        /// Where.
        path: PathBuf,
    },
    /// A line that holds no record.
    #[error("{}, line {line}: {problem}", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: u64,
        /// What is wrong and what to do.
        problem: LineProblem,
    },
    /// A path that makes too long a key.
    #[error(
        "{}: the path is {bytes} bytes below the input, at most {KEY_BYTES_MAX} fit into a key: \
         name a directory closer to it",
        path.display()
    )]
    LongPath {
        /// Where.
        path: PathBuf,
        /// How long it is.
        bytes: usize,
    },
    /// The system refuses to read it.
    #[error("cannot read input {}: {source}: check its permissions and the disk", path.display())]
    Read {
        /// Where.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}

/// What is wrong with a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum LineProblem {
    /// There is no tab.
    #[error("no tab between key and value: write key<TAB>value")]
    NoTab,
    /// Nothing before the tab.
    #[error("the key is empty: write key<TAB>value")]
    EmptyKey,
    /// Too much before the tab.
    #[error("the key is longer than {KEY_BYTES_MAX} bytes: shorten it")]
    LongKey,
    /// Too much behind the tab.
    #[error("the value is longer than {VALUE_BYTES_MAX} bytes: cut it into several records")]
    LongValue,
}

/// What a load will hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Survey {
    /// Records.
    pub(crate) records: u64,
    /// Bytes of keys and values.
    pub(crate) bytes: u64,
    /// Symbolic links, which are not followed.
    pub(crate) links: u64,
    /// Sockets, pipes and devices, which have no contents.
    pub(crate) specials: u64,
    /// Directories with nothing to store in them.
    pub(crate) empty_directories: u64,
}

impl Survey {
    fn count(&mut self, record: &Record) {
        self.records += 1;
        self.bytes += (record.key.len() + record.value.len()) as u64;
    }

    /// What was left out, in words; `None` if nothing was.
    pub(crate) fn left_out(&self) -> Option<String> {
        let parts: Vec<String> = [
            (self.links, "symbolic links"),
            (self.specials, "special files"),
            (self.empty_directories, "empty directories"),
        ]
        .into_iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, what)| format!("{count} {what}"))
        .collect();
        (!parts.is_empty()).then(|| format!("left out: {}", parts.join(", ")))
    }
}

/// Records, or the first thing that is wrong.
pub(crate) type Records = Box<dyn Iterator<Item = Result<Record, InputError>>>;

/// A place that records come from.
#[derive(Clone, Debug)]
pub(crate) enum Input {
    /// Made up, `count` of them, the same ones for the same seed.
    Generated(Generator),
    /// A file of `key<TAB>value` lines.
    Lines(PathBuf),
    /// A directory: paths are keys, contents are values.
    Tree(PathBuf),
}

impl Input {
    /// Finds out what `path` is.
    pub(crate) fn at(path: &Path) -> Result<Self, InputError> {
        let path = path.to_path_buf();
        match fs::metadata(&path) {
            Ok(found) if found.is_dir() => Ok(Self::Tree(path)),
            Ok(found) if found.is_file() => Ok(Self::Lines(path)),
            Ok(_) => Err(InputError::Special { path }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Err(InputError::Missing { path })
            }
            Err(source) => Err(InputError::Read { path, source }),
        }
    }

    /// Reads it once to the end, and counts.
    pub(crate) fn survey(&self) -> Result<Survey, InputError> {
        match self {
            Self::Generated(generator) => Ok(generator.survey()),
            Self::Lines(_) => {
                let mut survey = Survey::default();
                for record in self.records()? {
                    survey.count(&record?);
                }
                Ok(survey)
            }
            Self::Tree(root) => tree::survey(root),
        }
    }

    /// Its records, from the first.
    pub(crate) fn records(&self) -> Result<Records, InputError> {
        Ok(match self {
            Self::Generated(generator) => Box::new(generator.records().map(Ok)),
            Self::Lines(path) => Box::new(lines::Lines::open(path)?),
            Self::Tree(root) => Box::new(tree::Tree::open(root)?),
        })
    }
}

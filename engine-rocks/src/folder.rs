//! What a folder is: empty, a database of this crate, or something else.
//!
//! RocksDB makes a new database wherever it finds none, also in what is left of an old one.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Write as _};
use std::path::Path;

use engine_traits::{Error, Result};

use crate::error::{NAME, io};

/// Names what the folder is.
const MARK_NAME: &str = "RAFTSTORE";
/// The mark while the database is made.
const NEXT_NAME: &str = "RAFTSTORE.next";
const TITLE: &str = "raftstore rows on RocksDB, format ";
const FORMAT: u32 = 1;
/// What RocksDB starts from.
const CURRENT_NAME: &str = "CURRENT";
/// Where rows to be ingested are gathered.
pub(crate) const INGEST_NAME: &str = "ingest";

/// What a database is used for. One opened as the other would be taken for a new store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Data,
    RaftLog,
}

impl Kind {
    const fn word(self) -> &'static str {
        match self {
            Self::Data => "data",
            Self::RaftLog => "raft log",
        }
    }
}

fn mark(kind: Kind) -> String {
    format!("{TITLE}{FORMAT}\n{}\n", kind.word())
}

fn foreign(folder: &Path, detail: impl Into<String>) -> Error {
    Error::Format { engine: NAME, path: folder.display().to_string(), detail: detail.into() }
}

/// Whether a database is to be made in the folder; an error if it must not be touched.
pub(crate) fn is_new(folder: &Path, kind: Kind) -> Result<bool> {
    if folder.try_exists().map_err(io("looking for the folder"))? && !folder.is_dir() {
        return Err(foreign(folder, "it is a file, not a folder"));
    }
    fs::create_dir_all(folder).map_err(io("creating the folder"))?;
    match fs::read_to_string(folder.join(MARK_NAME)) {
        Ok(text) => check_mark(folder, &text, kind).map(|()| false),
        Err(error) if error.kind() == ErrorKind::InvalidData => {
            Err(foreign(folder, format!("{MARK_NAME} is no text")))
        }
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let half_made = folder.join(NEXT_NAME).try_exists().map_err(io("looking"))?;
            let mut items = fs::read_dir(folder).map_err(io("listing the folder"))?;
            if !half_made && items.next().is_some() {
                return Err(foreign(folder, format!("it is not empty and has no {MARK_NAME}")));
            }
            write_durably(folder, NEXT_NAME, &mark(kind)).map_err(io("marking the folder"))?;
            Ok(true)
        }
        Err(error) => Err(io("reading the folder's mark")(error)),
    }
}

fn check_mark(folder: &Path, text: &str, kind: Kind) -> Result<()> {
    let lines = text.strip_prefix(TITLE).and_then(|rest| rest.split_once('\n'));
    let Some((format, rest)) = lines else {
        return Err(foreign(folder, format!("{MARK_NAME} is another program's")));
    };
    match format.parse::<u32>() {
        Ok(FORMAT) => {}
        Ok(newer) => return Err(foreign(folder, format!("format {newer} is not {FORMAT}"))),
        Err(_) => return Err(foreign(folder, format!("format \"{format}\" is no number"))),
    }
    if rest.trim_end() != kind.word() {
        let detail = format!("it holds \"{}\", not \"{}\"", rest.trim_end(), kind.word());
        return Err(foreign(folder, detail));
    }
    if !folder.join(CURRENT_NAME).try_exists().map_err(io("looking"))? {
        return Err(Error::Corrupt {
            engine: NAME,
            place: folder.display().to_string(),
            detail: format!("{CURRENT_NAME} is missing"),
        });
    }
    Ok(())
}

/// Takes in that the database of a new folder is made.
pub(crate) fn is_made(folder: &Path) -> Result<()> {
    let rename = || {
        fs::rename(folder.join(NEXT_NAME), folder.join(MARK_NAME))?;
        File::open(folder)?.sync_all()
    };
    rename().map_err(io("marking the folder"))
}

/// Marks the copy of a database.
pub(crate) fn mark_copy(folder: &Path, kind: Kind) -> Result<()> {
    write_durably(folder, MARK_NAME, &mark(kind)).map_err(io("marking the copy"))
}

fn write_durably(folder: &Path, name: &str, text: &str) -> io::Result<()> {
    let mut file = File::create(folder.join(name))?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    File::open(folder)?.sync_all()
}

//! A file of `key<TAB>value` lines. Everything behind the first tab is value; a line ends at
//! a line feed, and a carriage return before it belongs to the line end.

use std::{
    fs::File,
    io::{BufRead, BufReader, Read},
    path::{Path, PathBuf},
};

use bytes::Bytes;

use super::{InputError, KEY_BYTES_MAX, LineProblem, Record, VALUE_BYTES_MAX};

/// Longest line that can hold a record: key, tab, value, carriage return, line feed.
const LINE_BYTES_MAX: usize = KEY_BYTES_MAX + 1 + VALUE_BYTES_MAX + 2;

/// Reads such a file.
pub(super) struct Lines {
    path: PathBuf,
    reader: BufReader<File>,
    line: u64,
    is_over: bool,
}

impl Lines {
    pub(super) fn open(path: &Path) -> Result<Self, InputError> {
        let path = path.to_path_buf();
        match File::open(&path) {
            Ok(file) => {
                let reader = BufReader::with_capacity(64 << 10, file);
                Ok(Self { path, reader, line: 0, is_over: false })
            }
            Err(source) => Err(InputError::Read { path, source }),
        }
    }

    fn next_record(&mut self) -> Result<Option<Record>, InputError> {
        loop {
            let mut line = Vec::new();
            // No more than a line may hold is ever taken into memory.
            let mut limited = self.reader.by_ref().take(LINE_BYTES_MAX as u64);
            let read = limited
                .read_until(b'\n', &mut line)
                .map_err(|source| InputError::Read { path: self.path.clone(), source })?;
            if read == 0 {
                return Ok(None);
            }
            self.line += 1;
            if line.last() == Some(&b'\n') {
                line.pop();
                if line.last() == Some(&b'\r') {
                    line.pop();
                }
            }
            if !line.is_empty() {
                return parse(line).map(Some).map_err(|problem| InputError::Line {
                    path: self.path.clone(),
                    line: self.line,
                    problem,
                });
            }
        }
    }
}

/// Cuts a line without its end. Key and value share its memory.
fn parse(line: Vec<u8>) -> Result<Record, LineProblem> {
    let Some(tab) = line.iter().position(|byte| *byte == b'\t') else {
        return Err(LineProblem::NoTab);
    };
    if tab == 0 {
        return Err(LineProblem::EmptyKey);
    }
    if tab > KEY_BYTES_MAX {
        return Err(LineProblem::LongKey);
    }
    if line.len() - tab - 1 > VALUE_BYTES_MAX {
        return Err(LineProblem::LongValue);
    }
    let line = Bytes::from(line);
    Ok(Record { key: line.slice(..tab), value: line.slice(tab + 1..) })
}

impl Iterator for Lines {
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

    fn read(text: &[u8]) -> Result<Vec<(String, String)>, (u64, LineProblem)> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("records");
        std::fs::write(&path, text).unwrap();
        let text = |bytes: &Bytes| String::from_utf8_lossy(bytes).into_owned();
        Lines::open(&path)
            .unwrap()
            .map(|record| match record {
                Ok(record) => Ok((text(&record.key), text(&record.value))),
                Err(InputError::Line { line, problem, .. }) => Err((line, problem)),
                Err(error) => panic!("{error}"),
            })
            .collect()
    }

    fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn lines_become_records() {
        let text = b"a\t1\n\nb\t2\ttwo\r\nc\t";
        assert_eq!(read(text), Ok(pairs(&[("a", "1"), ("b", "2\ttwo"), ("c", "")])));
        assert_eq!(read(b""), Ok(Vec::new()));
    }

    #[test]
    fn what_is_wrong_is_said_with_its_line() {
        assert_eq!(read(b"a\t1\nb 2\n"), Err((2, LineProblem::NoTab)));
        assert_eq!(read(b"\n\t1\n"), Err((2, LineProblem::EmptyKey)));
        let mut long = vec![b'k'; KEY_BYTES_MAX + 1];
        long.extend_from_slice(b"\tv\n");
        assert_eq!(read(&long), Err((1, LineProblem::LongKey)));
    }

    #[test]
    fn the_longest_value_fits_and_one_byte_more_does_not() {
        let mut text = b"key\t".to_vec();
        text.resize(text.len() + VALUE_BYTES_MAX, b'v');
        let longest = read(&text).unwrap();
        assert_eq!(longest[0].1.len(), VALUE_BYTES_MAX);
        text.push(b'v');
        assert_eq!(read(&text), Err((1, LineProblem::LongValue)));
        text.resize(3 * LINE_BYTES_MAX, b'v');
        assert_eq!(read(&text), Err((1, LineProblem::LongValue)));
    }
}

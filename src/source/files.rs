//! Files, folders and stdin.
//!
//! In: paths. Out: pieces of plain bytes, in order. Invariant: at most `MAX_PIECE_BYTES` of a file are held at a time.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use flate2::bufread::MultiGzDecoder;

/// Read at a time.
const CHUNK_BYTES: usize = 1 << 20;
/// One text that is longer than this is given up.
pub const MAX_PIECE_BYTES: usize = 64 << 20;
/// Gzip inside gzip, at most.
const MAX_GZIP_LAYERS: usize = 4;

/// All files under `paths`, sorted within each folder; `-` is stdin.
///
/// # Errors
/// A path that can't be read, by name.
pub fn walk(paths: &[PathBuf]) -> Result<Vec<PathBuf>, FileError> {
    let mut files = Vec::new();
    for path in paths {
        if path == Path::new("-") {
            files.push(path.clone());
        } else {
            collect(path, &mut files)?;
        }
    }
    Ok(files)
}

fn collect(path: &Path, files: &mut Vec<PathBuf>) -> Result<(), FileError> {
    let fault = |error| FileError { path: path.to_owned(), error };
    if !std::fs::metadata(path).map_err(fault)?.is_dir() {
        files.push(path.to_owned());
        return Ok(());
    }
    let mut entries = std::fs::read_dir(path).map_err(fault)?.map(|e| e.map(|e| e.path())).collect::<io::Result<Vec<_>>>().map_err(fault)?;
    entries.sort();
    entries.iter().try_for_each(|entry| collect(entry, files))
}

#[derive(Debug, thiserror::Error)]
#[error("{}: {error}", path.display())]
pub struct FileError {
    pub path: PathBuf,
    pub error: io::Error,
}

/// One file, read piece by piece.
pub struct Pieces {
    reader: Box<dyn Read>,
    buffer: Vec<u8>,
    /// `buffer[..filled]` holds bytes.
    filled: usize,
    last: bool,
}

impl Pieces {
    /// # Errors
    /// What opening or the first read says.
    pub fn open(path: &Path) -> io::Result<Self> {
        let mut reader: Box<dyn BufRead> = if path == Path::new("-") {
            Box::new(BufReader::new(io::stdin()))
        } else {
            Box::new(BufReader::with_capacity(256 << 10, File::open(path)?))
        };
        for _ in 0..MAX_GZIP_LAYERS {
            if !reader.fill_buf()?.starts_with(&[0x1f, 0x8b]) {
                break;
            }
            reader = Box::new(BufReader::with_capacity(256 << 10, MultiGzDecoder::new(reader)));
        }
        Ok(Self { reader: Box::new(reader), buffer: Vec::new(), filled: 0, last: false })
    }

    /// Adds to the piece; false at the end of the file.
    ///
    /// # Errors
    /// What the file or its gzip says. What was read before stays in `piece`.
    pub fn more(&mut self) -> io::Result<bool> {
        if self.last {
            return Ok(false);
        }
        let target = (self.filled + CHUNK_BYTES).max(self.filled * 2).min(MAX_PIECE_BYTES.max(self.filled + 1));
        if self.buffer.len() < target {
            self.buffer.resize(target, 0);
        }
        while self.filled < target {
            match self.reader.read(&mut self.buffer[self.filled..target]) {
                Ok(0) => {
                    self.last = true;
                    break;
                }
                Ok(read) => self.filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    self.last = true;
                    return Err(error);
                }
            }
        }
        Ok(true)
    }

    /// The bytes at hand, and whether nothing follows them.
    pub fn piece(&self) -> (&[u8], bool) {
        (&self.buffer[..self.filled], self.last)
    }

    /// Drops the first `bytes` of the piece.
    pub fn consume(&mut self, bytes: usize) {
        self.buffer.copy_within(bytes..self.filled, 0);
        self.filled -= bytes;
    }
}

//! The files themselves: made with the right mode, and held by one process.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::{OpenError, schema};

/// The file names principals and keeps hashes of secrets: nobody else reads it.
const MODE: u32 = 0o600;

/// Takes the lock beside the store's file, for as long as what is returned lives.
///
/// SQLite's own lock is on the inode, and so would not keep a second process from a copy that was put in
/// place of the file; and it is given up when this process closes any other handle of the file.
pub(super) fn lock(path: &Path) -> Result<File, OpenError> {
    let beside = beside(path);
    let file = open(&beside, path)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(OpenError::InUse {
            path: path.to_path_buf(),
        }),
        Err(TryLockError::Error(error)) => Err(explain(error, &beside)),
    }
}

/// Where SQLite keeps the application's number, and what is before it.
const HEADER_BYTES: u64 = 72;
const APPLICATION_AT: usize = 68;

/// Makes the store's file if it is not there, so that it survives a crash of the machine. One that is
/// there and is something else is left as it is: SQLite would already change it on opening.
pub(super) fn make(path: &Path) -> Result<(), OpenError> {
    let mut header = Vec::new();
    open(path, path)?
        .take(HEADER_BYTES)
        .read_to_end(&mut header)
        .map_err(|error| explain(error, path))?;
    let is_ours = header.starts_with(b"SQLite format 3\0")
        && header.get(APPLICATION_AT..) == Some(&schema::APPLICATION.to_be_bytes());
    if !header.is_empty() && !is_ours {
        return Err(OpenError::NotAStore {
            path: path.to_path_buf(),
        });
    }
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        Some(_) | None => Path::new("."),
    };
    File::open(directory)
        .and_then(|directory| directory.sync_all())
        .map_err(|error| explain(error, directory))
}

fn beside(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    PathBuf::from(name)
}

fn open(path: &Path, asked: &Path) -> Result<File, OpenError> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(MODE)
        .open(path)
        .map_err(|error| match error.kind() {
            ErrorKind::NotFound | ErrorKind::NotADirectory => OpenError::DirectoryMissing {
                path: asked.to_path_buf(),
            },
            _ => explain(error, path),
        })
}

fn explain(error: io::Error, path: &Path) -> OpenError {
    let path = path.to_path_buf();
    match error.kind() {
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => {
            OpenError::Permission { path }
        }
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => OpenError::NoSpace { path },
        ErrorKind::IsADirectory => OpenError::NotAStore { path },
        _ => OpenError::Failed {
            path,
            source: error.into(),
        },
    }
}

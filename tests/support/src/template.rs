//! Data directories of new servers, made once and copied for each test: making one takes longer than most
//! tests do.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::home::workspace;
use crate::{Error, program};

/// Makes `data` as the command does: by a copy of what it has made before with the same programs, if that is
/// there.
pub(crate) async fn fill(
    data: &Path,
    name: &str,
    server: &Path,
    make: Command,
) -> Result<(), Error> {
    let Some(template) = place(name, server) else {
        return program::run(make).await.map(drop);
    };
    if template.is_dir() {
        if copy(&template, data).await.is_ok() {
            return Ok(());
        }
        // Half of a copy is no directory to make one in. There may be none.
        drop(fs::remove_dir_all(data));
    }
    program::run(make).await?;
    keep(data, &template).await;
    Ok(())
}

/// Where the template of these programs and this user lies. Another version has another.
fn place(name: &str, server: &Path) -> Option<PathBuf> {
    let program = fs::metadata(server).ok()?;
    let user = rustix::process::geteuid().as_raw();
    let key = format!("{name}-{}-{}-{user}", program.mtime(), program.size());
    Some(workspace().join("target/test-servers").join(key))
}

/// Nobody sees half of a template: it gets its name when it is whole. Whoever is second has made one in vain, and
/// whoever cannot keep one does without.
async fn keep(data: &Path, template: &Path) {
    let unfinished = template.with_extension(format!("{}.unfinished", std::process::id()));
    let folder = template.parent().unwrap_or(template);
    if fs::create_dir_all(folder).is_err()
        || copy(data, &unfinished).await.is_err()
        || fs::rename(&unfinished, template).is_err()
    {
        drop(fs::remove_dir_all(&unfinished));
    }
}

/// With owners and modes, as servers insist on them.
async fn copy(from: &Path, to: &Path) -> Result<(), Error> {
    let mut copy = Command::new("cp");
    copy.arg("-a").arg(from).arg(to);
    program::run(copy).await.map(drop)
}

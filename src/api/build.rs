//! Compiles `proto/` without protoc: once into Rust, once with its comments for reflection.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::{env, fs};

use protox::Compiler;

/// A link to the folder at the top of the repository, so that a published crate carries the files.
const ROOT: &str = "proto";
const PACKAGE: &str = "palisade/v1";

/// Messages that carry a secret or metadata, which must never reach a log: `redact.rs` prints them.
const REDACTED: [&str; 5] = [
    ".palisade.v1.SessionRef",
    ".palisade.v1.SessionOpening",
    ".palisade.v1.Lease",
    ".palisade.v1.AcquireRequest",
    ".palisade.v1.AttachAcquire",
];

fn main() -> Result<(), Box<dyn Error>> {
    let folder = Path::new(ROOT).join(PACKAGE);
    println!("cargo::rerun-if-changed={}", folder.display());
    let files = proto_files(&folder)?;
    for file in &files {
        println!("cargo::rerun-if-changed={}", file.display());
    }

    let out = PathBuf::from(env::var("OUT_DIR")?);
    let mut compiler = Compiler::new([ROOT])?;
    compiler
        .include_source_info(true)
        .include_imports(true)
        .open_files(&files)?;
    fs::write(
        out.join("palisade.v1.bin"),
        compiler.encode_file_descriptor_set(),
    )?;

    tonic_prost_build::configure()
        .emit_rerun_if_changed(false)
        .skip_debug(REDACTED)
        .codec_path("crate::codec::LeanCodec")
        .compile_fds(compiler.file_descriptor_set())?;
    Ok(())
}

fn proto_files(folder: &Path) -> Result<Vec<PathBuf>, Box<dyn Error>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path
            .extension()
            .is_some_and(|extension| extension == "proto")
        {
            files.push(path);
        }
    }
    files.sort();
    if files.is_empty() {
        return Err(format!("no .proto files in {}", folder.display()).into());
    }
    Ok(files)
}

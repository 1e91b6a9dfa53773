//! Answers the `protoc` calls that prost-build makes, by way of protox.
//!
//! prost-build calls `protoc --include_imports --include_source_info -o FILE -I DIR… PROTO…`,
//! and `protoc --version`. Any other option is an error, so that nothing is dropped on the quiet.

use std::path::PathBuf;
use std::process::ExitCode;

struct Call {
    includes: Vec<PathBuf>,
    files: Vec<PathBuf>,
    output: PathBuf,
}

fn parse(mut args: impl Iterator<Item = String>) -> Result<Call, String> {
    let mut call = Call { includes: Vec::new(), files: Vec::new(), output: PathBuf::new() };
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--include_imports" | "--include_source_info" | "--experimental_allow_proto3_optional" => {}
            "-o" => call.output = args.next().ok_or("-o names no file")?.into(),
            "-I" => call.includes.push(args.next().ok_or("-I names no folder")?.into()),
            other if other.starts_with('-') => return Err(format!("option not served: {other}")),
            file => call.files.push(file.into()),
        }
    }
    if call.output.as_os_str().is_empty() || call.files.is_empty() {
        return Err("usage: -o FILE -I DIR… PROTO…".to_owned());
    }
    Ok(call)
}

fn compile(call: &Call) -> Result<(), String> {
    let mut compiler = protox::Compiler::new(&call.includes).map_err(|error| error.to_string())?;
    compiler.include_imports(true).include_source_info(true);
    compiler.open_files(&call.files).map_err(|error| format!("{error:?}"))?;
    std::fs::write(&call.output, compiler.encode_file_descriptor_set())
        .map_err(|error| format!("{}: {error}", call.output.display()))
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if args.first().is_some_and(|first| first == "--version") {
        println!("libprotoc 34.0");
        return ExitCode::SUCCESS;
    }
    match parse(args.into_iter()).and_then(|call| compile(&call)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("protoc-shim: {message}");
            ExitCode::FAILURE
        }
    }
}

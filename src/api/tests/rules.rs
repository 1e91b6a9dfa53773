//! The interface keeps buf's STANDARD rules, and everything in it has a comment.
//!
//! buf itself is not needed to build or test; these are the same rules over the same descriptors.

use std::collections::BTreeSet;

use palisade_api::FILE_DESCRIPTOR_SET;
use prost::Message;
use prost_types::{
    DescriptorProto, EnumDescriptorProto, FileDescriptorProto, FileDescriptorSet,
    ServiceDescriptorProto,
};

#[test]
fn the_interface_keeps_the_rules() {
    let set = FileDescriptorSet::decode(FILE_DESCRIPTOR_SET).unwrap();
    assert!(set.file.len() >= 6, "the descriptor set is not complete");
    let faults = check(&set);
    assert!(faults.is_empty(), "{faults:#?}");
}

#[test]
fn everything_the_design_names_is_there() {
    let set = FileDescriptorSet::decode(FILE_DESCRIPTOR_SET).unwrap();
    let rpcs: BTreeSet<String> = set
        .file
        .iter()
        .flat_map(|file| &file.service)
        .flat_map(|service| {
            service
                .method
                .iter()
                .map(|method| format!("{}.{}", service.name(), method.name()))
        })
        .collect();
    let wanted = [
        "AdminService.AdvanceGeneration",
        "AdminService.Drain",
        "AdminService.GetStatus",
        "AdminService.RevokeLease",
        "LeaseService.Acquire",
        "LeaseService.Attach",
        "LeaseService.CheckToken",
        "LeaseService.CloseSession",
        "LeaseService.GetLease",
        "LeaseService.ListLeases",
        "LeaseService.OpenSession",
        "LeaseService.Release",
        "LeaseService.RenewSession",
        "LeaseService.WatchLeases",
    ];
    assert_eq!(rpcs, wanted.into_iter().map(str::to_owned).collect());
}

/// A file without a fault; each case below spoils one thing in it.
const GOOD: &str = r#"syntax = "proto3";

package palisade.v1;

// Calls.
service ThingService {
  // Gets.
  rpc GetThing(GetThingRequest) returns (GetThingResponse);
}

// Asks.
message GetThingRequest {
  // Which.
  oneof which {
    // By name.
    string thing_name = 1;
  }
}

// Answers.
message GetThingResponse {
  // How.
  Kind kind = 1;
}

// How.
enum Kind {
  // None.
  KIND_UNSPECIFIED = 0;
}
"#;

#[test]
fn each_rule_finds_its_fault() {
    assert_eq!(faults_of(GOOD), Vec::<String>::new());
    let cases = [
        ("// Gets.\n", "", "no comment"),
        ("// By name.\n", "", "no comment"),
        ("// Which.\n", "", "no comment"),
        ("// None.\n", "", "no comment"),
        ("// Asks.\n", "", "no comment"),
        ("// Calls.\n", "", "no comment"),
        ("ThingService", "Things", "Service"),
        (
            "GetThing(GetThingRequest)",
            "GetThing(GetThingResponse)",
            "is not its own request",
        ),
        (
            "returns (GetThingResponse)",
            "returns (GetThingRequest)",
            "is not its own response",
        ),
        ("rpc GetThing(", "rpc getThing(", "PascalCase"),
        ("thing_name", "thingName", "lower_snake_case"),
        ("oneof which", "oneof Which", "lower_snake_case"),
        ("KIND_UNSPECIFIED", "KIND_NONE", "_UNSPECIFIED"),
        (
            "KIND_UNSPECIFIED",
            "UNSPECIFIED",
            "does not begin with KIND_",
        ),
        ("package palisade.v1", "package palisade.v2", "package"),
    ];
    for (from, to, fault) in cases {
        let bad = GOOD.replace(from, to);
        assert_ne!(bad, GOOD, "{from} is not in the file");
        let found = faults_of(&bad);
        assert!(
            found.iter().any(|text| text.contains(fault)),
            "{from} -> {to}: found {found:?}"
        );
    }
}

fn faults_of(text: &str) -> Vec<String> {
    let root = tempfile::tempdir().expect("a folder");
    let folder = root.path().join("palisade/v1");
    std::fs::create_dir_all(&folder).expect("a folder");
    std::fs::write(folder.join("thing.proto"), text).expect("a file");
    let mut compiler = protox::Compiler::new([root.path()]).expect("a folder to include");
    compiler
        .include_source_info(true)
        .open_file("palisade/v1/thing.proto")
        .expect("it compiles");
    let encoded = compiler.encode_file_descriptor_set();
    check(&FileDescriptorSet::decode(encoded.as_slice()).expect("the descriptors decode"))
}

// Field numbers of descriptor.proto, of which the paths to comments are made.
const FILE_MESSAGE: i32 = 4;
const FILE_ENUM: i32 = 5;
const FILE_SERVICE: i32 = 6;
const MESSAGE_FIELD: i32 = 2;
const MESSAGE_NESTED: i32 = 3;
const MESSAGE_ENUM: i32 = 4;
const MESSAGE_ONEOF: i32 = 8;
const ENUM_VALUE: i32 = 2;
const SERVICE_METHOD: i32 = 2;

fn check(set: &FileDescriptorSet) -> Vec<String> {
    let mut faults = Vec::new();
    let mut bodies = BTreeSet::new();
    for file in &set.file {
        let mut checker = Checker {
            file,
            faults: &mut faults,
        };
        checker.file();
        for (index, service) in indexed(&file.service) {
            checker.service(&[FILE_SERVICE, index], service, &mut bodies);
        }
        for (index, message) in indexed(&file.message_type) {
            checker.message(&[FILE_MESSAGE, index], message);
        }
        for (index, item) in indexed(&file.enum_type) {
            checker.enumeration(&[FILE_ENUM, index], item);
        }
    }
    faults
}

struct Checker<'a> {
    file: &'a FileDescriptorProto,
    faults: &'a mut Vec<String>,
}

impl Checker<'_> {
    fn fault(&mut self, text: String) {
        self.faults.push(format!("{}: {text}", self.file.name()));
    }

    fn need(&mut self, good: bool, name: &str, rule: &str) {
        if !good {
            self.fault(format!("{name} {rule}"));
        }
    }

    fn file(&mut self) {
        let file = self.file;
        let folder = file.package().replace('.', "/");
        let stem = file
            .name()
            .rsplit('/')
            .next()
            .and_then(|name| name.strip_suffix(".proto"));
        self.need(file.syntax() == "proto3", file.name(), "is not proto3");
        self.need(
            file.package() == "palisade.v1",
            file.name(),
            "has another package",
        );
        self.need(
            file.name()
                .rsplit_once('/')
                .is_some_and(|(path, _)| path == folder),
            file.name(),
            "is not in the folder of its package",
        );
        self.need(
            stem.is_some_and(is_snake),
            file.name(),
            "is not lower_snake_case.proto",
        );
        self.need(
            file.public_dependency.is_empty() && file.weak_dependency.is_empty(),
            file.name(),
            "has a public or weak import",
        );
        let used = used_types(file);
        self.need(
            used.iter().all(|name| name.starts_with(".palisade.v1.")),
            file.name(),
            "uses types of another package",
        );
    }

    fn comment(&mut self, path: &[i32], name: &str) {
        let commented = self
            .file
            .source_code_info
            .iter()
            .flat_map(|info| &info.location)
            .any(|location| {
                location.path == path && !location.leading_comments().trim().is_empty()
            });
        self.need(commented, name, "has no comment");
    }

    fn service(
        &mut self,
        path: &[i32],
        service: &ServiceDescriptorProto,
        bodies: &mut BTreeSet<String>,
    ) {
        self.comment(path, service.name());
        self.need(
            is_pascal(service.name()),
            service.name(),
            "is not PascalCase",
        );
        self.need(
            service.name().ends_with("Service"),
            service.name(),
            "does not end in Service",
        );
        for (index, method) in indexed(&service.method) {
            let name = method.name();
            self.comment(&join(path, SERVICE_METHOD, index), name);
            self.need(is_pascal(name), name, "is not PascalCase");
            let bodies_of = [
                (
                    method.input_type(),
                    "Request",
                    "takes what is not its own request",
                ),
                (
                    method.output_type(),
                    "Response",
                    "answers what is not its own response",
                ),
            ];
            for (body, suffix, rule) in bodies_of {
                let expected = format!(".{}.{name}{suffix}", self.file.package());
                self.need(
                    body == expected && bodies.insert(body.to_owned()),
                    name,
                    rule,
                );
            }
        }
    }

    fn message(&mut self, path: &[i32], message: &DescriptorProto) {
        // A map's entry is a message that nobody wrote.
        if message
            .options
            .as_ref()
            .is_some_and(|options| options.map_entry())
        {
            return;
        }
        let name = message.name();
        self.comment(path, name);
        self.need(is_pascal(name), name, "is not PascalCase");
        for (index, field) in indexed(&message.field) {
            let full = format!("{name}.{}", field.name());
            self.comment(&join(path, MESSAGE_FIELD, index), &full);
            self.need(is_snake(field.name()), &full, "is not lower_snake_case");
        }
        for (index, oneof) in indexed(&message.oneof_decl) {
            // `optional` makes a oneof that nobody wrote; its name begins with an underscore.
            if !oneof.name().starts_with('_') {
                let full = format!("{name}.{}", oneof.name());
                self.comment(&join(path, MESSAGE_ONEOF, index), &full);
                self.need(is_snake(oneof.name()), &full, "is not lower_snake_case");
            }
        }
        for (index, nested) in indexed(&message.nested_type) {
            self.message(&join(path, MESSAGE_NESTED, index), nested);
        }
        for (index, item) in indexed(&message.enum_type) {
            self.enumeration(&join(path, MESSAGE_ENUM, index), item);
        }
    }

    fn enumeration(&mut self, path: &[i32], item: &EnumDescriptorProto) {
        let name = item.name();
        let prefix = format!("{}_", upper_snake(name));
        self.comment(path, name);
        self.need(is_pascal(name), name, "is not PascalCase");
        self.need(
            !item
                .options
                .as_ref()
                .is_some_and(|options| options.allow_alias()),
            name,
            "allows aliases",
        );
        for (index, value) in indexed(&item.value) {
            let full = format!("{name}.{}", value.name());
            self.comment(&join(path, ENUM_VALUE, index), &full);
            let rule = format!("does not begin with {prefix}");
            self.need(value.name().starts_with(&prefix), &full, &rule);
            self.need(
                is_upper_snake(value.name()),
                &full,
                "is not UPPER_SNAKE_CASE",
            );
        }
        let zero = item.value.first().filter(|value| value.number() == 0);
        self.need(
            zero.is_some_and(|value| value.name().ends_with("_UNSPECIFIED")),
            name,
            "does not begin with a zero that ends in _UNSPECIFIED",
        );
    }
}

fn used_types(file: &FileDescriptorProto) -> Vec<&str> {
    file.message_type
        .iter()
        .flat_map(|message| &message.field)
        .map(|field| field.type_name())
        .filter(|name| !name.is_empty())
        .collect()
}

fn indexed<T>(items: &[T]) -> impl Iterator<Item = (i32, &T)> {
    (0..).zip(items)
}

fn join(path: &[i32], field: i32, index: i32) -> Vec<i32> {
    [path, &[field, index]].concat()
}

fn is_snake(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_lowercase())
        && name
            .chars()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
        && !name.contains("__")
}

fn is_upper_snake(name: &str) -> bool {
    is_snake(&name.to_ascii_lowercase()) && !name.chars().any(|c| c.is_ascii_lowercase())
}

fn is_pascal(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_uppercase())
        && name.chars().all(|c| c.is_ascii_alphanumeric())
}

fn upper_snake(name: &str) -> String {
    let mut out = String::new();
    for c in name.chars() {
        if c.is_ascii_uppercase() && !out.is_empty() {
            out.push('_');
        }
        out.push(c.to_ascii_uppercase());
    }
    out
}

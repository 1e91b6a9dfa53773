//! The numbers and types on the wire are committed in `wire.golden`: a change that breaks deployed
//! clients cannot slip in. After a change that was meant, run with `PALISADE_UPDATE_GOLDEN=1` and read
//! the difference.

use std::collections::BTreeSet;
use std::path::Path;

use palisade_api::FILE_DESCRIPTOR_SET;
use prost::Message;
use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{
    DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorSet,
    ServiceDescriptorProto,
};

const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/proto/palisade/v1/wire.golden");

#[test]
fn numbers_and_types_are_those_committed() {
    let now = listing();
    if std::env::var_os("PALISADE_UPDATE_GOLDEN").is_some() {
        std::fs::write(GOLDEN, &now).unwrap();
        return;
    }
    let committed = std::fs::read_to_string(Path::new(GOLDEN)).unwrap();
    let (old, new) = (lines(&committed), lines(&now));
    let gone: Vec<_> = old.difference(&new).collect();
    let added: Vec<_> = new.difference(&old).collect();
    assert!(
        gone.is_empty(),
        "breaks deployed clients: {gone:#?} became {added:#?}"
    );
    assert!(
        added.is_empty(),
        "not committed in wire.golden yet: {added:#?}"
    );
}

fn lines(text: &str) -> BTreeSet<&str> {
    text.lines().collect()
}

fn listing() -> String {
    let set = FileDescriptorSet::decode(FILE_DESCRIPTOR_SET).expect("the descriptors decode");
    let mut out = Vec::new();
    for file in &set.file {
        out.push(format!("file {} package {}", file.name(), file.package()));
        file.service
            .iter()
            .for_each(|service| list_service(&mut out, service));
        file.message_type
            .iter()
            .for_each(|message| list_message(&mut out, "", message));
        file.enum_type
            .iter()
            .for_each(|item| list_enum(&mut out, "", item));
    }
    out.join("\n") + "\n"
}

fn list_service(out: &mut Vec<String>, service: &ServiceDescriptorProto) {
    for method in &service.method {
        let stream = |yes| if yes { "stream " } else { "" };
        out.push(format!(
            "rpc {}.{}({}{}) returns ({}{})",
            service.name(),
            method.name(),
            stream(method.client_streaming()),
            method.input_type(),
            stream(method.server_streaming()),
            method.output_type(),
        ));
    }
}

fn list_message(out: &mut Vec<String>, parent: &str, message: &DescriptorProto) {
    let name = format!("{parent}{}", message.name());
    out.push(format!("message {name}"));
    for field in &message.field {
        let kind = type_name(message, field);
        out.push(format!(
            "{name}.{} = {}: {kind}",
            field.name(),
            field.number()
        ));
    }
    for range in &message.reserved_range {
        out.push(format!(
            "{name} reserved {}..{}",
            range.start(),
            range.end()
        ));
    }
    let parent = format!("{name}.");
    message
        .nested_type
        .iter()
        .for_each(|nested| list_message(out, &parent, nested));
    message
        .enum_type
        .iter()
        .for_each(|item| list_enum(out, &parent, item));
}

fn type_name(message: &DescriptorProto, field: &FieldDescriptorProto) -> String {
    let mut text = String::new();
    if field.label() == Label::Repeated {
        text.push_str("repeated ");
    }
    if field.proto3_optional() {
        text.push_str("optional ");
    } else if let Some(index) = field.oneof_index {
        let oneof = &message.oneof_decl[usize::try_from(index).expect("an index is not negative")];
        text.push_str(&format!("oneof {} ", oneof.name()));
    }
    match field.r#type() {
        Type::Message | Type::Enum => text.push_str(field.type_name()),
        scalar => {
            text.push_str(
                &scalar
                    .as_str_name()
                    .trim_start_matches("TYPE_")
                    .to_ascii_lowercase(),
            );
        }
    }
    text
}

fn list_enum(out: &mut Vec<String>, parent: &str, item: &EnumDescriptorProto) {
    for value in &item.value {
        out.push(format!(
            "{parent}{}.{} = {}",
            item.name(),
            value.name(),
            value.number()
        ));
    }
}

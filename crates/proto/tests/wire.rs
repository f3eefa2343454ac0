//! The protocol as a table against the protocol as it was generated.
//!
//! `wire.tsv` has a line for every message, enum and call: names, numbers, types, oneofs, maps,
//! reserved numbers, directions of streams. Both sides are turned into lines and must be equal,
//! so nothing can be missing, be there in addition, or differ.

use std::collections::BTreeMap;

use prost::Message;
use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{
    DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorSet,
    ServiceDescriptorProto,
};

const TABLE: &str = include_str!("wire.tsv");

/// Facts by kind and name: `("message", "metapb.Peer")` to the fields.
type Facts = BTreeMap<(&'static str, String), String>;

#[test]
fn the_generated_protocol_is_the_one_in_the_table() {
    let expected = facts_of_table();
    let generated = facts_of_descriptors();

    let mut differences = Vec::new();
    for (key, fact) in &expected {
        match generated.get(key) {
            None => differences.push(format!("missing: {} {}", key.0, key.1)),
            Some(other) if other != fact => differences
                .push(format!("{} {}\n  table:     {fact}\n  generated: {other}", key.0, key.1)),
            Some(_) => {}
        }
    }
    for key in generated.keys().filter(|key| !expected.contains_key(key)) {
        differences.push(format!("not in the table: {} {}", key.0, key.1));
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

#[test]
fn the_table_is_whole() {
    let facts = facts_of_table();
    let count = |kind: &str| facts.keys().filter(|key| key.0 == kind).count();
    assert_eq!(count("message"), 926);
    assert_eq!(count("enum"), 84);
    assert_eq!(count("rpc"), 269);
}

#[test]
fn every_file_is_proto3_without_options() {
    for file in descriptors().file {
        assert_eq!(file.syntax(), "proto3", "{}", file.name());
        assert!(file.extension.is_empty(), "{}", file.name());
        assert!(file.options.is_none(), "{}", file.name());
        assert_eq!(file.name(), format!("{}.proto", file.package()));
    }
}

fn descriptors() -> FileDescriptorSet {
    FileDescriptorSet::decode(pontoon_proto::FILE_DESCRIPTOR_SET)
        .expect("the build script wrote it")
}

fn facts_of_table() -> Facts {
    let mut facts = Facts::new();
    for line in TABLE.lines().filter(|line| !line.starts_with('#')) {
        let mut columns = line.splitn(3, '\t');
        let kind = match columns.next() {
            Some("message") => "message",
            Some("enum") => "enum",
            Some("rpc") => "rpc",
            other => panic!("no such kind: {other:?}"),
        };
        let name = columns.next().expect("each line has a name").to_owned();
        let fact = columns.next().unwrap_or_default().to_owned();
        assert!(facts.insert((kind, name), fact).is_none(), "twice: {line}");
    }
    facts
}

fn facts_of_descriptors() -> Facts {
    let mut facts = Facts::new();
    for file in descriptors().file {
        for message in &file.message_type {
            add_message(&mut facts, file.package(), message);
        }
        for values in &file.enum_type {
            add_enum(&mut facts, file.package(), values);
        }
        for service in &file.service {
            add_service(&mut facts, file.package(), service);
        }
    }
    facts
}

fn add_message(facts: &mut Facts, scope: &str, message: &DescriptorProto) {
    let name = format!("{scope}.{}", message.name());
    let mut fields: Vec<_> = message.field.iter().collect();
    fields.sort_by_key(|field| field.number());
    let mut items: Vec<String> =
        fields.into_iter().map(|field| field_fact(message, field)).collect();

    let mut ranges: Vec<_> = message.reserved_range.iter().collect();
    ranges.sort_by_key(|range| range.start());
    for range in ranges {
        let last = range.end() - 1; // the descriptor's end is exclusive
        items.push(match range.start() == last {
            true => format!("reserved:{last}"),
            false => format!("reserved:{}-{last}", range.start()),
        });
    }
    let mut names: Vec<_> = message.reserved_name.iter().collect();
    names.sort();
    items.extend(names.into_iter().map(|name| format!("reserved:\"{name}\"")));
    facts.insert(("message", name.clone()), items.join(" "));

    for nested in message.nested_type.iter().filter(|nested| !is_map_entry(nested)) {
        add_message(facts, &name, nested);
    }
    for values in &message.enum_type {
        add_enum(facts, &name, values);
    }
}

fn field_fact(message: &DescriptorProto, field: &FieldDescriptorProto) -> String {
    assert!(!field.proto3_optional(), "{}.{}", message.name(), field.name());
    let mut fact = format!("{}:{}:{}", field.number(), field_type(message, field), field.name());
    if let Some(index) = field.oneof_index {
        let oneof = &message.oneof_decl[index as usize];
        fact.push_str(&format!(":oneof:{}", oneof.name()));
    }
    fact
}

/// As the table says it: `uint64`, `metapb.Peer`, `bytes[]`, `map<uint64,pdpb.RegionResponse>`.
fn field_type(message: &DescriptorProto, field: &FieldDescriptorProto) -> String {
    let name = plain_type(field);
    if field.label() != Label::Repeated {
        return name;
    }
    let entry = message.nested_type.iter().find(|nested| {
        is_map_entry(nested) && name.ends_with(&format!("{}.{}", message.name(), nested.name()))
    });
    match entry {
        Some(entry) => {
            format!("map<{},{}>", plain_type(&entry.field[0]), plain_type(&entry.field[1]))
        }
        None => {
            // Repeated numbers are packed, as proto3 has it when nothing is said.
            assert!(field.options.as_ref().is_none_or(|options| options.packed.is_none()));
            format!("{name}[]")
        }
    }
}

fn plain_type(field: &FieldDescriptorProto) -> String {
    match field.r#type() {
        Type::Message | Type::Enum => field.type_name().trim_start_matches('.').to_owned(),
        Type::Group => panic!("groups are not proto3: {}", field.name()),
        scalar => scalar.as_str_name().trim_start_matches("TYPE_").to_lowercase(),
    }
}

fn is_map_entry(message: &DescriptorProto) -> bool {
    message.options.as_ref().is_some_and(|options| options.map_entry())
}

fn add_enum(facts: &mut Facts, scope: &str, values: &EnumDescriptorProto) {
    let mut pairs: Vec<_> =
        values.value.iter().map(|value| (value.number(), value.name())).collect();
    pairs.sort();
    let items: Vec<String> =
        pairs.iter().map(|(number, name)| format!("{number}:{name}")).collect();
    facts.insert(("enum", format!("{scope}.{}", values.name())), items.join(" "));
}

fn add_service(facts: &mut Facts, package: &str, service: &ServiceDescriptorProto) {
    for method in &service.method {
        let side = |streams: bool, name: &str| {
            let stream = if streams { "stream " } else { "" };
            format!("{stream}{}", name.trim_start_matches('.'))
        };
        let request = side(method.client_streaming(), method.input_type());
        let response = side(method.server_streaming(), method.output_type());
        let name = format!("{package}.{}/{}", service.name(), method.name());
        facts.insert(("rpc", name), format!("{request} -> {response}"));
    }
}

//! Values of a one-line JSON object, for the engines that log JSON.
//!
//! In: the object's text. Out: fields, strings unescaped. Invariant: the first member of a name counts, and nothing is built.

use crate::{decode::top, event::json::unescape};

use super::{fields::LogFields, statement::put_redacted, tax::Tax};

/// The raw value of a member.
pub(super) fn member<'a>(object: &'a [u8], name: &str) -> Option<&'a [u8]> {
    top::member(object, name).filter(|value| *value != b"null")
}

/// The first element of an array.
pub(super) fn first(array: &[u8]) -> Option<&[u8]> {
    top::elements(array).next()
}

/// A number, or a string without escapes, as its text.
pub(super) fn text(raw: &[u8]) -> &[u8] {
    top::string_content(raw).unwrap_or(raw)
}

/// Sets a field to a value: a string's content, anything else as written.
pub(super) fn put(fields: &mut LogFields, tax: Tax, raw: Option<&[u8]>) {
    let Some(raw) = raw else { return };
    match top::string_content(raw) {
        Some(content) if memchr::memchr(b'\\', content).is_some() => fields.put_with(tax, |arena| unescape(content, arena)),
        Some(content) => fields.put(tax, content),
        None => fields.put(tax, raw),
    }
}

/// The same, with secrets masked; objects and arrays as written.
pub(super) fn put_masked(fields: &mut LogFields, tax: Tax, raw: Option<&[u8]>, scratch: &mut Vec<u8>) {
    let Some(raw) = raw else { return };
    match top::string_content(raw) {
        Some(content) if memchr::memchr(b'\\', content).is_some() => {
            scratch.clear();
            unescape(content, scratch);
            put_redacted(fields, tax, scratch);
        }
        content => put_redacted(fields, tax, content.unwrap_or(raw)),
    }
}

/// Splits `address:port` at the last colon and sets both.
pub(super) fn put_endpoint(fields: &mut LogFields, endpoint: &[u8]) {
    match super::scan::cut_last(endpoint, b":").filter(|(_, port)| super::scan::number(port).is_some()) {
        Some((address, port)) => {
            fields.put(Tax::ClientAddress, address.strip_prefix(b"[").and_then(|inside| inside.strip_suffix(b"]")).unwrap_or(address));
            fields.put(Tax::ClientPort, port);
        }
        None => fields.put(Tax::ClientAddress, endpoint),
    }
}

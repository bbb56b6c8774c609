//! The logs of MySQL, MariaDB and Aurora MySQL: audit, error, general and slow.
//!
//! In: text of one of the four. Out: events. Invariant: names that a client chose are raw in all four, so each parser reads
//! from anchors that the server wrote, and tells a line that could be either as `log_forgery`.

pub(super) mod audit;
pub(super) mod error;
pub(super) mod general;
pub(super) mod slow;

use super::{LogFields, tax::Tax};

/// Error numbers that mean a refused login, and the reason.
const LOGIN: &[(u64, &str)] = &[
    (1040, "too_many_connections"),
    (1044, "not_permitted"),
    (1045, "bad_credentials"),
    (1049, "unknown_database"),
    (1129, "host_rejected"),
    (1130, "host_rejected"),
    (1203, "too_many_connections"),
    (1226, "too_many_connections"),
    (1251, "bad_credentials"),
    (1524, "other"),
    (1698, "bad_credentials"),
    (1820, "expired"),
    (1862, "expired"),
    (3118, "locked"),
    (3159, "tls"),
    (3955, "locked"),
    (4151, "locked"),
];

/// Error numbers of statements that were refused for lack of privilege.
const DENIED: &[u64] = &[1044, 1045, 1095, 1142, 1143, 1227, 1290, 1370, 1410, 1419, 1698, 1821, 3530];

fn login_reason(code: u64) -> &'static str {
    LOGIN.iter().find(|(known, _)| *known == code).map_or("other", |(_, reason)| reason)
}

/// Sets what a statement's error number says; whether there was an error.
fn put_error(fields: &mut LogFields, digits: &[u8]) -> bool {
    let code = super::scan::number(digits).unwrap_or_default();
    if code == 0 {
        fields.put(Tax::Outcome, b"success");
        return false;
    }
    fields.put(Tax::ErrorCode, digits);
    fields.put(Tax::Outcome, b"failure");
    if DENIED.contains(&code) {
        fields.put(Tax::Reason, b"permission_denied");
    }
    true
}

#[cfg(test)]
mod tests;

//! What a policy document grants.
//!
//! In: the JSON of an IAM or resource policy. Out: values of the `derived.policy.*` fields. Invariant: a statement counts as public
//! unless one of its conditions narrows the caller to something; text that can't be read is said to be so.

use super::contains_ignore_case;
use crate::event::{AccountId, FieldId, Schema, Slots, json};

/// Condition keys that narrow down who may call. `kms:ViaService` does not: it says how, not who.
const NARROWING: [&str; 16] = [
    "aws:principalorgid",
    "aws:principalorgpaths",
    "aws:principalaccount",
    "aws:principalarn",
    "aws:principalisawsservice",
    "aws:principalservicename",
    "aws:sourceaccount",
    "aws:sourcearn",
    "aws:sourceorgid",
    "aws:sourceip",
    "aws:sourcevpc",
    "aws:sourcevpce",
    "aws:userid",
    "kms:calleraccount",
    "kms:encryptioncontext:aws:rds:db-id",
    "saml:aud",
];

/// Those that name the caller's account: with `Principal: *` they say who is let in.
const NAMING: [&str; 3] = ["aws:principalaccount", "aws:principalarn", "kms:calleraccount"];

/// Accounts of AWS itself that deliver logs to buckets: load balancers', CloudTrail's of old and Redshift's audit logs.
const LOG_DELIVERY: [&[u8; ACCOUNT_DIGITS]; 30] = [
    b"127311923021",
    b"033677994240",
    b"027434742980",
    b"797873946194",
    b"985666609251",
    b"054676820928",
    b"156460612806",
    b"652711504416",
    b"009996457667",
    b"897822967062",
    b"582318560864",
    b"600734575887",
    b"114774131450",
    b"783225319266",
    b"718504428378",
    b"507241528517",
    b"754344448648",
    b"383597477331",
    b"076674570225",
    b"098369216593",
    b"754728514883",
    b"589379963580",
    b"297686090294",
    b"048591011584",
    b"190560391635",
    b"638102146993",
    b"086441151436",
    b"193672423079",
    b"262260360010",
    b"902366379725",
];

/// Digits of an account's number.
pub(super) const ACCOUNT_DIGITS: usize = 12;

const STATEMENT_FIELDS: [&str; 8] = ["Effect", "Principal", "Principal.AWS", "NotPrincipal", "Action", "NotAction", "Resource", "Condition"];

/// The derived fields that the loaded rules name.
pub(super) struct Targets {
    public: Option<FieldId>,
    public_by_address: Option<FieldId>,
    foreign_account: Option<FieldId>,
    foreign_principal: Option<FieldId>,
    foreign_unasked: Option<FieldId>,
    admin: Option<FieldId>,
    root_present: Option<FieldId>,
    condition: Option<FieldId>,
    unreadable: Option<FieldId>,
}

impl Targets {
    pub fn new(field: impl Fn(&str) -> Option<FieldId>) -> Self {
        Self {
            public: field("derived.policy.public"),
            public_by_address: field("derived.policy.public_by_address"),
            foreign_account: field("derived.policy.foreign_account"),
            foreign_principal: field("derived.policy.foreign_principal"),
            foreign_unasked: field("derived.policy.foreign_unasked"),
            admin: field("derived.policy.admin"),
            root_present: field("derived.policy.root_present"),
            condition: field("derived.policy.condition"),
            unreadable: field("derived.policy.unreadable"),
        }
    }
}

/// Accounts that are no strangers.
pub(super) struct Home<'a> {
    /// The event's.
    pub account: &'a [u8],
    /// As configured.
    pub own: &'a [AccountId],
    /// A bucket's policy: AWS's own accounts that deliver logs are no strangers there.
    pub bucket: bool,
}

impl Home<'_> {
    fn knows(&self, account: &[u8]) -> bool {
        self.own.iter().any(|own| own == account) || self.bucket && LOG_DELIVERY.iter().any(|known| known.as_slice() == account)
    }
}

/// Two small schemas and their buffers.
#[derive(Debug)]
pub(super) struct Reader {
    document: Schema,
    statement: Schema,
    statements: Slots,
    members: Slots,
}

impl Default for Reader {
    fn default() -> Self {
        let schema = |names: &[&str]| {
            let mut schema = Schema::new();
            for name in names {
                schema.add(name);
            }
            schema
        };
        Self { document: schema(&["Statement"]), statement: schema(&STATEMENT_FIELDS), statements: Slots::default(), members: Slots::default() }
    }
}

#[derive(Default)]
struct Grants {
    public: bool,
    public_by_address: bool,
    admin: bool,
    root: bool,
}

impl Reader {
    /// Adds to `out` what the policy `text` grants, seen from `home`.
    pub fn read(&mut self, text: &[u8], home: &Home<'_>, targets: &Targets, out: &mut Slots) {
        if json::fill(text, &self.document, &mut self.statements).is_err() {
            push(out, targets.unreadable, b"true");
            return;
        }
        let mut grants = Grants::default();
        let statement = FieldId(0);
        for value in self.statements.get(statement) {
            let Some(object) = self.statements.text(text, value) else { continue };
            if json::fill(object, &self.statement, &mut self.members).is_err() {
                push(out, targets.unreadable, b"true");
                continue;
            }
            Statement { object, schema: &self.statement, slots: &self.members }.judge(home, targets, &mut grants, out);
        }
        if grants.public {
            push(out, targets.public, b"true");
        }
        if grants.public_by_address {
            push(out, targets.public_by_address, b"true");
        }
        if grants.admin {
            push(out, targets.admin, b"true");
        }
        push(out, targets.root_present, if grants.root { b"true" } else { b"false" });
    }
}

fn push(out: &mut Slots, field: Option<FieldId>, text: &[u8]) {
    if let Some(field) = field {
        out.push_text(field, text);
    }
}

/// What a statement's conditions ask of the caller.
#[derive(Default)]
struct Conditions {
    narrow: bool,
    /// All that narrows is the address.
    by_address: bool,
    external_id: bool,
}

struct Statement<'a> {
    object: &'a [u8],
    schema: &'a Schema,
    slots: &'a Slots,
}

impl<'a> Statement<'a> {
    fn values(&self, name: &str) -> impl Iterator<Item = &'a [u8]> {
        let (slots, object) = (self.slots, self.object);
        let field = self.schema.id(name).unwrap_or(FieldId(u16::MAX));
        slots.get(field).filter_map(move |v| slots.text(object, v))
    }

    fn judge(&self, home: &Home<'_>, targets: &Targets, grants: &mut Grants, out: &mut Slots) {
        if !self.values("Effect").any(|effect| effect == b"Allow") {
            return;
        }
        let conditions = self.conditions(targets, out);
        // Everyone but those named.
        grants.public |= self.values("NotPrincipal").next().is_some() && !conditions.narrow;
        for principal in self.values("Principal").filter(|p| !p.starts_with(b"{")).chain(self.values("Principal.AWS")) {
            if principal == b"*" {
                grants.public |= !conditions.narrow;
                grants.public_by_address |= conditions.by_address;
                self.strangers_by_condition(home, targets, out);
                continue;
            }
            let Some(account) = account_of(principal) else { continue };
            if account == home.account {
                grants.root |= principal == home.account || principal.ends_with(b":root");
            } else if !home.knows(account) {
                push(out, targets.foreign_account, account);
                if !conditions.external_id {
                    push(out, targets.foreign_unasked, account);
                }
                push(out, targets.foreign_principal, principal);
            }
        }
        let all = self.values("Resource").any(|r| r == b"*");
        let wide = self.values("Action").any(|a| a == b"*" || a.ends_with(b":*")) || self.values("NotAction").next().is_some();
        grants.admin |= all && wide;
    }

    /// Accounts that a condition of a statement for everyone lets in.
    fn strangers_by_condition(&self, home: &Home<'_>, targets: &Targets, out: &mut Slots) {
        for condition in self.values("Condition") {
            for (_, keys) in members(condition).filter(|(operator, _)| !contains_ignore_case(operator, b"Not")) {
                let named = members(keys).filter(|(key, _)| is_among(key, &NAMING));
                for account in named.flat_map(|(_, value)| texts(value)).filter_map(account_of) {
                    if account != home.account && !home.knows(account) {
                        push(out, targets.foreign_account, account);
                        push(out, targets.foreign_unasked, account);
                    }
                }
            }
        }
    }

    /// Tells the condition keys; does one of them narrow the caller, or ask for an external id?
    fn conditions(&self, targets: &Targets, out: &mut Slots) -> Conditions {
        let mut found = Conditions::default();
        let mut otherwise = false;
        for condition in self.values("Condition") {
            for (operator, keys) in members(condition) {
                let positive = !contains_ignore_case(operator, b"Not") && !operator.starts_with(b"Null") && !operator.ends_with(b"IfExists");
                for (key, value) in members(keys) {
                    push(out, targets.condition, key);
                    let anybody = key.eq_ignore_ascii_case(b"aws:principalarn") && !texts(value).any(|arn| account_of(arn).is_some());
                    let open = anybody
                        || contains_ignore_case(value, br#""*""#)
                        || contains_ignore_case(value, br#""0.0.0.0/0""#)
                        || contains_ignore_case(value, br#""::/0""#);
                    let narrows = positive && !open && is_among(key, &NARROWING);
                    found.narrow |= narrows;
                    otherwise |= narrows && !key.eq_ignore_ascii_case(b"aws:sourceip");
                    found.external_id |= positive && !open && key.eq_ignore_ascii_case(b"sts:externalid");
                }
            }
        }
        found.by_address = found.narrow && !otherwise;
        found
    }
}

fn is_among(key: &[u8], names: &[&str]) -> bool {
    names.iter().any(|name| key.eq_ignore_ascii_case(name.as_bytes()))
}

/// The strings of a raw value: one, or those of an array.
fn texts(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let start = at + value.get(at..)?.iter().position(|b| *b == b'"')? + 1;
        let (end, _) = json::string(value, start).ok()?;
        at = end + 1;
        Some(&value[start..end])
    })
}

/// Keys and raw values of an object; ends where it stops being JSON.
fn members(object: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    let mut at = 1;
    std::iter::from_fn(move || {
        if !object.starts_with(b"{") {
            return None;
        }
        at += object.get(at..)?.iter().position(|b| *b == b'"')?;
        let (end, _) = json::string(object, at + 1).ok()?;
        let key = &object[at + 1..end];
        let value = end + 1 + object.get(end + 1..)?.iter().position(|b| !matches!(b, b':' | b' ' | b'\t' | b'\n' | b'\r'))?;
        at = json::skip(object, value).ok()?;
        Some((key, &object[value..at]))
    })
}

/// The account of `arn:aws:iam::123456789012:…`, or the twelve digits themselves. The organization and its units are named by the ARN
/// of the management account and are no stranger: nobody can share with an organization that isn't his own.
pub(super) fn account_of(principal: &[u8]) -> Option<&[u8]> {
    if principal.split(|b| *b == b':').nth(2) == Some(b"organizations") {
        return None;
    }
    let account = if principal.starts_with(b"arn:") { principal.split(|b| *b == b':').nth(4)? } else { principal };
    (account.len() == ACCOUNT_DIGITS && account.iter().all(u8::is_ascii_digit)).then_some(account)
}

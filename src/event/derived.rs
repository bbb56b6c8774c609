//! Fields that no event has but every author wants: what a policy grants, which engine a call means, where an address lies.
//!
//! In: the values of one event. Out: further values under `derived.*`. Invariant: computed only when a rule that can match names
//! them; nothing is allocated per event once the buffers have grown.

mod policy;

use std::io::Write as _;
use std::net::IpAddr;

use super::{Event, FieldId, Schema, Slots, ValueKind};

/// A derived field: its name, its group's bit and what it says.
pub const FIELDS: [(&str, u32, &str); 15] = [
    ("derived.policy.public", POLICY, "`true` if a statement allows everyone and no condition narrows who that is"),
    ("derived.policy.public_by_address", POLICY, "`true` if a statement allows everyone, of any account, who comes from certain addresses"),
    (
        "derived.policy.foreign_account",
        POLICY,
        "each account that a statement allows and that is neither the event's own nor in `own_accounts` or `trusted_accounts`",
    ),
    ("derived.policy.foreign_principal", POLICY, "each principal of such an account, as the policy writes it"),
    ("derived.policy.foreign_unasked", POLICY, "of these accounts, those that some statement allows without asking for an `sts:ExternalId`"),
    ("derived.policy.admin", POLICY, "`true` if a statement allows `*`, `service:*` or all but some actions on every resource"),
    ("derived.policy.root_present", POLICY, "`true` if the event's own account (its root) is among the allowed principals, else `false`"),
    ("derived.policy.condition", POLICY, "each condition key of the statements that allow"),
    ("derived.policy.unreadable", POLICY, "`true` if there is a policy that is not well-formed JSON"),
    ("derived.engine", ENGINE, "the database engine of an RDS-API call: `postgres`, `aurora-mysql`, `neptune`, `docdb`, …"),
    ("derived.source.network", NETWORK, "`public`, `private`, `aws-service`, `internal` or `other`, from sourceIPAddress"),
    (
        "derived.source.block",
        NETWORK,
        "the /16 (IPv4) or /32 (IPv6) of a public sourceIPAddress, as `203.0.0.0/16`: two in a short time are two networks",
    ),
    ("derived.principal.arn", PRINCIPAL, "userIdentity.arn, for a session its role's ARN: the same for every session"),
    ("derived.principal.kind", PRINCIPAL, "`person`, `workload`, `service`, `role` (a session that could be either) or `unknown`"),
    (
        "derived.foreign_account.<field>",
        FOREIGN,
        "each account in the values of `<field>`, an ARN or twelve digits, that is neither the event's own nor in `own_accounts` or `trusted_accounts`",
    ),
];

const POLICY: u32 = 1;
const ENGINE: u32 = 2;
const NETWORK: u32 = 4;
const PRINCIPAL: u32 = 8;
const FOREIGN: u32 = 16;

/// What follows names the field whose accounts are wanted.
pub(super) const FOREIGN_PREFIX: &str = "derived.foreign_account.";

/// Where calls put policy documents, as JSON in a string or as an object.
const POLICIES: [&str; 9] = [
    "requestParameters.policy",
    "requestParameters.policyDocument",
    "requestParameters.resourcePolicy",
    "requestParameters.assumeRolePolicyDocument",
    BUCKET_POLICY,
    "requestParameters.accessPolicies",
    "requestParameters.attributes.Policy",
    "requestParameters.ModifyVpcEndpointRequest.PolicyDocument",
    "requestParameters.CreateVpcEndpointRequest.PolicyDocument",
];
const BUCKET_POLICY: &str = "requestParameters.bucketPolicy";
const ENGINES: [&str; 2] = ["responseElements.engine", "requestParameters.engine"];
const PRINCIPALS: [&str; 15] = [
    "sourceIPAddress",
    "userIdentity.type",
    "userIdentity.arn",
    "userAgent",
    "userIdentity.sessionContext.webIdFederationData.federatedProvider",
    "userIdentity.principalId",
    "userIdentity.invokedBy",
    "userIdentity.inScopeOf.issuerType",
    "userIdentity.sessionContext.sessionIssuer.arn",
    "userIdentity.sessionContext.ec2RoleDelivery",
    "userIdentity.accessKeyId",
    "userIdentity.sessionContext.attributes.mfaAuthenticated",
    "sessionCredentialFromConsole",
    "eventType",
    "userIdentity.accountId",
];
const OWN_ACCOUNT: [&str; 2] = ["recipientAccountId", "userIdentity.accountId"];

/// Agents of functions, containers and pipelines. The caller writes them, so they count only where [`MACHINE_NAMES`] agree.
const WORKLOAD_AGENTS: [&str; 7] =
    ["exec-env/AWS_Lambda", "exec-env/AWS_ECS", "exec-env/CodeBuild", "exec-env/AWS_Batch", "HashiCorp Terraform", "Terraform/", "Pulumi/"];

/// Parts of the names of machines' users and roles, which the caller can't choose.
const MACHINE_NAMES: [&str; 30] = [
    "terraform",
    "pulumi",
    "tofu",
    "provision",
    "deploy",
    "pipeline",
    "cicd",
    "github",
    "gitlab",
    "jenkins",
    "atlantis",
    "spacelift",
    "automation",
    "runner",
    "build",
    "circleci",
    "crossplane",
    "ansible",
    "argocd",
    "lambda",
    "function",
    "rotat",
    "service-role",
    "serverless",
    "fargate",
    "task",
    "batch",
    "worker",
    "cron",
    "scheduler",
];

/// Of these, only whole words.
const MACHINE_WORDS: [&str; 8] = ["ci", "cd", "tf", "iac", "ecs", "bot", "job", "svc"];

/// Services that do what their caller tells them: not these act, but who called them.
const DRIVEN_SERVICES: [&[u8]; 3] = [b"ssm.amazonaws.com", b"servicecatalog.amazonaws.com", b"cloudformation.amazonaws.com"];

/// The bit of a derived field's group, 0 for any other name.
pub fn mask(name: &str) -> u32 {
    if foreign_source(name).is_some() {
        return FOREIGN;
    }
    FIELDS.iter().find(|(field, ..)| *field == name).map_or(0, |(_, mask, _)| *mask)
}

/// The field that a `derived.foreign_account.<field>` is made of, besides its group's.
pub fn foreign_source(name: &str) -> Option<&str> {
    name.strip_prefix(FOREIGN_PREFIX).filter(|source| !source.is_empty())
}

/// The fields that a group is made of.
pub fn sources(mask: u32) -> impl Iterator<Item = &'static str> {
    let groups: [(u32, &[&str]); 5] =
        [(POLICY, &POLICIES), (POLICY | FOREIGN, &OWN_ACCOUNT), (ENGINE, &ENGINES), (NETWORK, &["sourceIPAddress"]), (PRINCIPAL, &PRINCIPALS)];
    groups.into_iter().filter(move |(group, _)| group & mask != 0).flat_map(|(_, names)| names.iter().copied())
}

/// Reused buffers.
#[derive(Debug, Default)]
pub struct Scratch {
    policy: policy::Reader,
    /// A value's text while others are pushed.
    text: Vec<u8>,
    account: Vec<u8>,
}

/// Adds the values of the groups in `wanted`.
pub fn fill(schema: &Schema, event: &Event<'_>, body: &[u8], slots: &mut Slots, wanted: u32, scratch: &mut Scratch) {
    if wanted & POLICY != 0 {
        policies(schema, event, body, slots, scratch);
    }
    if wanted & ENGINE != 0 {
        let engine = ENGINES.iter().find_map(|name| first(schema, slots, body, name));
        copy(&mut scratch.text, engine);
        push(schema, slots, "derived.engine", &scratch.text);
    }
    if wanted & NETWORK != 0 {
        let network = first(schema, slots, body, "sourceIPAddress").map(network_class);
        push(schema, slots, "derived.source.network", network.unwrap_or_default().as_bytes());
        network_block(first(schema, slots, body, "sourceIPAddress").unwrap_or_default(), &mut scratch.text);
        push(schema, slots, "derived.source.block", &scratch.text);
    }
    if wanted & PRINCIPAL != 0 {
        let kind = principal_kind(|name| first(schema, slots, body, name).unwrap_or_default());
        push(schema, slots, "derived.principal.kind", kind.as_bytes());
        let issuer = first(schema, slots, body, "userIdentity.sessionContext.sessionIssuer.arn").filter(|arn| !arn.is_empty());
        scratch.text.clear();
        principal_arn(issuer.or(first(schema, slots, body, "userIdentity.arn")).unwrap_or_default(), &mut scratch.text);
        push(schema, slots, "derived.principal.arn", &scratch.text);
    }
    if wanted & FOREIGN != 0 {
        foreign_accounts(schema, event, body, slots, scratch);
    }
}

/// Whom a call names outside of its own account: whom it shares with, whose key, vault or stream it uses.
fn foreign_accounts(schema: &Schema, event: &Event<'_>, body: &[u8], slots: &mut Slots, scratch: &mut Scratch) {
    own_account(schema, event, body, slots, scratch);
    for &(source, target) in schema.foreign() {
        scratch.text.clear();
        for account in slots.get(source).filter_map(|value| policy::account_of(slots.text(body, value)?)) {
            if account != scratch.account && !schema.own_accounts.iter().any(|own| own == account) {
                scratch.text.extend_from_slice(account);
            }
        }
        for account in scratch.text.chunks(policy::ACCOUNT_DIGITS) {
            slots.push_text(target, account);
        }
    }
}

fn own_account(schema: &Schema, event: &Event<'_>, body: &[u8], slots: &Slots, scratch: &mut Scratch) {
    let own = OWN_ACCOUNT.iter().find_map(|name| first(schema, slots, body, name)).unwrap_or(event.context.account.as_bytes());
    copy(&mut scratch.account, Some(own));
}

fn first<'a>(schema: &Schema, slots: &'a Slots, body: &'a [u8], name: &str) -> Option<&'a [u8]> {
    slots.first(body, schema.id(name)?)
}

fn copy(to: &mut Vec<u8>, text: Option<&[u8]>) {
    to.clear();
    to.extend_from_slice(text.unwrap_or_default());
}

/// Nothing is pushed for an empty text: the field is missing.
fn push(schema: &Schema, slots: &mut Slots, name: &str, text: &[u8]) {
    if let Some(field) = schema.id(name).filter(|_| !text.is_empty()) {
        slots.push_text(field, text);
    }
}

fn policies(schema: &Schema, event: &Event<'_>, body: &[u8], slots: &mut Slots, scratch: &mut Scratch) {
    own_account(schema, event, body, slots, scratch);
    let fields = policy::Targets::new(|name: &str| -> Option<FieldId> { schema.id(name) });
    for name in POLICIES {
        let value = schema.id(name).and_then(|field| slots.get(field).find(|v| v.kind != ValueKind::Null));
        let Some(text) = value.and_then(|v| slots.text(body, v)) else { continue };
        copy(&mut scratch.text, Some(text));
        let home = policy::Home { account: &scratch.account, own: &schema.own_accounts, bucket: name == BUCKET_POLICY };
        scratch.policy.read(&scratch.text, &home, &fields, slots);
    }
}

/// Where an address lies.
pub fn network_class(address: &[u8]) -> &'static str {
    let text = std::str::from_utf8(address).unwrap_or_default();
    match text.parse::<IpAddr>().map(|a| a.to_canonical()) {
        Ok(IpAddr::V4(v4)) => {
            let shared = v4.octets()[0] == 100 && v4.octets()[1] & 0xc0 == 64;
            if v4.is_private() || v4.is_loopback() || v4.is_link_local() || shared { "private" } else { "public" }
        }
        Ok(IpAddr::V6(v6)) if v6.is_unique_local() || v6.is_loopback() || v6.is_unicast_link_local() => "private",
        Ok(IpAddr::V6(_)) => "public",
        Err(_) if text.ends_with(".amazonaws.com") || text.ends_with(".amazonaws.com.cn") => "aws-service",
        Err(_) if text.starts_with("AWS Internal") => "internal",
        Err(_) => "other",
    }
}

/// The neighbourhood of a public address; empty for any other.
pub fn network_block(address: &[u8], out: &mut Vec<u8>) {
    out.clear();
    if network_class(address) != "public" {
        return;
    }
    let written = match std::str::from_utf8(address).unwrap_or_default().parse::<IpAddr>().map(|a| a.to_canonical()) {
        Ok(IpAddr::V4(v4)) => write!(out, "{}.{}.0.0/16", v4.octets()[0], v4.octets()[1]),
        Ok(IpAddr::V6(v6)) => write!(out, "{:x}:{:x}::/32", v6.segments()[0], v6.segments()[1]),
        Err(_) => Ok(()),
    };
    written.expect("writing to memory can't fail");
}

/// The ARN of a caller whose session doesn't name its issuer: `…:sts::1:assumed-role/app/x` is role `app`, in whichever path.
fn principal_arn(arn: &[u8], out: &mut Vec<u8>) {
    let session = std::str::from_utf8(arn).ok().and_then(|arn| arn.split_once(":sts::")?.1.split_once(":assumed-role/"));
    let Some((account, rest)) = session else { return out.extend_from_slice(arn) };
    let partition = if arn.starts_with(b"arn:aws-cn:") {
        "aws-cn"
    } else if arn.starts_with(b"arn:aws-us-gov:") {
        "aws-us-gov"
    } else {
        "aws"
    };
    let role = rest.split('/').next().unwrap_or_default();
    write!(out, "arn:{partition}:iam::{account}:role/{role}").expect("writing to memory can't fail");
}

/// Does the name of a user or role, not of a session, say that it is a machine's?
fn named_for_a_machine(issuer: &[u8], arn: &[u8]) -> bool {
    let owner = if issuer.is_empty() { arn } else { issuer };
    let mut parts = owner.rsplit(|b| *b == b':').next().unwrap_or_default().splitn(3, |b| *b == b'/');
    let (kind, first, rest) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let names = if kind == b"assumed-role" { [first, b"".as_slice()] } else { [first, rest] };
    names.into_iter().any(|name| {
        MACHINE_NAMES.iter().any(|part| contains_ignore_case(name, part.as_bytes()))
            || name.split(|b| !b.is_ascii_alphanumeric()).any(|word| MACHINE_WORDS.iter().any(|known| word.eq_ignore_ascii_case(known.as_bytes())))
    })
}

fn contains_ignore_case(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|w| w.eq_ignore_ascii_case(part))
}

/// Who is behind a call. The order matters: a service acting for a person is a service.
fn principal_kind<'a>(value: impl Fn(&str) -> &'a [u8]) -> &'static str {
    let is_service = |name: &[u8]| (name.ends_with(b".amazonaws.com") || name == b"AWS Internal") && !DRIVEN_SERVICES.contains(&name);
    let issuer = value("userIdentity.sessionContext.sessionIssuer.arn");
    let contains = |text: &[u8], part: &str| memchr::memmem::find(text, part.as_bytes()).is_some();
    let kind = value("userIdentity.type");
    if kind == b"AWSService"
        || is_service(value("userIdentity.invokedBy"))
        // AWS writes it: a service's name stands there for whom it acts without saying so in the identity.
        || value("sourceIPAddress") != b"AWS Internal" && is_service(value("sourceIPAddress"))
        || contains(issuer, ":role/aws-service-role/")
        || value("eventType") == b"AwsServiceEvent"
    {
        return "service";
    }
    let arn = value("userIdentity.arn");
    if [value("userIdentity.invokedBy"), value("sourceIPAddress")].contains(&b"cloudformation.amazonaws.com".as_slice()) {
        return "workload";
    }
    let by_machine = || {
        let claims =
            DRIVEN_SERVICES.contains(&value("userIdentity.invokedBy")) || WORKLOAD_AGENTS.iter().any(|agent| contains(value("userAgent"), agent));
        claims && named_for_a_machine(issuer, arn)
    };
    match kind {
        b"IAMUser" if by_machine() => return "workload",
        b"Root" | b"IAMUser" | b"IdentityCenterUser" | b"SAMLUser" | b"Directory" => return "person",
        b"AssumedRole" | b"Role" | b"FederatedUser" | b"WebIdentityUser" | b"AWSAccount" => {}
        _ => return "unknown",
    }
    let session = value("userIdentity.principalId").rsplit(|b| *b == b':').next().unwrap_or_default();
    // Machines have no second factor, and nobody names a machine's session by an e-mail address.
    let person = value("sessionCredentialFromConsole") == b"true"
        || value("userIdentity.sessionContext.attributes.mfaAuthenticated") == b"true"
        || session.contains(&b'@')
        || contains(issuer, "/AWSReservedSSO_")
        || contains(arn, ":assumed-role/AWSReservedSSO_")
        || contains(issuer, "role/aws-reserved/sso.amazonaws.com/");
    if person {
        "person"
    } else if !value("userIdentity.inScopeOf.issuerType").is_empty()
        || !value("userIdentity.sessionContext.ec2RoleDelivery").is_empty()
        || !value("userIdentity.sessionContext.webIdFederationData.federatedProvider").is_empty()
        || by_machine()
        || is_workload(session)
    {
        "workload"
    } else {
        "role"
    }
}

/// Session names that only AWS makes: an instance's id, an ECS task's 32 hex digits.
fn is_workload(session: &[u8]) -> bool {
    let hex = |text: &[u8]| text.iter().all(u8::is_ascii_hexdigit);
    session.strip_prefix(b"i-").is_some_and(|id| (id.len() == 8 || id.len() == 17) && hex(id)) || session.len() == 32 && hex(session)
}

#[cfg(test)]
mod tests;

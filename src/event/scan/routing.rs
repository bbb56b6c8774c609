//! What the scan tells of a record: the values that rules are routed by.
//!
//! In: places in the text. Out: `Routing`. Invariant: as `scan`'s.

/// What is known of one path without a parse.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Known {
    /// Only a full parse can tell.
    #[default]
    Unknown,
    /// The path does not occur.
    Missing,
    /// A string without escapes, so many bytes from `start` of the text on. Longer ones are unknown.
    Text { start: u32, length: u16 },
}

impl Known {
    /// The string at bytes `start..end`.
    #[inline(always)]
    pub(super) fn between(start: usize, end: usize) -> Self {
        match (u32::try_from(start), u16::try_from(end - start)) {
            (Ok(start), Ok(length)) => Known::Text { start, length },
            _ => Known::Unknown,
        }
    }

    pub fn text<'a>(&self, body: &'a [u8]) -> Option<&'a [u8]> {
        match self {
            Known::Text { start, length } => body.get(*start as usize..)?.get(..usize::from(*length)),
            _ => None,
        }
    }
}

/// The values that rules are routed by, each as far as it is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Routing {
    pub event_source: Known,
    pub event_name: Known,
    /// `userIdentity.type`.
    pub identity_type: Known,
    pub user_agent: Known,
    pub error_code: Known,
    /// `sourceIPAddress`.
    pub source_address: Known,
    /// `userIdentity.arn`.
    pub identity_arn: Known,
    /// `userIdentity.accessKeyId`.
    pub access_key: Known,
    /// `userIdentity.accountId`.
    pub identity_account: Known,
    /// `userIdentity.inScopeOf.issuerType`.
    pub issuer_type: Known,
    /// `sessionCredentialFromConsole`: missing or unknown.
    pub from_console: Known,
    /// The object `userIdentity`, if everything that is said of the caller stands in it.
    pub identity: Known,
    /// Missing: no value says `AwsServiceEvent`.
    pub service_event: Known,
}

impl Routing {
    /// Before anything was found.
    pub(super) fn missing() -> Self {
        let m = Known::Missing;
        Self {
            event_source: m,
            event_name: m,
            identity_type: m,
            user_agent: m,
            error_code: m,
            source_address: m,
            identity_arn: m,
            access_key: m,
            identity_account: m,
            issuer_type: m,
            from_console: Known::Unknown,
            identity: Known::Unknown,
            service_event: Known::Unknown,
        }
    }

    #[inline(always)]
    pub(super) fn identify(&mut self, Identity { kind, arn, access_key, account, issuer_type }: Identity) {
        (self.identity_type, self.identity_arn, self.access_key) = (kind, arn, access_key);
        (self.identity_account, self.issuer_type) = (account, issuer_type);
    }
}

/// The members of `userIdentity` that rules are routed by.
#[derive(Clone, Copy)]
pub(super) struct Identity {
    pub(super) kind: Known,
    pub(super) arn: Known,
    pub(super) access_key: Known,
    pub(super) account: Known,
    pub(super) issuer_type: Known,
}

//! Who may do what, and the headers that every answer carries.
//!
//! In: requests before their handlers. Out: the same, or a refusal. Invariant: tokens are compared in constant time, and a page of
//! another origin can neither read nor change anything.

use std::{fmt, sync::Arc, time::Duration};

use axum::{
    extract::{Request, State},
    http::{HeaderMap, HeaderValue, Method, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use serde::{Deserialize, Deserializer, de};
use sha2::{Digest, Sha256};

use super::{Admin, api::Problem};

const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
const TOKEN_CHARS: usize = 12;
/// A change's body and its carrying out.
const CHANGE: Duration = Duration::from_secs(15);

/// The bearer token. Only its hash is kept, so that no dump or error can hold it.
#[derive(Clone, schemars::JsonSchema)]
#[schemars(inline, transparent, extend("writeOnly" = true))]
pub struct Token(#[schemars(with = "String", length(min = 12))] [u8; 32]);

impl Token {
    pub fn new(text: &str) -> Self {
        Self(Sha256::digest(text.as_bytes()).into())
    }

    /// Hashes of equal length are compared to the last byte.
    fn is(&self, text: &str) -> bool {
        let other = Self::new(text);
        self.0.iter().zip(&other.0).fold(0, |differ, (a, b)| differ | (a ^ b)) == 0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
    }
}

impl<'de> Deserialize<'de> for Token {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = Token;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("a token as text")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Token, E> {
                if text.chars().count() < TOKEN_CHARS {
                    return Err(E::custom("the token is shorter than 12 characters"));
                }
                Ok(Token::new(text))
            }
        }
        from.deserialize_str(Visitor)
    }
}

/// Lets a change through with the right token only.
pub(super) async fn require_token(State(admin): State<Arc<Admin>>, request: Request, next: Next) -> Response {
    let refused = |status: StatusCode, why: &str| {
        admin.metrics.admin_request("refused").inc();
        let mut response = Problem::new(status, why).into_response();
        if status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    };
    let Some(token) = &admin.token else {
        return refused(StatusCode::FORBIDDEN, "no token is configured (`admin.token`), so nothing can be changed from here");
    };
    match bearer(request.headers()) {
        Some(given) if token.is(given) => match tokio::time::timeout(CHANGE, next.run(request)).await {
            Ok(response) => response,
            Err(_) => refused(StatusCode::REQUEST_TIMEOUT, "the body did not come in time"),
        },
        Some(_) => refused(StatusCode::FORBIDDEN, "this is not the token"),
        None => refused(StatusCode::UNAUTHORIZED, "send `Authorization: Bearer TOKEN`"),
    }
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    headers.get(header::AUTHORIZATION)?.to_str().ok()?.strip_prefix("Bearer ").map(str::trim)
}

/// Refuses names that other sites resolve to this machine, and sets the headers of every answer.
pub(super) async fn protect(State(admin): State<Arc<Admin>>, request: Request, next: Next) -> Response {
    let is_probe = request.method() == Method::GET && matches!(request.uri().path(), "/healthz" | "/readyz" | "/metrics");
    let mut response = if admin.loopback && !is_probe && !is_this_machine(request.headers()) {
        admin.metrics.admin_request("refused").inc();
        Problem::new(StatusCode::MISDIRECTED_REQUEST, "use localhost or 127.0.0.1 as the host name").into_response()
    } else {
        next.run(request).await
    };
    if response.status().is_success() {
        admin.metrics.admin_request("ok").inc();
    }
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CACHE_CONTROL, "no-store"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

fn is_this_machine(headers: &HeaderMap) -> bool {
    let Some(host) = headers.get(header::HOST).and_then(|h| h.to_str().ok()) else { return false };
    let name = host.rsplit_once(':').filter(|(_, port)| port.bytes().all(|b| b.is_ascii_digit())).map_or(host, |(name, _)| name);
    let name = name.trim_start_matches('[').trim_end_matches(']');
    name == "localhost" || name.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machines_names_pass() {
        for (host, expected) in [
            ("localhost:9464", true),
            ("127.0.0.1:9464", true),
            ("127.0.0.1", true),
            ("[::1]:9464", true),
            ("evil.example:9464", false),
            ("localhost.evil.example", false),
            ("", false),
        ] {
            let headers = HeaderMap::from_iter([(header::HOST, HeaderValue::from_static(host))]);
            assert_eq!(is_this_machine(&headers), expected, "{host}");
        }
    }

    #[test]
    fn a_token_is_matched_and_never_shown() {
        let token: Token = serde_json::from_str("\"correct horse battery\"").unwrap();
        assert!(token.is("correct horse battery") && !token.is("correct horse batter") && !token.is(""));
        assert_eq!(format!("{token:?}"), "[secret]");
        assert!(serde_json::from_str::<Token>("\"short\"").is_err());
    }
}

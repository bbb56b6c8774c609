//! One HTTP client for all sinks that speak HTTP.
//!
//! In: an address of the config, headers, a body. Out: the answer's status, wait and first bytes, or why there is none.
//! Invariant: certificates are always verified, redirects are never followed, and no error holds the address.

use std::{fmt, net::IpAddr, str::FromStr, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, StatusCode, Uri, header::RETRY_AFTER};
use http_body_util::{BodyExt, Full, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use serde::{Deserialize, Deserializer};

use super::{Secret, SendError};

const CONNECT: Duration = Duration::from_secs(5);
/// The whole request, answer included.
const REQUEST: Duration = Duration::from_secs(15);
/// More of an answer is not read.
const ANSWER_BYTES: usize = 16 * 1024;
/// A server that asks for more is asked again after this.
const RETRY_AFTER_CAP: Duration = Duration::from_secs(3600);
const IDLE: Duration = Duration::from_secs(30);

/// A checked address: https, or http to this machine.
#[derive(Clone, PartialEq, Eq, schemars::JsonSchema)]
#[schemars(inline, transparent)]
pub struct Endpoint(#[schemars(with = "String")] Uri);

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EndpointError {
    #[error("not an address like https://host/path")]
    Malformed,
    #[error("http without TLS is allowed to this machine only; use https")]
    Plain,
    #[error("user and password in the address are not sent; use a header or token")]
    UserInfo,
}

impl FromStr for Endpoint {
    type Err = EndpointError;

    fn from_str(text: &str) -> Result<Self, EndpointError> {
        let uri: Uri = text.trim().parse().map_err(|_| EndpointError::Malformed)?;
        let authority = uri.authority().ok_or(EndpointError::Malformed)?;
        if authority.as_str().contains('@') {
            return Err(EndpointError::UserInfo);
        }
        match uri.scheme_str() {
            Some("https") => Ok(Self(uri)),
            Some("http") if is_loopback(authority.host()) => Ok(Self(uri)),
            Some("http") => Err(EndpointError::Plain),
            _ => Err(EndpointError::Malformed),
        }
    }
}

impl Endpoint {
    /// `path` behind the address, which may end in a slash.
    pub fn join(&self, path: &str) -> Result<Self, EndpointError> {
        Self::from_any(&format!("{}{path}", self.0.to_string().trim_end_matches('/')))
    }

    /// Also http to other machines: only where nothing secret is sent, as to an Alertmanager inside a private network.
    pub fn from_any(text: &str) -> Result<Self, EndpointError> {
        text.parse().or_else(|error| match error {
            EndpointError::Plain => text.trim().parse().map(Self).map_err(|_| EndpointError::Malformed),
            other => Err(other),
        })
    }
}

/// An address may be a secret by itself, so none is shown.
impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[address]")
    }
}

impl<'de> Deserialize<'de> for Endpoint {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        Secret::deserialize(from)?.expose().parse().map_err(serde::de::Error::custom)
    }
}

fn is_loopback(host: &str) -> bool {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// What a server said.
pub struct Answer {
    pub status: StatusCode,
    pub retry_after: Option<Duration>,
    /// The first bytes, as text.
    pub text: String,
}

impl Answer {
    /// As most services mean it: 429, 408 and 5xx pass, every other status is final.
    pub fn judge(self) -> Result<Self, SendError> {
        let status = self.status;
        if status.is_success() {
            return Ok(self);
        }
        let why = format!("answered {}{}", status.as_u16(), self.detail());
        if status.is_redirection() {
            return Err(SendError::Refused { why: format!("{why}; redirects are not followed, configure the final address") });
        }
        if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS || status == StatusCode::REQUEST_TIMEOUT {
            return Err(SendError::Retry { why, after: self.retry_after, answered: status.as_u16() });
        }
        Err(SendError::Refused { why })
    }

    fn detail(&self) -> String {
        let text = crate::alert::escape::plain(&self.text);
        let text = text.trim();
        if text.is_empty() { String::new() } else { format!(": {}", crate::alert::escape::limit(text, 200)) }
    }
}

#[derive(Clone)]
pub struct Http(Client<HttpsConnector<HttpConnector>, Full<Bytes>>);

impl Default for Http {
    fn default() -> Self {
        Self::new()
    }
}

impl Http {
    pub fn new() -> Self {
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_connect_timeout(Some(CONNECT));
        let https = HttpsConnectorBuilder::new().with_webpki_roots().https_or_http().enable_http1().wrap_connector(tcp);
        let client = Client::builder(TokioExecutor::new()).pool_timer(TokioTimer::new()).pool_idle_timeout(IDLE).build(https);
        Self(client)
    }

    /// Posts JSON.
    pub async fn post_json(&self, to: &Endpoint, headers: &[(HeaderName, HeaderValue)], body: Vec<u8>) -> Result<Answer, SendError> {
        let mut request =
            Request::post(to.0.clone()).body(Full::new(Bytes::from(body))).map_err(|_| SendError::refused("the request is malformed"))?;
        let sent = request.headers_mut();
        sent.insert(http::header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        sent.insert(http::header::USER_AGENT, HeaderValue::from_static(concat!("trailwarden/", env!("CARGO_PKG_VERSION"))));
        for (name, value) in headers {
            sent.insert(name.clone(), value.clone());
        }
        match tokio::time::timeout(REQUEST, self.exchange(request)).await {
            Ok(answer) => answer,
            Err(_) => Err(SendError::retry(format!("no answer within {} s", REQUEST.as_secs()))),
        }
    }

    async fn exchange(&self, request: Request<Full<Bytes>>) -> Result<Answer, SendError> {
        let response = self.0.request(request).await.map_err(|error| {
            let what = if error.is_connect() { "can't connect" } else { "the connection broke before an answer" };
            SendError::retry(what)
        })?;
        let (status, retry_after) = (response.status(), retry_after(response.headers()));
        let body = Limited::new(response.into_body(), ANSWER_BYTES).collect().await;
        // A status counts even when the text behind it is cut: repeating an accepted alert would be the greater harm.
        let text = body.map(|b| String::from_utf8_lossy(&b.to_bytes()).into_owned()).unwrap_or_default();
        Ok(Answer { status, retry_after, text })
    }
}

/// Seconds or an HTTP date, capped.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let wait = match text.parse::<f64>() {
        Ok(seconds) if seconds.is_finite() && seconds >= 0.0 => Duration::from_secs_f64(seconds.min(RETRY_AFTER_CAP.as_secs_f64())),
        Ok(_) => return None,
        Err(_) => {
            let at = jiff::fmt::rfc2822::parse(text).ok()?.timestamp();
            Duration::try_from(at.duration_since(jiff::Timestamp::now())).unwrap_or_default()
        }
    };
    Some(wait.min(RETRY_AFTER_CAP))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_https_or_this_machine() {
        for (text, expected) in [
            ("https://events.pagerduty.com", Ok(())),
            ("http://127.0.0.1:9093/x", Ok(())),
            ("http://localhost:1", Ok(())),
            ("http://[::1]:1/", Ok(())),
            ("http://10.0.0.1/", Err(EndpointError::Plain)),
            ("http://127.0.0.1.evil.example/", Err(EndpointError::Plain)),
            ("https://u:p@host/", Err(EndpointError::UserInfo)),
            ("file:///etc/passwd", Err(EndpointError::Malformed)),
            ("ftp://host/", Err(EndpointError::Malformed)),
            ("host", Err(EndpointError::Malformed)),
        ] {
            assert_eq!(text.parse::<Endpoint>().map(drop), expected, "{text}");
        }
    }

    #[test]
    fn retry_after_is_read_and_capped() {
        for (value, expected) in [("7", Some(7)), ("1e9", Some(3600)), ("-1", None), ("soon", None), ("Thu, 01 Jan 1970 00:00:00 GMT", Some(0))] {
            let headers = HeaderMap::from_iter([(RETRY_AFTER, HeaderValue::from_static(value))]);
            assert_eq!(retry_after(&headers).map(|d| d.as_secs()), expected, "{value}");
        }
    }
}

//! Any HTTP endpoint, with a signature that it can check.
//!
//! In: a notice. Out: a POST of JSON. Invariant: with a secret configured, every request carries
//! `X-Trailwarden-Signature: t=SECONDS,v1=HEX`, where HEX is HMAC-SHA-256 of `SECONDS.BODY` under the secret.

use std::{collections::BTreeMap, fmt::Write as _};

use hmac::{Hmac, KeyInit, Mac};
use http::{HeaderName, HeaderValue};
use serde::Deserialize;
use sha2::Sha256;

use super::{
    Notice, Secret, SendError, Shared,
    form::Form,
    http::{Endpoint, Http},
};

const BODY_BYTES: usize = 1 << 20;
const SIGNATURE: HeaderName = HeaderName::from_static("x-trailwarden-signature");
/// Receivers drop what they have had: the same value for every try of the same notice.
const DELIVERY_ID: HeaderName = HeaderName::from_static("x-trailwarden-delivery");

#[derive(Debug, Clone, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// https, or http to this machine.
    pub url: Endpoint,
    /// Signs each request.
    #[serde(default)]
    pub hmac_secret: Option<Secret>,
    /// Sent along, as for an API token. Values are secrets.
    #[serde(default)]
    pub headers: BTreeMap<String, Secret>,
    /// `json` (default), `ocsf` or `text` (as `{"text": …}`).
    #[serde(default)]
    pub form: Form,
}

pub struct Webhook {
    http: Http,
    url: Endpoint,
    hmac_secret: Option<Secret>,
    headers: Vec<(HeaderName, HeaderValue)>,
    form: Form,
}

impl Webhook {
    pub fn new(config: &Config, shared: &Shared) -> Result<Self, String> {
        let mut headers = Vec::new();
        for (name, value) in &config.headers {
            let parsed = HeaderName::from_bytes(name.as_bytes()).map_err(|_| format!("`{}` is no header name", name.escape_default()))?;
            let mut value =
                HeaderValue::from_str(value.expose()).map_err(|_| format!("the value of `{name}` has characters that no header may have"))?;
            value.set_sensitive(true);
            headers.push((parsed, value));
        }
        Ok(Self { http: shared.http.clone(), url: config.url.clone(), hmac_secret: config.hmac_secret.clone(), headers, form: config.form })
    }

    pub async fn send(&self, notice: &Notice, now_ms: i64) -> Result<(), SendError> {
        let rendered = self.form.render(notice, BODY_BYTES);
        let body = if self.form == Form::Text { serde_json::json!({ "text": rendered }).to_string() } else { rendered };
        let mut headers = self.headers.clone();
        let id = crate::alert::escape::header(&format!("{}-{}", notice.incident, notice.alerts), 200);
        headers.push((DELIVERY_ID, HeaderValue::from_str(&id).map_err(|_| SendError::refused("the incident key is no header value"))?));
        if let Some(secret) = &self.hmac_secret {
            let value = signature(secret, now_ms / 1000, body.as_bytes());
            headers.push((SIGNATURE, HeaderValue::from_str(&value).expect("digits, letters and signs")));
        }
        self.http.post_json(&self.url, &headers, body.into_bytes()).await?.judge().map(drop)
    }
}

/// The signature header's value.
pub fn signature(secret: &Secret, seconds: i64, body: &[u8]) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.expose().as_bytes()).expect("HMAC takes keys of any length");
    mac.update(seconds.to_string().as_bytes());
    mac.update(b".");
    mac.update(body);
    let mut value = format!("t={seconds},v1=");
    for byte in mac.finalize().into_bytes() {
        let _ = write!(value, "{byte:02x}");
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_signature_is_plain_hmac_sha_256() {
        // printf '1.{}' | openssl dgst -sha256 -hmac key
        let expected = "t=1,v1=1ba6b8171186efc613e8bcc0cbdab2748f24984d7c5a84faa2637afa0e40d224";
        assert_eq!(signature(&Secret::new("key"), 1, b"{}"), expected);
    }
}

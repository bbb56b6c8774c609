//! How every AWS client of this process is made: credentials and region by the SDK's own chain, TLS by rustls on ring.
//!
//! In: a region and an endpoint, both optional. Out: the SDK's shared configuration. Invariant: an endpoint on loopback never
//! sees real credentials unless the environment names some.

use std::{net::IpAddr, time::Duration};

use aws_config::{BehaviorVersion, Region, SdkConfig, retry::RetryConfig, timeout::TimeoutConfig};
use aws_sdk_kinesis::config::Credentials;
use aws_smithy_http_client::{
    Builder,
    tls::{Provider, rustls_provider::CryptoMode},
};

const CONNECT: Duration = Duration::from_secs(5);
/// One attempt, from the first byte out to the last byte in: 10 MB at a slow 0.4 MB/s.
const ATTEMPT: Duration = Duration::from_secs(25);

/// `http://127.0.0.1:4567`, `http://localhost:8000`, `http://[::1]:1`: a stream or table on this machine.
pub fn is_loopback(endpoint: &str) -> bool {
    let Ok(uri) = endpoint.parse::<http::Uri>() else { return false };
    let host = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// Loads credentials and region (environment, profile, ECS task role, instance role). Calls are not retried by the SDK:
/// their callers know what a retry means, back off with jitter and count.
pub async fn load(region: Option<&str>, endpoint: Option<&str>) -> SdkConfig {
    let https = Builder::new().tls_provider(Provider::Rustls(CryptoMode::Ring)).build_https();
    let timeouts = TimeoutConfig::builder().connect_timeout(CONNECT).operation_attempt_timeout(ATTEMPT).build();
    let mut loader =
        aws_config::defaults(BehaviorVersion::latest()).http_client(https).retry_config(RetryConfig::disabled()).timeout_config(timeouts);
    if let Some(region) = region {
        loader = loader.region(Region::new(region.to_owned()));
    }
    if let Some(endpoint) = endpoint {
        loader = loader.endpoint_url(endpoint);
        if is_loopback(endpoint) && std::env::var_os("AWS_ACCESS_KEY_ID").is_none() {
            loader = loader.credentials_provider(Credentials::new("loopback", "loopback", None, None, "loopback"));
            if region.is_none() && std::env::var_os("AWS_REGION").is_none() {
                loader = loader.region(Region::from_static("us-east-1"));
            }
        }
    }
    loader.load().await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machine_is_loopback() {
        for (endpoint, expected) in [
            ("http://127.0.0.1:4567", true),
            ("http://[::1]:4567/", true),
            ("http://localhost:1", true),
            ("https://kinesis.eu-west-1.amazonaws.com", false),
            ("http://127.0.0.1.example.com", false),
            ("http://10.0.0.1", false),
            ("", false),
        ] {
            assert_eq!(is_loopback(endpoint), expected, "{endpoint}");
        }
    }
}

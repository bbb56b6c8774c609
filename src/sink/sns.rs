//! An SNS topic: <https://docs.aws.amazon.com/sns/latest/api/API_Publish.html>.
//!
//! In: a notice. Out: one published message. Invariant: at most 256 KB, the subject one line of ASCII; on a FIFO topic every
//! try of a notice has the same de-duplication id.

use aws_sdk_sns::{Client, error::ProvideErrorMetadata};
use serde::Deserialize;

use super::{Notice, SendError, Shared, form::Form};
use crate::{alert::escape::header, aws};

const MESSAGE_BYTES: usize = 256_000;
const SUBJECT_CHARS: usize = 100;
const GROUP_CHARS: usize = 128;

#[derive(Debug, Clone, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// `arn:aws:sns:REGION:ACCOUNT:NAME`; a name that ends in `.fifo` is a FIFO topic.
    pub topic_arn: String,
    /// `text` (default, for mail and chat), `json` or `ocsf`.
    #[serde(default = "text")]
    pub form: Form,
    /// Another endpoint, as for a test.
    #[serde(default)]
    pub endpoint: Option<String>,
}

fn text() -> Form {
    Form::Text
}

pub struct Sns {
    client: Client,
    topic_arn: String,
    form: Form,
}

impl Sns {
    pub async fn new(config: &Config, _shared: &Shared) -> Result<Self, String> {
        let region = region(&config.topic_arn)?;
        let client = Client::new(&aws::load(Some(region), config.endpoint.as_deref()).await);
        Ok(Self { client, topic_arn: config.topic_arn.clone(), form: config.form })
    }

    pub async fn send(&self, notice: &Notice) -> Result<(), SendError> {
        let subject = header(&format!("{} {}", notice.level().to_uppercase(), notice.headline()), SUBJECT_CHARS);
        let mut publish = self.client.publish().topic_arn(&self.topic_arn).message(self.form.render(notice, MESSAGE_BYTES)).subject(subject);
        if self.topic_arn.ends_with(".fifo") {
            let word = |text: &str| text.chars().filter(char::is_ascii_graphic).take(GROUP_CHARS).collect::<String>();
            publish = publish
                .message_group_id(word(&notice.alert.rule.id))
                .message_deduplication_id(word(&format!("{}-{}-{}", notice.incident, notice.alerts, notice.action as u8)));
        }
        publish.send().await.map(drop).map_err(|error| judge(error.code(), error.raw_response().map(|r| r.status().as_u16())))
    }
}

/// The region that a topic's ARN names.
pub(super) fn region(topic_arn: &str) -> Result<&str, String> {
    let parts: Vec<&str> = topic_arn.split(':').collect();
    let [_, _, "sns", region, _, _] = parts[..] else {
        return Err("not like arn:aws:sns:REGION:ACCOUNT:NAME".into());
    };
    Ok(region)
}

/// `code` as the service names its errors, `status` of its answer where there was one.
pub(super) fn judge(code: Option<&str>, status: Option<u16>) -> SendError {
    let why = match (code, status) {
        (Some(code), _) => format!("answered {}", header(code, 80)),
        (None, Some(status)) => format!("answered {status}"),
        (None, None) => "no answer, or no credentials".to_owned(),
    };
    let passing = code.is_some_and(|c| c.contains("Throttl") || c.contains("Unavailable") || c.contains("Internal") || c.contains("ExpiredToken"));
    match status {
        Some(status @ 400..=499) if status != 429 && !passing => SendError::Refused { why },
        Some(status) => SendError::Retry { why, after: None, answered: status },
        None => SendError::retry(why),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_pass_or_stay_as_the_service_means_them() {
        for (code, status, retryable) in [
            (Some("InvalidParameter"), Some(400), false),
            (Some("NotFound"), Some(404), false),
            (Some("AuthorizationError"), Some(403), false),
            (Some("Throttled"), Some(429), true),
            (Some("ThrottlingException"), Some(400), true),
            (Some("KMSThrottling"), Some(400), true),
            (Some("ExpiredToken"), Some(403), true),
            (Some("InternalError"), Some(500), true),
            (None, Some(503), true),
            (None, None, true),
        ] {
            assert_eq!(judge(code, status).is_retryable(), retryable, "{code:?} {status:?}");
        }
    }
}

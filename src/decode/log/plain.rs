//! Logs without a parser of their own: RDS' IAM refusals, and text that is only kept searchable.
//!
//! In: lines. Out: one event a line. Invariant: nothing is guessed; only that a line of the `iam-db-auth-error` log is a refused login.

use super::{LogEvent, LogFields, Sink, When, scan, statement::put_redacted, tax::Tax};

pub(super) fn decode<F: FnMut(&LogEvent<'_>)>(fields: &mut LogFields, sink: &mut Sink<'_, F>, refusals: bool) {
    let text = sink.batch.text;
    let mut at = 0;
    while at < text.len() {
        let (line, next) = scan::line(text, at);
        let start = at;
        at = next;
        if line.trim_ascii().is_empty() {
            sink.skip(line.len());
            continue;
        }
        fields.begin_event();
        if refusals {
            fields.put(Tax::Event, b"login_failed");
            fields.put(Tax::Outcome, b"failure");
            fields.put(Tax::AuthMethod, b"iam");
            fields.put(Tax::Reason, b"bad_credentials");
        } else {
            fields.put(Tax::Event, b"other");
        }
        put_redacted(fields, Tax::Message, line);
        let when = scan::date_time(line).map_or(When::Unknown, |stamp| When::Zoneless(stamp.ms));
        sink.emit(fields, "rds", start, start + line.len(), when);
    }
}

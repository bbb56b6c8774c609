//! Polling: GetRecords, paced so that the shard's limits are never the ones to say no.
//!
//! In: a reader's place. Out: batches. Invariant: at most one answer of a shard is under way, and it is paid for from the
//! budget before it is asked for.

use std::time::{Duration, Instant};

use super::{
    Config,
    client::{self, Failure},
    counted,
    shard::{Next, Reader, Tip, now_ms},
};

/// What one GetRecords may hold in memory: 10 MB of data, and the same as base64.
const CALL_BYTES: usize = 24 << 20;
/// Of AWS: 5 reads a second, at 2 MB a second.
const AWS_SHARD_BYTES_PER_S: u64 = 2_000_000;
const AWS_READ_INTERVAL_US: u64 = 200_000;

impl Reader {
    pub async fn poll(&mut self) {
        let mut iterator: Option<String> = None;
        loop {
            let asked = Instant::now();
            let reservation = self.reserve(CALL_BYTES).await;
            let asked_ms = now_ms();
            let answer = match self.ask(&mut iterator).await {
                Ok(answer) => answer,
                Err(failure) => {
                    drop(reservation);
                    match self.recover(failure).await {
                        Next::Again => {}
                        Next::Renew => iterator = None,
                        Next::Over => return,
                    }
                    continue;
                }
            };
            self.succeeded();
            iterator = answer.next_shard_iterator;
            let shard_end = iterator.is_none();
            let behind_ms = answer.millis_behind_latest.map(|ms| ms.max(0) as u64);
            let bytes: usize = answer.records.iter().map(|r| r.data.as_ref().len()).sum();
            if self.hand_over(answer.records, Tip { behind_ms, asked_ms }, shard_end, reservation).await.is_none() || shard_end {
                return;
            }
            let pause = pause(&self.shared.config, bytes, behind_ms.is_some_and(|ms| ms > 0));
            tokio::time::sleep(pause.saturating_sub(asked.elapsed())).await;
        }
    }

    async fn ask(&mut self, iterator: &mut Option<String>) -> Result<aws_sdk_kinesis::operation::get_records::GetRecordsOutput, Failure> {
        let current = match iterator {
            Some(current) => current,
            None => {
                let fresh = client::iterator(&self.shared.client, &self.stream, &self.name, &self.place).await;
                iterator.insert(counted(&self.shared.meters.get_iterator, fresh)?)
            }
        };
        let asked = Instant::now();
        let answer = counted(&self.shared.meters.get_records, client::records(&self.shared.client, current).await);
        self.shared.meters.fetch.record(asked.elapsed());
        answer
    }
}

/// The time from one question to the next: what the bytes take at the shard's rate, and not more often than allowed. A shard that gives
/// something is asked twice as often as a quiet one: two of its five reads a second, which leaves room for others.
fn pause(config: &Config, bytes: usize, behind: bool) -> Duration {
    let rate = config.shard_bytes_per_s.max(1);
    let for_bytes = Duration::from_secs_f64(bytes as f64 / rate as f64);
    // An endpoint that gives more bytes is asked more often in proportion.
    let at_least = Duration::from_micros(AWS_READ_INTERVAL_US * AWS_SHARD_BYTES_PER_S / rate);
    let quiet = Duration::from_millis(config.poll_interval_ms);
    let wanted = match (behind, bytes) {
        (true, _) => at_least,
        (false, 0) => quiet,
        (false, _) => quiet / 2,
    };
    for_bytes.max(wanted).max(at_least)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shard_that_gives_is_asked_sooner_within_its_limits() {
        const MB: usize = 1_000_000;
        for (poll_interval_ms, shard_bytes_per_s, bytes, behind, expected_ms) in [
            // Quiet, giving little, giving all that it may.
            (1_000, 2_000_000, 0, false, 1_000),
            (1_000, 2_000_000, 100, false, 500),
            (1_000, 2_000_000, MB, false, 500),
            (1_000, 2_000_000, 3 * MB / 2, false, 750),
            (1_000, 2_000_000, 10 * MB, false, 5_000),
            // Catching up, also where nothing lies for a while.
            (1_000, 2_000_000, 0, true, 200),
            (1_000, 2_000_000, 4 * MB, true, 2_000),
            // Never more than five a second; who shares a stream with many asks seldom, and still does.
            (200, 2_000_000, 100, false, 200),
            (5_000, 2_000_000, 100, false, 2_500),
            // An endpoint without AWS's limits.
            (1_000, 200_000_000, 100, true, 2),
        ] {
            let config = Config { poll_interval_ms, shard_bytes_per_s, ..Config::default() };
            assert_eq!(pause(&config, bytes, behind), Duration::from_millis(expected_ms), "{poll_interval_ms} {shard_bytes_per_s} {bytes} {behind}");
        }
    }
}

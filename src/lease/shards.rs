//! A stream's shards as the service lists them, and which of them still need a reader.
//!
//! In: ListShards' pages, the positions kept. Out: shards to begin, with where. Invariant: a shard that has no position is
//! read from its beginning unless its descendants have one or the reading begins later than it.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use aws_sdk_kinesis::{
    Client,
    error::{DisplayErrorContext, ProvideErrorMetadata as _},
};

use crate::position::{Position, ShardId};

/// Pages of ListShards followed at most: 1,000 shards each.
const MAX_PAGES: usize = 100;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shard {
    /// `shardId-…`
    pub id: String,
    pub parents: Vec<String>,
    /// First and last hash key.
    pub range: (u128, u128),
    pub open: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ListError {
    #[error("stream {0} does not exist")]
    Missing(String),
    #[error("ListShards of {stream} was refused: {message}; the task role needs kinesis:ListShards")]
    Denied { stream: String, message: String },
    #[error("ListShards of {stream} failed: {message}")]
    Failed { stream: String, message: String },
}

/// All shards of `stream` that the service still knows, closed ones included, in order of their ids.
pub async fn list(client: &Client, stream: &str) -> Result<Vec<Shard>, ListError> {
    let (mut shards, mut token) = (Vec::new(), None);
    for _ in 0..MAX_PAGES {
        let ask = client.list_shards();
        let ask = match token.take() {
            Some(token) => ask.next_token(token),
            None => ask.stream_name(stream),
        };
        let page = ask.send().await.map_err(|e| match e.code() {
            Some("ResourceNotFoundException") => ListError::Missing(stream.to_owned()),
            Some("AccessDeniedException") => ListError::Denied { stream: stream.to_owned(), message: e.message().unwrap_or_default().to_owned() },
            _ => ListError::Failed { stream: stream.to_owned(), message: DisplayErrorContext(&e).to_string() },
        })?;
        shards.extend(page.shards.unwrap_or_default().into_iter().map(from_sdk));
        token = page.next_token;
        if token.is_none() {
            break;
        }
    }
    shards.sort_by(|a, b| a.id.cmp(&b.id));
    Ok(shards)
}

fn from_sdk(shard: aws_sdk_kinesis::types::Shard) -> Shard {
    let range =
        shard.hash_key_range.map_or((0, 0), |r| (r.starting_hash_key.parse().unwrap_or_default(), r.ending_hash_key.parse().unwrap_or_default()));
    Shard {
        id: shard.shard_id,
        parents: [shard.parent_shard_id, shard.adjacent_parent_shard_id].into_iter().flatten().collect(),
        range,
        open: shard.sequence_number_range.is_none_or(|r| r.ending_sequence_number.is_none()),
    }
}

pub fn shard_id(stream: &str, shard: &str) -> ShardId {
    ShardId(format!("{stream}/{shard}").into())
}

/// The two parts of `stream/shardId-…`.
pub fn split_id(shard: &ShardId) -> (&str, &str) {
    shard.0.rsplit_once('/').unwrap_or(("", &shard.0))
}

/// The shards of `listed` that have no position in `known` and need one, each with where it begins. `start` is where a
/// stream of which nothing is known begins.
pub fn unbegun(listed: &[Shard], known: &BTreeMap<String, Position>, start: &Position) -> Vec<(String, Position)> {
    let first = !listed.iter().any(|s| known.contains_key(&s.id));
    if first && matches!(start, Position::Latest | Position::AtTimestamp(_)) {
        // Closed shards may hold records behind a timestamp: they are read for it, and end at once where they hold none.
        let wanted = |s: &&Shard| s.open || matches!(start, Position::AtTimestamp(_));
        return listed.iter().filter(wanted).map(|s| (s.id.clone(), start.clone())).collect();
    }
    let outlived = ancestors(listed, known.keys().map(String::as_str));
    let unbegun = listed.iter().filter(|s| !known.contains_key(&s.id) && !outlived.contains(s.id.as_str()));
    unbegun.map(|s| (s.id.clone(), Position::TrimHorizon)).collect()
}

/// The ids of all that the shards `of` come from, as far as they are listed or named as parents.
pub fn ancestors<'a>(listed: &'a [Shard], of: impl Iterator<Item = &'a str>) -> BTreeSet<&'a str> {
    let parents: HashMap<&str, &[String]> = listed.iter().map(|s| (s.id.as_str(), &s.parents[..])).collect();
    let (mut found, mut pending) = (BTreeSet::new(), of.collect::<Vec<_>>());
    while let Some(id) = pending.pop() {
        let parents = parents.get(id).into_iter().flat_map(|p| p.iter());
        pending.extend(parents.map(String::as_str).filter(|parent| found.insert(*parent)));
    }
    found
}

/// Every parent of `shard` is past, or unknown (past retention, or outlived when reading began).
pub fn is_ready(shard: &Shard, known: &BTreeMap<String, Position>) -> bool {
    shard.parents.iter().all(|p| known.get(p).is_none_or(|at| *at == Position::ShardEnd))
}

/// Holes in the hash range that the shards of `known` leave: none in a stream that is read whole. Shards that aren't past
/// count, ended ones don't, for their children must.
pub fn holes(listed: &[Shard], known: &BTreeMap<String, Position>) -> Vec<(u128, u128)> {
    let mut ranges: Vec<_> = listed.iter().filter(|s| known.get(&s.id).is_some_and(|at| *at != Position::ShardEnd)).map(|s| s.range).collect();
    ranges.sort_unstable();
    let (mut holes, mut next) = (Vec::new(), Some(0_u128));
    for (low, high) in ranges {
        if let Some(expected) = next.filter(|n| *n < low) {
            holes.push((expected, low - 1));
        }
        next = next.and_then(|n| high.checked_add(1).map(|h| h.max(n)));
    }
    holes.extend(next.map(|n| (n, u128::MAX)));
    holes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shard(id: &str, parents: &str, open: bool) -> Shard {
        Shard { id: id.to_owned(), parents: parents.split_whitespace().map(str::to_owned).collect(), range: (0, u128::MAX), open }
    }

    /// a → b c; b c → d
    fn family() -> Vec<Shard> {
        vec![shard("a", "", false), shard("b", "a", false), shard("c", "a", false), shard("d", "b c", true)]
    }

    fn known(text: &str) -> BTreeMap<String, Position> {
        text.split_whitespace()
            .map(|word| match word.strip_suffix('!') {
                Some(id) => (id.to_owned(), Position::ShardEnd),
                None => (word.to_owned(), Position::TrimHorizon),
            })
            .collect()
    }

    #[test]
    fn shards_without_a_position_begin_where_nothing_is_missed() {
        for (have, start, expected) in [
            ("", Position::TrimHorizon, "a b c d"),
            ("", Position::Latest, "d"),
            ("", Position::AtTimestamp(7), "a b c d"),
            ("a", Position::Latest, "b c d"),
            ("a!", Position::Latest, "b c d"),
            ("b", Position::TrimHorizon, "c d"),
            ("d", Position::TrimHorizon, ""),
            ("z", Position::Latest, "d"),
        ] {
            let got: Vec<_> = unbegun(&family(), &known(have), &start).into_iter().map(|(id, _)| id).collect();
            assert_eq!(got.join(" "), expected, "{have:?} {start:?}");
        }
    }

    #[test]
    fn children_wait_for_all_their_parents() {
        for (have, expected) in [("a b c d", "a"), ("a! b c d", "a b c"), ("a! b! c d", "a b c"), ("a! b! c! d", "a b c d"), ("d", "a b c d")] {
            let have = known(have);
            let got: Vec<_> = family().into_iter().filter(|s| is_ready(s, &have)).map(|s| s.id).collect();
            assert_eq!(got.join(" "), expected);
        }
    }

    #[test]
    fn the_audit_finds_holes() {
        let ranged = |id: &str, low, high| Shard { range: (low, high), ..shard(id, "", true) };
        let listed = [ranged("a", 0, 9), ranged("b", 10, 19), ranged("c", 20, u128::MAX)];
        for (have, expected) in
            [("a b c", vec![]), ("a c", vec![(10, 19)]), ("a b! c", vec![(10, 19)]), ("b", vec![(0, 9), (20, u128::MAX)]), ("", vec![(0, u128::MAX)])]
        {
            assert_eq!(holes(&listed, &known(have)), expected, "{have}");
        }
    }
}

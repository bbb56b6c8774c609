//! Places of rows; the calls themselves are tested against a real server in `tests/real_state.rs`.

use super::*;
use crate::store::{Table, version_key};

#[test]
fn places_lead_back_to_rows() {
    let group = [9u8; 16];
    let rows = [
        (Table::Evidence, [&group[..], b"rest"].concat()),
        (Table::Evidence, b"short".to_vec()),
        (Table::Groups, group.to_vec()),
        (Table::Fired, [b"c", &group[..], b"cell"].concat()),
        (Table::Fired, [b"i", &group[..]].concat()),
        (Table::Timers, b"due".to_vec()),
        (Table::Outbox, vec![0; 25]),
        (Table::Positions, b"shard".to_vec()),
        (Table::Meta, version_key(&group)),
        (Table::Meta, b"frontier".to_vec()),
        (Table::Kv, b"silence\0".to_vec()),
        (Table::Kv, b"silence\0key\0".to_vec()),
    ];
    for (table, key) in rows {
        let place = Place::of(table, &key);
        assert_eq!(place.row(), Some((table, key.clone())), "{place:?}");
        assert_eq!(Place::of_item(&place.key()), Some(place.clone()));
        if table != Table::Groups && key.len() > 16 && !key.starts_with(b"i") && !key.starts_with(b"v") {
            assert_eq!(place::partition(table, &key).as_deref(), Some(place.partition()), "{place:?}");
        }
    }
}

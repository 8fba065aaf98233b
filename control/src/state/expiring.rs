//! A map whose entries end by themselves. Whoever owns one drops what has ended before deciding anything.

use std::collections::{BTreeMap, BTreeSet};

use hiveops_proto::Timestamp;
use serde::{Deserialize, Serialize, Serializer};

/// A map with a time of end for each entry, and the entries in the order of those times.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(from = "BTreeMap<K, Lasting<V>>", bound = "K: Ord + Clone + Deserialize<'de>, V: Deserialize<'de>")]
pub(crate) struct Expiring<K, V> {
    entries: BTreeMap<K, Lasting<V>>,
    /// The same keys by their end; not written, because it follows from the entries.
    order: BTreeSet<(Timestamp, K)>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Lasting<V> {
    until: Timestamp,
    value: V,
}

impl<K: Ord + Clone, V> Expiring<K, V> {
    /// Puts an entry that is gone from `until` on; an older one of the same key is replaced.
    pub(crate) fn insert(&mut self, key: K, value: V, until: Timestamp) {
        self.remove(&key);
        self.order.insert((until, key.clone()));
        self.entries.insert(key, Lasting { until, value });
    }

    pub(crate) fn get(&self, key: &K) -> Option<&V> {
        self.entries.get(key).map(|entry| &entry.value)
    }

    /// When the entry ends.
    pub(crate) fn until(&self, key: &K) -> Option<Timestamp> {
        self.entries.get(key).map(|entry| entry.until)
    }

    pub(crate) fn remove(&mut self, key: &K) -> Option<V> {
        let Lasting { until, value } = self.entries.remove(key)?;
        self.order.remove(&(until, key.clone()));
        Some(value)
    }

    /// Takes out what has ended.
    pub(crate) fn expire(&mut self, now: Timestamp) -> Vec<(K, V)> {
        let mut ended = Vec::new();
        while self.order.first().is_some_and(|(until, _)| *until <= now) {
            ended.extend(self.pop_first());
        }
        ended
    }

    /// Takes out the entry that ends first.
    pub(crate) fn pop_first(&mut self) -> Option<(K, V)> {
        let (_, key) = self.order.pop_first()?;
        let entry = self.entries.remove(&key)?;
        Some((key, entry.value))
    }

    /// When the entry that ends first does.
    pub(crate) fn first_end(&self) -> Option<Timestamp> {
        self.order.first().map(|(until, _)| *until)
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Key, value and end of each entry, in the order of the keys.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&K, &V, Timestamp)> {
        self.entries.iter().map(|(key, entry)| (key, &entry.value, entry.until))
    }
}

impl<K, V> Default for Expiring<K, V> {
    fn default() -> Self {
        Self { entries: BTreeMap::new(), order: BTreeSet::new() }
    }
}

impl<K: Ord + Clone, V> From<BTreeMap<K, Lasting<V>>> for Expiring<K, V> {
    fn from(entries: BTreeMap<K, Lasting<V>>) -> Self {
        let order = entries.iter().map(|(key, entry)| (entry.until, key.clone())).collect();
        Self { entries, order }
    }
}

impl<K: Serialize + Ord, V: Serialize> Serialize for Expiring<K, V> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.entries.serialize(serializer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: i64) -> Timestamp {
        Timestamp::from_millis(ms)
    }

    #[test]
    fn an_entry_is_gone_at_its_end_and_a_replaced_one_lives_by_the_new_end() {
        let mut map = Expiring::default();
        map.insert("a".to_owned(), 1, at(10));
        map.insert("b".to_owned(), 2, at(20));
        map.insert("a".to_owned(), 3, at(30));
        assert_eq!(map.expire(at(9)), []);
        assert_eq!(map.expire(at(20)), [("b".to_owned(), 2)]);
        assert_eq!((map.get(&"a".to_owned()), map.len()), (Some(&3), 1));
        assert_eq!(map.pop_first(), Some(("a".to_owned(), 3)));
        assert_eq!(map.order.len(), 0);
    }

    #[test]
    fn what_is_read_back_is_the_same_with_its_order() {
        let mut map = Expiring::default();
        map.insert("a".to_owned(), 1, at(30));
        map.insert("b".to_owned(), 2, at(20));
        let text = serde_json::to_string(&map).unwrap();
        let back: Expiring<String, i32> = serde_json::from_str(&text).unwrap();
        assert_eq!(back, map);
    }
}

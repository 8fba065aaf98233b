//! One value for each subscription that a node has met; it grows when a contract declares more of them.

use std::ops::Index;
use std::sync::OnceLock;

use hiveops_proto::contract::SUBSCRIPTIONS_MAX;

use crate::catalog::SubId;

/// Values by id. Nothing in it moves or goes away, so it is read without a lock.
#[derive(Debug)]
pub(crate) struct PerSub<T> {
    places: Box<[OnceLock<T>]>,
}

impl<T> PerSub<T> {
    pub(crate) fn new() -> Self {
        Self { places: std::iter::repeat_with(OnceLock::new).take(SUBSCRIPTIONS_MAX).collect() }
    }

    pub(crate) fn get(&self, sub: SubId) -> Option<&T> {
        self.places.get(sub.index()).and_then(OnceLock::get)
    }

    /// Gives the next subscription its value; none when there are as many as there can be. Whoever calls
    /// it is alone in doing so.
    pub(crate) fn push(&self, value: T) -> Option<SubId> {
        let sub = SubId::from_index(self.len())?;
        self.places[sub.index()].set(value).ok().map(|()| sub)
    }

    pub(crate) fn len(&self) -> usize {
        self.places.iter().take_while(|place| place.get().is_some()).count()
    }

    pub(crate) fn iter(&self) -> impl DoubleEndedIterator<Item = (SubId, &T)> {
        let values = self.places.iter().enumerate();
        values.filter_map(|(index, place)| Some((SubId::from_index(index)?, place.get()?)))
    }

    pub(crate) fn values(&self) -> impl DoubleEndedIterator<Item = &T> {
        self.places.iter().filter_map(OnceLock::get)
    }
}

impl<T> FromIterator<T> for PerSub<T> {
    /// What is beyond the number of subscriptions that there can be is left out.
    fn from_iter<I: IntoIterator<Item = T>>(values: I) -> Self {
        let all = Self::new();
        for (place, value) in all.places.iter().zip(values) {
            let _ = place.set(value);
        }
        all
    }
}

impl<T> Index<SubId> for PerSub<T> {
    type Output = T;

    fn index(&self, sub: SubId) -> &T {
        self.get(sub).expect("a subscription has its value before anything is done for it")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_keep_their_place_and_there_are_only_so_many() {
        let all: PerSub<usize> = [10, 11].into_iter().collect();
        let first = &all[SubId::from_index(0).unwrap()];
        for value in 2..SUBSCRIPTIONS_MAX {
            assert_eq!(all.push(10 + value).unwrap().index(), value);
        }
        assert_eq!((*first, all.len(), all.push(0)), (10, SUBSCRIPTIONS_MAX, None));
        assert!(all.iter().all(|(sub, value)| *value == sub.index() + 10));
    }
}

//! Names on the command line: lists with commas, in which `bench{00..49}_event` stands for fifty names. And
//! who joins and publishes which of them.

use std::str::FromStr;

use anyhow::ensure;
use hiveops_proto::{MessageKind, MessageType, SubscriptionName};

use crate::connection::Handshake;
use crate::peer::Dialect;
use crate::target::Target;

/// Names of one list; a contract declares no more.
const NAMES_MAX: usize = 64;

/// A list of names of one kind, at least one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Names<T>(Vec<T>);

impl<T: FromStr<Err: ToString>> FromStr for Names<T> {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut names = Vec::new();
        for item in text.split(',') {
            for name in expand(item)? {
                names.push(name.parse().map_err(|error: T::Err| error.to_string())?);
            }
        }
        if names.len() > NAMES_MAX {
            return Err(format!("at most {NAMES_MAX} names, not {}", names.len()));
        }
        Ok(Self(names))
    }
}

/// `a{08..10}b` is `a08b`, `a09b`, `a10b`; a text without braces is itself.
fn expand(item: &str) -> Result<Vec<String>, String> {
    let Some((before, rest)) = item.split_once('{') else { return Ok(vec![item.to_owned()]) };
    let range = || {
        let (range, after) = rest.split_once('}')?;
        let (first, last) = range.split_once("..")?;
        Some((first.len(), first.parse::<u16>().ok()?, last.parse::<u16>().ok()?, after))
    };
    match range() {
        Some((width, first, last, after)) if first <= last && usize::from(last - first) < NAMES_MAX => {
            Ok((first..=last).map(|number| format!("{before}{number:0width$}{after}")).collect())
        }
        _ => Err(format!("`{item}` must look like name{{00..49}}, with at most {NAMES_MAX} numbers")),
    }
}

/// What is published to and joined.
#[derive(clap::Args, Debug, Clone)]
pub(crate) struct Choice {
    /// What the connections join and the publisher publishes to: names with commas, `bench{00..49}` for fifty
    #[arg(long, visible_alias = "subscription", default_value = "tasks", value_name = "NAMES")]
    subscriptions: Names<SubscriptionName>,
    /// Types of the publications, one per subscription; an event leaves nothing behind in the server's state
    #[arg(long, default_value = "task_event", value_name = "NAMES")]
    message_type: Names<MessageType>,
    /// How many of the subscriptions each connection joins
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=64))]
    per_connection: u32,
}

impl Choice {
    pub(crate) fn channels(&self) -> anyhow::Result<Channels> {
        let Self { subscriptions: Names(names), message_type: Names(types), per_connection } = self;
        ensure!(
            names.len() == types.len(),
            "{} subscriptions need as many types, not {} (--message-type)",
            names.len(),
            types.len()
        );
        let per_connection = *per_connection as usize;
        ensure!(per_connection <= names.len(), "--per-connection asks for more than --subscriptions has");
        for kind in types {
            ensure!(MessageKind::of_type(kind.as_str()).is_some(), "`{kind}` is not a type of publication");
        }
        Ok(Channels { names: names.clone(), types: types.clone(), per_connection })
    }
}

/// The subscriptions of a run by number: publications go to them in turn, and connections join them in turn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Channels {
    pub(crate) names: Vec<SubscriptionName>,
    pub(crate) types: Vec<MessageType>,
    per_connection: usize,
}

impl Channels {
    /// One subscription with one type.
    pub(crate) fn one(name: SubscriptionName, message_type: MessageType) -> Self {
        Self { names: vec![name], types: vec![message_type], per_connection: 1 }
    }

    pub(crate) fn count(&self) -> usize {
        self.names.len()
    }

    /// Where publication `seq` goes.
    pub(crate) fn of_publication(&self, seq: u32) -> usize {
        seq as usize % self.count()
    }

    /// What connection `number` joins.
    pub(crate) fn of_connection(&self, number: usize) -> impl Iterator<Item = usize> + '_ {
        (0..self.per_connection).map(move |place| (number + place) % self.count())
    }

    /// At which place connection `number` has joined `channel`, if it has.
    pub(crate) fn place(&self, number: usize, channel: usize) -> Option<usize> {
        let place = (channel + self.count() - number % self.count()) % self.count();
        (place < self.per_connection).then_some(place)
    }

    pub(crate) fn per_connection(&self) -> usize {
        self.per_connection
    }

    /// Whether every type is that of an update.
    pub(crate) fn all_updates(&self) -> bool {
        self.types.iter().all(|kind| MessageKind::of_type(kind.as_str()) == Some(MessageKind::Update))
    }

    /// The handshakes of the connections, in turn. `query` is added to each, `headers` are whole lines.
    pub(crate) fn handshakes(
        &self,
        socket: &Target,
        dialect: Dialect,
        query: &str,
        headers: &str,
    ) -> Vec<Handshake> {
        let one = |number| {
            let names: Vec<String> =
                self.of_connection(number).map(|at| self.names[at].to_string()).collect();
            let path = match dialect {
                Dialect::Contract => {
                    socket.path_with(Some(&format!("subscriptions={}{query}", names.join(","))))
                }
                // These are told otherwise, or by the path that was given.
                Dialect::Nats | Dialect::Nchan => socket.path_with(None),
            };
            Handshake::new(&socket.authority, &path, headers, names).speaking(dialect)
        };
        (0..self.count()).map(one).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choice(subscriptions: &str, types: &str, per_connection: u32) -> anyhow::Result<Channels> {
        let names = |text: &str| text.parse().unwrap();
        Choice { subscriptions: names(subscriptions), message_type: types.parse().unwrap(), per_connection }
            .channels()
    }

    #[test]
    fn a_pattern_stands_for_its_names() {
        let names: Names<SubscriptionName> = "tasks,bench{08..10}".parse().unwrap();
        let names: Vec<String> = names.0.iter().map(ToString::to_string).collect();
        assert_eq!(names, ["tasks", "bench08", "bench09", "bench10"]);
        for bad in ["", "a,", "a{", "a{1}", "a{2..1}", "a{0..64}", "a{x..2}", "A", "a{0..40},b{0..40}"] {
            assert!(bad.parse::<Names<SubscriptionName>>().is_err(), "{bad}");
        }
    }

    #[test]
    fn connections_and_publications_take_the_subscriptions_in_turn() {
        let channels = choice("a,b,c", "a_event,b_event,c_event", 2).unwrap();
        assert_eq!(channels.of_connection(2).collect::<Vec<_>>(), [2, 0]);
        assert_eq!((0..4).map(|seq| channels.of_publication(seq)).collect::<Vec<_>>(), [0, 1, 2, 0]);
        for number in 0..7 {
            let places = (0..3).filter_map(|channel| Some((channels.place(number, channel)?, channel)));
            let mut places: Vec<_> = places.collect();
            places.sort_unstable();
            let joined: Vec<usize> = places.into_iter().map(|(_, channel)| channel).collect();
            assert_eq!(joined, channels.of_connection(number).collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_choice_that_cannot_be_is_refused() {
        assert!(choice("a,b", "a_event", 1).unwrap_err().to_string().contains("--message-type"));
        assert!(choice("a", "a_event", 2).unwrap_err().to_string().contains("--per-connection"));
        assert!(choice("a", "nonsense", 1).is_err());
        assert!(choice("a", "a_update", 1).unwrap().all_updates());
    }
}

//! Which quota holds for whom: by user and client id, each named, left to the default, or not looked at (KIP-55, KIP-546).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// What a quota limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(crate) enum Limited {
    #[serde(rename = "producer_byte_rate")]
    Produce,
    #[serde(rename = "consumer_byte_rate")]
    Fetch,
}

impl Limited {
    /// Of Kafka's name for it.
    pub(crate) fn named(name: &str) -> Option<Limited> {
        [Limited::Produce, Limited::Fetch].into_iter().find(|limited| limited.name() == name)
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Limited::Produce => "producer_byte_rate",
            Limited::Fetch => "consumer_byte_rate",
        }
    }
}

/// One side of an entity.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Side {
    Named(String),
    /// Whoever has no quota of its own.
    Default,
}

/// Whom a quota is for; a side that is `None` is not looked at.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(crate) struct Entity {
    pub(crate) user: Option<Side>,
    pub(crate) client: Option<Side>,
}

/// Bytes a second, by what they limit.
pub(crate) type Rates = BTreeMap<Limited, f64>;

/// All quotas.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Table {
    pub(crate) entries: BTreeMap<Entity, Rates>,
}

/// Who shares one allowance: the sides of the entity that holds, with their real names.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Sharers {
    pub(crate) user: Option<String>,
    pub(crate) client: Option<String>,
    pub(crate) limited: Limited,
}

impl Table {
    /// The rate that holds for a client of a user, and who shares it. The most specific entity that has one counts, the
    /// user before the client id, as in Kafka.
    pub(crate) fn find(&self, limited: Limited, user: &str, client: &str) -> Option<(f64, Sharers)> {
        let (named_user, named_client) = (Side::Named(user.to_owned()), Side::Named(client.to_owned()));
        let order = [
            (Some(&named_user), Some(&named_client)),
            (Some(&named_user), Some(&Side::Default)),
            (Some(&named_user), None),
            (Some(&Side::Default), Some(&named_client)),
            (Some(&Side::Default), Some(&Side::Default)),
            (Some(&Side::Default), None),
            (None, Some(&named_client)),
            (None, Some(&Side::Default)),
        ];
        order.into_iter().find_map(|(of_user, of_client)| {
            let entity = Entity { user: of_user.cloned(), client: of_client.cloned() };
            let rate = *self.entries.get(&entity)?.get(&limited)?;
            let sharers = Sharers {
                user: of_user.map(|_| user.to_owned()),
                client: of_client.map(|_| client.to_owned()),
                limited,
            };
            Some((rate, sharers))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entity(user: Option<&str>, client: Option<&str>) -> Entity {
        let side = |name: &str| if name == "*" { Side::Default } else { Side::Named(name.to_owned()) };
        Entity { user: user.map(side), client: client.map(side) }
    }

    #[test]
    fn the_most_specific_quota_holds_and_the_user_goes_before_the_client() {
        let order = [
            (Some("u"), Some("c")),
            (Some("u"), Some("*")),
            (Some("u"), None),
            (Some("*"), Some("c")),
            (Some("*"), Some("*")),
            (Some("*"), None),
            (None, Some("c")),
            (None, Some("*")),
        ];
        let mut table = Table::default();
        for (n, (user, client)) in order.iter().enumerate() {
            table.entries.insert(entity(*user, *client), Rates::from([(Limited::Fetch, n as f64)]));
        }
        for (n, (user, client)) in order.iter().enumerate() {
            let (rate, sharers) = table.find(Limited::Fetch, "u", "c").unwrap();
            assert_eq!(
                (rate as usize, sharers.user.is_some(), sharers.client.is_some()),
                (n, user.is_some(), client.is_some())
            );
            table.entries.remove(&entity(*user, *client));
        }
        assert_eq!(table.find(Limited::Fetch, "u", "c"), None);
    }

    #[test]
    fn clients_under_a_default_have_an_allowance_each() {
        let table =
            Table { entries: BTreeMap::from([(entity(None, Some("*")), Rates::from([(Limited::Produce, 9.0)]))]) };
        let sharers = |client: &str| table.find(Limited::Produce, "u", client).map(|(_, sharers)| sharers);
        assert_ne!(sharers("a"), sharers("b"));
        assert_eq!(sharers("a").unwrap().user, None, "whoever it is");
        assert_eq!(table.find(Limited::Fetch, "u", "a"), None);
    }
}

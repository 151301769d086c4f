//! The subscriptions of all connected sessions by filter level, so that a message finds its subscribers without asking each.
//!
//! Depth is bounded by the levels a valid filter may have, size by `limits::MAX_SUBSCRIPTIONS`.

use std::collections::HashMap;
use std::sync::Arc;

use super::Subscriber;
use crate::mqtt::packet::Qos;

/// One subscription as delivery sees it.
#[derive(Debug, Clone)]
pub(super) struct Route {
    pub(super) subscriber: Arc<Subscriber>,
    pub(super) qos: Qos,
    pub(super) no_local: bool,
    pub(super) retain_as_published: bool,
    pub(super) identifier: Option<u32>,
}

#[derive(Debug, Default)]
struct Node {
    children: HashMap<Box<str>, Node>,
    plus: Option<Box<Node>>,
    /// Filters that end here, by subscriber.
    here: HashMap<u64, Route>,
    /// Filters that end in `#` below this level.
    below: HashMap<u64, Route>,
}

impl Node {
    fn is_empty(&self) -> bool {
        self.children.is_empty() && self.plus.is_none() && self.here.is_empty() && self.below.is_empty()
    }
}

/// The trie.
#[derive(Debug, Default)]
pub(super) struct Trie {
    root: Node,
    count: usize,
}

impl Trie {
    pub(super) fn len(&self) -> usize {
        self.count
    }

    pub(super) fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Adds or replaces a valid filter's route.
    pub(super) fn insert(&mut self, filter: &str, route: Route) {
        let mut node = &mut self.root;
        let id = route.subscriber.id;
        for level in filter.split('/') {
            node = match level {
                "#" => {
                    self.count += usize::from(node.below.insert(id, route).is_none());
                    return;
                }
                "+" => node.plus.get_or_insert_default(),
                level => {
                    if !node.children.contains_key(level) {
                        node.children.insert(level.into(), Node::default());
                    }
                    match node.children.get_mut(level) {
                        Some(child) => child,
                        None => return,
                    }
                }
            };
        }
        self.count += usize::from(node.here.insert(id, route).is_none());
    }

    /// Removes a subscriber's route; the nodes that it leaves empty go.
    pub(super) fn remove(&mut self, filter: &str, subscriber: u64) {
        let levels: Vec<&str> = filter.split('/').collect();
        self.count -= usize::from(remove_below(&mut self.root, &levels, subscriber));
    }

    /// Visits every route whose filter matches a valid topic name.
    pub(super) fn matching<'a>(&'a self, topic: &str, found: &mut Vec<&'a Route>) {
        // A wildcard in the first level does not match topics that begin with `$` [MQTT-4.7.2-1].
        let wild = !topic.starts_with('$');
        visit(&self.root, Some(topic), wild, found);
    }
}

fn remove_below(node: &mut Node, levels: &[&str], subscriber: u64) -> bool {
    let Some((level, rest)) = levels.split_first() else {
        return node.here.remove(&subscriber).is_some();
    };
    match *level {
        "#" => node.below.remove(&subscriber).is_some(),
        "+" => {
            let Some(child) = &mut node.plus else { return false };
            let removed = remove_below(child, rest, subscriber);
            if child.is_empty() {
                node.plus = None;
            }
            removed
        }
        level => {
            let Some(child) = node.children.get_mut(level) else { return false };
            let removed = remove_below(child, rest, subscriber);
            if child.is_empty() {
                node.children.remove(level);
            }
            removed
        }
    }
}

fn visit<'a>(node: &'a Node, rest: Option<&str>, wild: bool, found: &mut Vec<&'a Route>) {
    if wild {
        // `a/#` matches `a` itself too (section 4.7.1.2).
        found.extend(node.below.values());
    }
    let Some(rest) = rest else {
        found.extend(node.here.values());
        return;
    };
    let (level, rest) = match rest.split_once('/') {
        Some((level, rest)) => (level, Some(rest)),
        None => (rest, None),
    };
    if let Some(child) = node.children.get(level) {
        visit(child, rest, true, found);
    }
    if wild && let Some(child) = &node.plus {
        visit(child, rest, true, found);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::mqtt::packet::Text;
    use crate::mqtt::topic;

    fn route(id: u64) -> Route {
        let (subscriber, _queue) = Subscriber::new(id, Text::from("c"), 1);
        Route { subscriber, qos: Qos::AtMostOnce, no_local: false, retain_as_published: false, identifier: None }
    }

    fn matching(trie: &Trie, topic: &str) -> Vec<u64> {
        let mut found = Vec::new();
        trie.matching(topic, &mut found);
        let mut ids: Vec<u64> = found.iter().map(|route| route.subscriber.id).collect();
        ids.sort_unstable();
        ids
    }

    #[test]
    fn wildcards_do_not_reach_topics_of_the_server() {
        let mut trie = Trie::default();
        for (id, filter) in ["#", "+/x", "$SYS/#", "$SYS/+"].iter().enumerate() {
            trie.insert(filter, route(id as u64));
        }
        assert_eq!(matching(&trie, "$SYS/x"), [2, 3]);
        assert_eq!(matching(&trie, "a/x"), [0, 1]);
    }

    proptest! {
        #[test]
        fn the_trie_finds_what_matching_each_filter_finds(
            filters in prop::collection::vec("(\\+|a|b|\\$c|)(/(\\+|a|b|)){0,3}(/#)?", 0..12),
            topic in "(a|b|\\$c|)(/(a|b|)){0,4}",
            removed in any::<u16>(),
        ) {
            prop_assume!(topic::valid_topic(&topic));
            let filters: Vec<String> = filters.into_iter().filter(|filter| topic::valid_filter(filter)).collect();
            let mut trie = Trie::default();
            for (id, filter) in filters.iter().enumerate() {
                trie.insert(filter, route(id as u64));
            }
            let gone = |id: usize| removed & (1 << id) != 0;
            for (id, filter) in filters.iter().enumerate().filter(|(id, _)| gone(*id)) {
                trie.remove(filter, id as u64);
            }
            let expected: Vec<u64> = filters.iter().enumerate()
                .filter(|(id, filter)| !gone(*id) && topic::matches(filter, &topic))
                .map(|(id, _)| id as u64)
                .collect();
            prop_assert_eq!(matching(&trie, &topic), expected);
            for (id, filter) in filters.iter().enumerate() {
                trie.remove(filter, id as u64);
            }
            prop_assert!(trie.is_empty() && trie.root.is_empty());
        }
    }
}

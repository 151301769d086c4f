//! All ACLs of the node, indexed so that a question costs a few look-ups however many there are; no IO.

use std::collections::{BTreeSet, HashMap};

use super::acl::{Acl, EVERYBODY, Operation, PatternType, Permission, ResourceType, WILDCARD, covers};

/// A set of ACLs. Made anew at each change.
#[derive(Debug, Default)]
pub(super) struct Acls {
    all: BTreeSet<Acl>,
    types: HashMap<ResourceType, Resources>,
}

/// The ACLs of one type of resource, by the name in their pattern.
#[derive(Debug, Default)]
struct Resources {
    literal: HashMap<Box<str>, Principals>,
    prefixed: HashMap<Box<str>, Principals>,
    /// Lengths in bytes that prefixes have.
    prefix_lengths: BTreeSet<usize>,
}

type Principals = HashMap<Box<str>, Grants>;

/// What one principal may do, by host.
#[derive(Debug, Default)]
struct Grants {
    anywhere: Rights,
    at: HashMap<Box<str>, Rights>,
}

/// Operations as bits.
#[derive(Debug, Default, Clone, Copy)]
struct Rights {
    allow: u16,
    deny: u16,
}

/// What the ACLs say to a question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    Allowed,
    Denied,
    /// There is no ACL for the resource.
    Silent,
}

impl Acls {
    #[must_use]
    pub(super) fn new(all: BTreeSet<Acl>) -> Acls {
        let mut types: HashMap<ResourceType, Resources> = HashMap::new();
        for acl in &all {
            let resources = types.entry(acl.resource_type).or_default();
            let names = match acl.pattern {
                PatternType::Literal => &mut resources.literal,
                PatternType::Prefixed => {
                    resources.prefix_lengths.insert(acl.name.len());
                    &mut resources.prefixed
                }
            };
            let principals = names.entry(acl.name.as_str().into()).or_default();
            let grants = principals.entry(acl.principal.as_str().into()).or_default();
            let rights = match acl.host.as_str() {
                WILDCARD => &mut grants.anywhere,
                host => grants.at.entry(host.into()).or_default(),
            };
            match acl.permission {
                Permission::Allow => rights.allow |= acl.operation.bit(),
                Permission::Deny => rights.deny |= acl.operation.bit(),
            }
        }
        Acls { all, types }
    }

    /// All of them, in order.
    #[must_use]
    pub(super) fn all(&self) -> &BTreeSet<Acl> {
        &self.all
    }

    /// May `principal` (`User:alice`), from `host`, do this? A deny wins over every allow.
    #[must_use]
    pub(super) fn answer(
        &self,
        principal: &str,
        host: &str,
        operation: Operation,
        resource_type: ResourceType,
        name: &str,
    ) -> Answer {
        let Some(resources) = self.types.get(&resource_type) else { return Answer::Silent };
        let prefixes = resources.prefix_lengths.range(..=name.len());
        let prefixed = prefixes.filter_map(|length| resources.prefixed.get(name.get(..*length)?));
        let literal = [name, WILDCARD].into_iter().filter_map(|name| resources.literal.get(name));
        let (mut found, mut rights) = (false, Rights::default());
        for principals in literal.chain(prefixed) {
            found = true;
            for grants in [principal, EVERYBODY].iter().filter_map(|name| principals.get(*name)) {
                let here = grants.at.get(host).copied().unwrap_or_default();
                rights.allow |= grants.anywhere.allow | here.allow;
                rights.deny |= grants.anywhere.deny | here.deny;
            }
        }
        if rights.deny & (operation.bit() | Operation::All.bit()) != 0 {
            Answer::Denied
        } else if rights.allow & operation.implied_by() != 0 {
            Answer::Allowed
        } else if found {
            Answer::Denied
        } else {
            Answer::Silent
        }
    }

    /// May `principal` do this to any resource of the type at all? (Kafka's `authorizeByResourceType`, KIP-679.) Looks through
    /// all ACLs.
    #[must_use]
    pub(super) fn allows_some(
        &self,
        principal: &str,
        host: &str,
        operation: Operation,
        resource_type: ResourceType,
    ) -> bool {
        let about = |acl: &&Acl| {
            acl.resource_type == resource_type
                && (acl.principal == principal || acl.principal == EVERYBODY)
                && (acl.host == host || acl.host == WILDCARD)
                && (acl.operation == operation || acl.operation == Operation::All)
        };
        let (denied, allowed): (Vec<&Acl>, Vec<&Acl>) =
            self.all.iter().filter(about).partition(|acl| acl.permission == Permission::Deny);
        // A deny takes an allow away if it covers all that the allow does.
        let covered = |allow: &Acl, deny: &Acl| match (deny.pattern, allow.pattern) {
            (PatternType::Literal, PatternType::Prefixed) => deny.name == WILDCARD,
            (PatternType::Prefixed, PatternType::Literal) if allow.name == WILDCARD => false,
            _ => covers(deny.pattern, &deny.name, &allow.name),
        };
        allowed.iter().any(|allow| !denied.iter().any(|deny| covered(allow, deny)))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Kafka's rules as its documentation tells them, one ACL after the other.
    fn naive(acls: &[Acl], principal: &str, host: &str, operation: Operation, of: ResourceType, name: &str) -> Answer {
        let about: Vec<&Acl> = acls.iter().filter(|acl| acl.covers(of, name)).collect();
        let mine = |acl: &&&Acl| {
            (acl.principal == principal || acl.principal == "User:*") && (acl.host == host || acl.host == "*")
        };
        let denies = |acl: &&Acl| {
            acl.permission == Permission::Deny && (acl.operation == operation || acl.operation == Operation::All)
        };
        let implies = |by: Operation| match operation {
            Operation::Describe => {
                matches!(by, Operation::Read | Operation::Write | Operation::Delete | Operation::Alter)
            }
            Operation::DescribeConfigs => by == Operation::AlterConfigs,
            _ => false,
        };
        let allows = |acl: &&Acl| {
            acl.permission == Permission::Allow
                && (acl.operation == operation || acl.operation == Operation::All || implies(acl.operation))
        };
        if about.iter().filter(mine).any(denies) {
            Answer::Denied
        } else if about.iter().filter(mine).any(allows) {
            Answer::Allowed
        } else if about.is_empty() {
            Answer::Silent
        } else {
            Answer::Denied
        }
    }

    fn some<T: Copy + std::fmt::Debug + 'static>(of: &'static [T]) -> impl Strategy<Value = T> {
        prop::sample::select(of)
    }

    const NAMES: &[&str] = &["*", "a", "ab", "abc", "b", "é", "éa"];
    const TYPES: &[ResourceType] = &[ResourceType::Topic, ResourceType::Group];

    fn acl() -> impl Strategy<Value = Acl> {
        let who = (some(&["User:*", "User:x", "User:y"]), some(&["*", "10.0.0.1", "10.0.0.2"]));
        let what = (some(Operation::ALL), some(Permission::ALL));
        (some(TYPES), some(NAMES), some(PatternType::ALL), who, what).prop_map(
            |(resource_type, name, pattern, (principal, host), (operation, permission))| Acl {
                resource_type,
                name: name.to_owned(),
                pattern,
                principal: principal.to_owned(),
                host: host.to_owned(),
                operation,
                permission,
            },
        )
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(500))]

        #[test]
        fn the_index_answers_as_reading_every_acl_does(
            acls in prop::collection::vec(acl(), 0..12),
            (principal, host) in (some(&["User:x", "User:z"]), some(&["10.0.0.1", "10.0.0.3"])),
            name in some(&["a", "ab", "abcd", "b", "é", "éab", "z", "*"]),
        ) {
            let index = Acls::new(acls.iter().cloned().collect());
            for operation in Operation::ALL {
                let answer = index.answer(principal, host, *operation, ResourceType::Topic, name);
                prop_assert_eq!(answer, naive(&acls, principal, host, *operation, ResourceType::Topic, name));
            }
        }

        #[test]
        fn who_may_do_something_to_a_resource_may_do_it_to_some(
            acls in prop::collection::vec(acl(), 0..8),
            name in some(&["a", "ab", "abcd", "b", "z"]),
        ) {
            let index = Acls::new(acls.into_iter().collect());
            let (principal, host, of) = ("User:x", "10.0.0.1", ResourceType::Topic);
            if index.answer(principal, host, Operation::Write, of, name) == Answer::Allowed {
                prop_assert!(index.allows_some(principal, host, Operation::Write, of));
            }
        }
    }

    #[test]
    fn an_allow_that_is_denied_as_a_whole_allows_nothing() {
        let acl = |name: &str, pattern, permission| Acl {
            resource_type: ResourceType::Topic,
            name: name.to_owned(),
            pattern,
            principal: "User:x".to_owned(),
            host: "*".to_owned(),
            operation: Operation::Write,
            permission,
        };
        let allows = |acls: Vec<Acl>| {
            let acls = Acls::new(acls.into_iter().collect());
            acls.allows_some("User:x", "10.0.0.1", Operation::Write, ResourceType::Topic)
        };
        let (literal, prefixed) = (PatternType::Literal, PatternType::Prefixed);
        let allow = acl("abc", literal, Permission::Allow);
        assert!(allows(vec![allow.clone()]));
        assert!(!allows(vec![allow.clone(), acl("ab", prefixed, Permission::Deny)]));
        assert!(!allows(vec![allow.clone(), acl("*", literal, Permission::Deny)]));
        assert!(allows(vec![allow, acl("abcd", literal, Permission::Deny)]));
        assert!(allows(vec![acl("ab", prefixed, Permission::Allow), acl("ab", literal, Permission::Deny)]));
        assert!(allows(vec![acl("*", literal, Permission::Allow), acl("a", prefixed, Permission::Deny)]));
        assert!(!allows(vec![]));
    }
}

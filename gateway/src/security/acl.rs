//! Access control lists as Kafka has them (KIP-11, KIP-290): what one is, and which of them a filter names.

/// Defines an enum with the numbers that Kafka's protocol has for it.
macro_rules! codes {
    ($(#[$doc:meta])* $name:ident { $($variant:ident = $code:literal $text:literal),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum $name { $($variant = $code),* }

        impl $name {
            pub const ALL: &[$name] = &[$($name::$variant),*];

            /// Its number in the protocol.
            #[must_use]
            pub const fn code(self) -> i8 {
                self as i8
            }

            #[must_use]
            pub fn from_code(code: i8) -> Option<$name> {
                Self::ALL.iter().copied().find(|known| known.code() == code)
            }

            /// Of its name.
            #[must_use]
            pub fn named(name: &str) -> Option<$name> {
                Self::ALL.iter().copied().find(|known| known.name() == name)
            }

            /// As Kafka's tools write it.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $($name::$variant => $text),* }
            }
        }
    };
}

codes! {
    /// What is done to a resource.
    Operation {
        All = 2 "All", Read = 3 "Read", Write = 4 "Write", Create = 5 "Create", Delete = 6 "Delete", Alter = 7 "Alter",
        Describe = 8 "Describe", ClusterAction = 9 "ClusterAction", DescribeConfigs = 10 "DescribeConfigs",
        AlterConfigs = 11 "AlterConfigs", IdempotentWrite = 12 "IdempotentWrite", CreateTokens = 13 "CreateTokens",
        DescribeTokens = 14 "DescribeTokens", TwoPhaseCommit = 15 "TwoPhaseCommit",
    }
}

codes! {
    ResourceType {
        Topic = 2 "Topic", Group = 3 "Group", Cluster = 4 "Cluster", TransactionalId = 5 "TransactionalId",
        DelegationToken = 6 "DelegationToken", User = 7 "User",
    }
}

codes! {
    /// Whether a name stands for itself (and `*` for all), or for all names that begin with it.
    PatternType { Literal = 3 "Literal", Prefixed = 4 "Prefixed" }
}

codes! {
    Permission { Deny = 2 "Deny", Allow = 3 "Allow" }
}

/// The name of the one resource of type cluster.
pub const CLUSTER_NAME: &str = "kafka-cluster";
/// A name that stands for all, of resources and of hosts.
pub const WILDCARD: &str = "*";
/// The principal that stands for everybody.
pub const EVERYBODY: &str = "User:*";

impl Operation {
    pub(super) const fn bit(self) -> u16 {
        1 << self as u16
    }

    /// What, when it is allowed, allows this.
    pub(super) const fn implied_by(self) -> u16 {
        let also = match self {
            Operation::Describe => {
                Operation::Read.bit() | Operation::Write.bit() | Operation::Delete.bit() | Operation::Alter.bit()
            }
            Operation::DescribeConfigs => Operation::AlterConfigs.bit(),
            _ => 0,
        };
        self.bit() | Operation::All.bit() | also
    }
}

impl ResourceType {
    /// The operations that such a resource knows (Kafka's `AclEntry.supportedOperations`).
    #[must_use]
    pub const fn operations(self) -> &'static [Operation] {
        use Operation::{
            Alter, AlterConfigs, ClusterAction, Create, CreateTokens, Delete, Describe, DescribeConfigs,
            DescribeTokens, IdempotentWrite, Read, TwoPhaseCommit, Write,
        };
        match self {
            ResourceType::Topic => &[Read, Write, Create, Describe, Delete, Alter, DescribeConfigs, AlterConfigs],
            ResourceType::Group => &[Read, Describe, Delete, DescribeConfigs, AlterConfigs],
            ResourceType::Cluster => {
                &[Create, ClusterAction, DescribeConfigs, AlterConfigs, IdempotentWrite, Alter, Describe]
            }
            ResourceType::TransactionalId => &[Describe, Write, TwoPhaseCommit],
            ResourceType::DelegationToken => &[Describe],
            ResourceType::User => &[CreateTokens, DescribeTokens],
        }
    }
}

/// One entry: who may, or may not, do what to which resources, from where.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Acl {
    pub resource_type: ResourceType,
    pub name: String,
    pub pattern: PatternType,
    /// `User:alice`, or [`EVERYBODY`].
    pub principal: String,
    /// An address, or `*`.
    pub host: String,
    pub operation: Operation,
    pub permission: Permission,
}

impl Acl {
    /// Whether it is about this resource.
    #[must_use]
    pub fn covers(&self, resource_type: ResourceType, name: &str) -> bool {
        self.resource_type == resource_type && covers(self.pattern, &self.name, name)
    }
}

pub(super) fn covers(pattern: PatternType, pattern_name: &str, name: &str) -> bool {
    match pattern {
        PatternType::Literal => pattern_name == name || pattern_name == WILDCARD,
        PatternType::Prefixed => name.starts_with(pattern_name),
    }
}

/// Which patterns a filter with a name means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PatternFilter {
    /// Any of exactly this name.
    Any,
    /// All that cover a resource of this name.
    Match,
    /// Those of this type and exactly this name.
    Only(PatternType),
}

/// Which ACLs are meant; `None` is any.
#[derive(Debug, Clone)]
pub struct AclFilter {
    pub resource_type: Option<ResourceType>,
    pub name: Option<String>,
    pub pattern: PatternFilter,
    pub principal: Option<String>,
    pub host: Option<String>,
    pub operation: Option<Operation>,
    pub permission: Option<Permission>,
}

impl AclFilter {
    #[must_use]
    pub fn matches(&self, acl: &Acl) -> bool {
        fn fits<T: PartialEq>(wanted: &Option<T>, has: &T) -> bool {
            wanted.as_ref().is_none_or(|wanted| wanted == has)
        }
        let pattern = match self.pattern {
            PatternFilter::Any => fits(&self.name, &acl.name),
            PatternFilter::Only(pattern) => acl.pattern == pattern && fits(&self.name, &acl.name),
            PatternFilter::Match => self.name.as_ref().is_none_or(|name| covers(acl.pattern, &acl.name, name)),
        };
        pattern
            && fits(&self.resource_type, &acl.resource_type)
            && fits(&self.principal, &acl.principal)
            && fits(&self.host, &acl.host)
            && fits(&self.operation, &acl.operation)
            && fits(&self.permission, &acl.permission)
    }
}

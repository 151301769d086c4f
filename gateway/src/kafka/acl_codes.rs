//! ACLs between Kafka's messages and the node's own: what every one of the ACL APIs reads and writes.

use kafka_protocol::ResponseError;
use kafka_protocol::protocol::StrBytes;

use super::Shared;
use super::errors::Refusal;
use super::guard::{Field, INT8, Kind, Struct};
use super::session::Session;
use crate::security::SecurityError;
use crate::security::acl::{AclFilter, Operation, PatternFilter, PatternType, Permission, ResourceType};

/// Codes that stand for any.
const ANY: i8 = 1;
const MATCH: i8 = 2;

/// The fields that a filter has in DescribeAcls and in DeleteAcls.
pub(crate) static FILTER: Struct = Struct {
    fields: &[
        Field::new(INT8),
        Field::new(Kind::String),
        Field::new(INT8).from(1),
        Field::new(Kind::String),
        Field::new(Kind::String),
        Field::new(INT8),
        Field::new(INT8),
    ],
    tags: &[],
};

/// A filter as it is on the wire.
pub(crate) struct WireFilter {
    pub(crate) resource_type: i8,
    pub(crate) name: Option<StrBytes>,
    pub(crate) pattern: i8,
    pub(crate) principal: Option<StrBytes>,
    pub(crate) host: Option<StrBytes>,
    pub(crate) operation: i8,
    pub(crate) permission: i8,
}

impl WireFilter {
    /// # Errors
    /// A code that nobody knows.
    pub(crate) fn read(self) -> Result<AclFilter, Refusal> {
        fn one_of<T>(code: i8, find: impl Fn(i8) -> Option<T>, what: &str) -> Result<Option<T>, Refusal> {
            match code {
                ANY => Ok(None),
                code => find(code).map(Some).ok_or_else(|| unknown(what, code)),
            }
        }
        let text = |text: Option<StrBytes>| text.map(|text| text.to_string());
        let pattern = match self.pattern {
            ANY => PatternFilter::Any,
            MATCH => PatternFilter::Match,
            code => PatternFilter::Only(PatternType::from_code(code).ok_or_else(|| unknown("pattern type", code))?),
        };
        Ok(AclFilter {
            resource_type: one_of(self.resource_type, ResourceType::from_code, "resource type")?,
            name: text(self.name),
            pattern,
            principal: text(self.principal),
            host: text(self.host),
            operation: one_of(self.operation, Operation::from_code, "operation")?,
            permission: one_of(self.permission, Permission::from_code, "permission type")?,
        })
    }
}

pub(crate) fn unknown(what: &str, code: i8) -> Refusal {
    Refusal::new(ResponseError::InvalidRequest, format!("{what} {code} is none"))
}

/// Whether ACLs are there to be spoken of, and the session may do so.
///
/// # Errors
/// They are not, or it may not.
pub(crate) fn check(shared: &Shared, session: &Session, operation: Operation) -> Result<(), Refusal> {
    session.cluster(operation)?;
    if shared.door.security.authorizes() {
        return Ok(());
    }
    let why = "ACLs are not asked here: set kafka.authorizer.enable = true";
    Err(Refusal::new(ResponseError::SecurityDisabled, why))
}

impl From<SecurityError> for Refusal {
    fn from(error: SecurityError) -> Refusal {
        match error {
            SecurityError::Unopened(error) => error.into(),
            SecurityError::NotStored(error) => error.into(),
        }
    }
}

//! Why a request has no answer, and why a link was refused.

use std::fmt;

use super::kinds::Versions;
use super::limits::MAX_TEXT;

/// Why a request has no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LinkError {
    /// The other node has surely not begun with it: it may be sent again.
    #[error("not sent: {0}")]
    NotSent(String),
    /// It was sent, and the link broke or the time ran out before an answer: it may have been done or not.
    #[error("outcome unknown: {0}")]
    Unknown(String),
    /// The other node's service has said no.
    #[error("refused with code {code}: {text}")]
    Refused { code: u16, text: String },
    /// The other node does not speak this kind of message in this version; it was not begun.
    #[error("message kind {kind} is not spoken in this version: {text}")]
    Unsupported { kind: u16, text: String },
    /// No frame may be so large; it was not sent.
    #[error("a message of {bytes} bytes is over the {max} that are allowed")]
    TooLarge { bytes: usize, max: usize },
}

impl LinkError {
    /// Whether the same request may be sent again without being done twice, and it may help.
    pub fn is_safe_to_repeat(&self) -> bool {
        matches!(self, LinkError::NotSent(_))
    }

    pub(super) fn unsupported(kind: u16, ours: Option<Versions>, theirs: Option<Versions>) -> LinkError {
        let range = |versions: Option<Versions>| versions.map_or_else(|| "none".to_owned(), |v| v.to_string());
        let text = format!("this node speaks {}, the other one {}", range(ours), range(theirs));
        LinkError::Unsupported { kind, text }
    }
}

/// What a service answers instead of a body. The codes are the service's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceError {
    pub code: u16,
    pub text: String,
}

impl ServiceError {
    pub fn new(code: u16, text: impl Into<String>) -> ServiceError {
        ServiceError { code, text: text.into() }
    }
}

/// Why a node is not let in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    pub code: RefusalCode,
    /// For a person: what does not fit, and what to do about it.
    pub text: String,
}

impl Refusal {
    pub fn new(code: RefusalCode, text: impl Into<String>) -> Refusal {
        Refusal { code, text: text.into() }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({:?})", self.text, self.code)
    }
}

/// The kind of a [`Refusal`], as it travels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RefusalCode {
    /// No protocol version in common.
    Protocol,
    /// Both have a cluster id, and not the same.
    WrongCluster,
    /// The client meant another node.
    WrongNode,
    /// The node's data directory is not the one that is known of it.
    WrongDirectory,
    /// The cluster does not know the node, or not any more.
    NotAdmitted,
    /// The node is on its way down.
    ShuttingDown,
    /// A code of a later release.
    Other(u16),
}

impl RefusalCode {
    pub(super) fn to_wire(self) -> u16 {
        match self {
            RefusalCode::Protocol => 1,
            RefusalCode::WrongCluster => 2,
            RefusalCode::WrongNode => 3,
            RefusalCode::WrongDirectory => 4,
            RefusalCode::NotAdmitted => 5,
            RefusalCode::ShuttingDown => 6,
            RefusalCode::Other(code) => code,
        }
    }

    pub(super) fn from_wire(code: u16) -> RefusalCode {
        match code {
            1 => RefusalCode::Protocol,
            2 => RefusalCode::WrongCluster,
            3 => RefusalCode::WrongNode,
            4 => RefusalCode::WrongDirectory,
            5 => RefusalCode::NotAdmitted,
            6 => RefusalCode::ShuttingDown,
            code => RefusalCode::Other(code),
        }
    }
}

/// A text as it may travel: cut at a character when it is too long.
pub(super) fn cut(text: &str) -> &str {
    let mut end = text.len().min(MAX_TEXT);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

//! Nodes that start: which of them may join, and what a new process of a node means for the one before.

use uuid::Uuid;

use super::Controller;
use super::refusal::Refusal;
use super::request::{Register, Reply};
use crate::cluster::invariants::all_differ;
use crate::cluster::node::Liveness;
use crate::cluster::record::Record;
use crate::limits::{MAX_NODE_ADDRESSES, MAX_NODE_TEXT_BYTES};
use crate::units::{Incarnation, Level, NodeId};

impl Controller {
    pub(super) fn create_cluster(
        &mut self,
        id: Uuid,
        nodes: Vec<NodeId>,
        records: &mut Vec<Record>,
    ) -> Result<Reply, Refusal> {
        if let Some(id) = self.image.cluster() {
            return Err(Refusal::ClusterExists { id });
        }
        let most = self.limits.max_nodes;
        if !(1..=most).contains(&nodes.len()) || !all_differ(&nodes) || nodes.iter().any(|id| id.0 < 0) {
            return Err(Refusal::InvalidNodes { most });
        }
        // The level goes up as soon as all have registered: until then nobody knows what the others support.
        self.decide(Record::ClusterCreated { id, level: self.limits.levels.least, nodes }, records);
        Ok(Reply::Done)
    }

    pub(super) fn register(&mut self, new: Register, records: &mut Vec<Record>) -> Result<Reply, Refusal> {
        let id = new.id;
        if let (Some(ours), Some(theirs)) = (self.image.cluster(), new.cluster)
            && ours != theirs
        {
            return Err(Refusal::WrongCluster { id, ours, theirs });
        }
        let Some(node) = self.image.node(id) else { return Err(Refusal::UnknownNode { id }) };
        check_texts(&new)?;
        if !new.levels.supports(self.image.level()) {
            return Err(Refusal::UnsupportedLevel { id, level: self.image.level(), levels: new.levels });
        }
        if let Some(known) = &node.registration {
            let is_same = (known.incarnation, known.process) == (new.incarnation, new.process)
                && (known.directory, &known.addresses, &known.rack, known.levels)
                    == (new.directory, &new.addresses, &new.rack, new.levels);
            if is_same {
                // The answer was lost, and it asks again.
                return Ok(Reply::Registered { since: known.since });
            }
            let holds = self.voters.contains(&id) || self.image.hosting(id).replicas > 0;
            if known.directory != new.directory && holds {
                return Err(Refusal::OtherDirectory { id, known: known.directory, got: new.directory });
            }
            if known.incarnation >= new.incarnation {
                return Err(Refusal::StaleIncarnation { id, known: known.incarnation, got: new.incarnation });
            }
        }
        if node.liveness != Liveness::Fenced {
            self.fence(&[id], records);
        }
        let Register { incarnation, process, directory, addresses, rack, levels, .. } = new;
        let registered = Record::NodeRegistered { id, incarnation, process, directory, addresses, rack, levels };
        self.decide(registered, records);
        let since = self.image.version();
        self.raise_level(records);
        Ok(Reply::Registered { since })
    }

    /// Whether the process that asks is the one that has registered last.
    pub(super) fn check_incarnation(&self, id: NodeId, got: Incarnation) -> Result<(), Refusal> {
        match self.image.node(id).and_then(|node| node.incarnation()) {
            None => Err(Refusal::NotRegistered { id }),
            Some(known) if known != got => Err(Refusal::StaleIncarnation { id, known, got }),
            Some(_) => Ok(()),
        }
    }

    /// Raises the cluster's level to what every node supports, once every node has said what it does.
    pub(super) fn raise_level(&mut self, records: &mut Vec<Record>) {
        let levels = || self.image.nodes().map(|(_, node)| node.registration.as_ref().map(|node| node.levels));
        // Who has not registered yet supports nothing.
        let common = levels().map(|levels| levels.map_or(Level(0), |levels| levels.most)).min();
        let level = common.unwrap_or_default().min(self.limits.levels.most);
        if level > self.image.level() && levels().flatten().all(|levels| levels.supports(level)) {
            self.decide(Record::LevelFinalised { level }, records);
        }
    }
}

fn check_texts(new: &Register) -> Result<(), Refusal> {
    let texts = new.addresses.iter().flat_map(|(name, address)| [name, address]).chain(&new.rack);
    let fits =
        new.addresses.len() <= MAX_NODE_ADDRESSES && texts.map(String::len).all(|len| len <= MAX_NODE_TEXT_BYTES);
    if fits { Ok(()) } else { Err(Refusal::InvalidRegistration { id: new.id, most: MAX_NODE_TEXT_BYTES }) }
}

//! What holds of every image and between any two that follow each other. Tests and simulations ask after each change.

use std::collections::BTreeSet;

use super::image::Image;
use super::node::Liveness;
use super::record::PartitionState;
use crate::units::NodeId;

/// Checks an image after any record.
///
/// # Errors
/// What does not hold.
pub fn check(image: &Image) -> Result<(), String> {
    for (topic, index, state) in image.partitions() {
        check_partition(image, state).map_err(|what| format!("{}-{index}: {what}: {state:?}", topic.name))?;
    }
    for topic in image.topics() {
        if image.topic_named(&topic.name).is_none_or(|named| named.id != topic.id) {
            return Err(format!("the name {} leads to another topic", topic.name));
        }
    }
    if image.topic_names().len() != image.topics().len() {
        return Err("a name without a topic".to_owned());
    }
    if image.partition_count() != image.partitions().count() {
        return Err(format!("{} partitions are counted, there are others", image.partition_count()));
    }
    Ok(())
}

fn check_partition(image: &Image, state: &PartitionState) -> Result<(), &'static str> {
    let PartitionState { replicas, isr, leader, adding, removing, .. } = state;
    if replicas.is_empty() || isr.is_empty() {
        return Err("no replica, or none in sync");
    }
    if [replicas, isr, adding, removing].into_iter().any(|list| !all_differ(list)) {
        return Err("a replica twice");
    }
    if [isr, adding, removing].into_iter().flatten().any(|id| !replicas.contains(id)) {
        return Err("in sync, adding or removing what is no replica");
    }
    if adding.iter().any(|id| removing.contains(id)) {
        return Err("adding what it removes");
    }
    if leader.is_some_and(|leader| !isr.contains(&leader)) {
        return Err("the leader is not in sync");
    }
    if replicas.iter().any(|id| image.node(*id).is_none()) {
        return Err("a replica on a node that is not in the cluster");
    }
    Ok(())
}

/// Whether no node is in the list twice.
#[must_use]
pub fn all_differ(nodes: &[NodeId]) -> bool {
    nodes.iter().collect::<BTreeSet<_>>().len() == nodes.len()
}

/// Checks an image in which a whole decision is applied, so that nodes and partitions agree.
///
/// # Errors
/// What does not hold.
pub fn check_settled(image: &Image) -> Result<(), String> {
    check(image)?;
    let is_fenced = |id: &NodeId| image.node(*id).is_none_or(|node| node.liveness == Liveness::Fenced);
    for (topic, index, state) in image.partitions() {
        let what = if state.leader.as_ref().is_some_and(is_fenced) {
            "the leader is fenced"
        } else if state.leader.is_some() && state.isr.iter().any(is_fenced) {
            "a fenced node is in sync though others are"
        } else if state.leader.is_none() && state.isr.iter().any(|id| image.is_active(*id)) {
            "nobody leads though an in-sync replica is there"
        } else {
            continue;
        };
        return Err(format!("{}-{index}: {what}: {state:?}", topic.name));
    }
    Ok(())
}

/// Checks what may not go back from one image to a later one.
///
/// # Errors
/// What went back.
pub fn check_step(before: &Image, after: &Image) -> Result<(), String> {
    if after.version() <= before.version() {
        return Err(format!("version {} after {}", after.version(), before.version()));
    }
    if after.level() < before.level() || (before.cluster().is_some() && before.cluster() != after.cluster()) {
        return Err("another cluster, or a lower level".to_owned());
    }
    if after.next_producer_id() < before.next_producer_id() {
        return Err("producer ids are given out again".to_owned());
    }
    for (id, node) in after.nodes() {
        let known = before.node(id).and_then(|node| node.incarnation());
        if node.incarnation() < known {
            return Err(format!("node {id} went back from incarnation {known:?}"));
        }
    }
    for (topic, index, old) in before.partitions() {
        let Some(gone_on) = after.topic(topic.id) else { continue };
        let Some(new) = gone_on.partition(index) else { return Err(format!("{}-{index} is gone", topic.name)) };
        let went_on = match new == old {
            true => true,
            false => {
                new.partition_epoch > old.partition_epoch
                    && new.leader_epoch >= old.leader_epoch
                    && (new.leader == old.leader || new.leader_epoch > old.leader_epoch)
            }
        };
        if !went_on {
            return Err(format!("{}-{index}: epochs do not go on: {old:?} to {new:?}", topic.name));
        }
    }
    Ok(())
}

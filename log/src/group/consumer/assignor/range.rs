//! `range`: of each topic a run of neighbours for each reader; the first ones get one more where it does not come out even.

use super::super::topics::{Partition, Partitions, Shape};
use super::{Candidate, readers};

pub(super) fn assign(topics: &[Shape], members: &[Candidate]) -> Vec<Partitions> {
    let mut assigned = vec![Partitions::new(); members.len()];
    for (shape, mut readers) in topics.iter().zip(readers(topics, members)) {
        readers.sort_by_key(|reader| &members[*reader].order);
        let count = readers.len() as i64;
        let partitions = i64::from(shape.partitions);
        let begins = |place: i64| place * (partitions / count) + place.min(partitions % count);
        for (place, reader) in readers.into_iter().enumerate() {
            let place = place as i64;
            let run = begins(place)..begins(place + 1);
            assigned[reader].extend(run.map(|index| Partition { topic: shape.id, index: index as i32 }));
        }
    }
    assigned
}

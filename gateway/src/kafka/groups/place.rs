//! Which partition of `__consumer_offsets` keeps a group, and whose leader so coordinates it: Kafka's own rule.

/// `abs(groupId.hashCode()) % partitions`, with Java's hash code of a string.
pub(crate) fn partition_of(group: &str, partitions: usize) -> usize {
    let hash = group.encode_utf16().fold(0i32, |hash, unit| hash.wrapping_mul(31).wrapping_add(i32::from(unit)));
    // Of the smallest number there is no positive one: Kafka takes 0.
    let positive = hash.checked_abs().unwrap_or(0);
    usize::try_from(positive).unwrap_or(0).checked_rem(partitions).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_lie_where_kafka_puts_them() {
        // Java: "hello".hashCode() = 99162322, "billing" = -109829509, "😀" = 1772899, "polygenelubricants" = Integer.MIN_VALUE.
        let placed = ["", "hello", "billing", "\u{1f600}", "polygenelubricants"].map(|group| partition_of(group, 50));
        assert_eq!(placed, [0, 22, 9, 49, 0]);
        assert_eq!(["hello", "billing"].map(|group| partition_of(group, 1)), [0, 0]);
    }
}

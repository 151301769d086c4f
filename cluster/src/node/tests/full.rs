//! A node whose disk is full: others lead what it led, until it has room.

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_node_with_a_full_disk_led_another_leads_until_it_has_room() {
    let disk = SimFiles::new(1);
    let (one, two) = (NodeId(1), NodeId(2));
    let world = World::start_on(3, |id| (id == one).then(|| disk.clone())).await;
    world.create(two, vec![nodes(&[1, 2, 3])], &[("min.insync.replicas", "2")]).await;
    assert_eq!(world.leader(two).await, one);
    world.in_sync(two, 3).await;
    let mut kept = values(0, 10);
    append(&world.partition(one).unwrap(), &kept).await.unwrap();

    let used = disk.contents().iter().map(|(_, bytes)| bytes.len() as u64).sum();
    disk.set_faults(Faults { capacity: Some(used), ..Faults::default() });
    let refused = append(&world.partition(one).unwrap(), &values(0, 5_000)).await;
    assert_eq!(refused, Err(AppendError::DiskFull));
    let next = world.until("another leader", |world| world.state(two)?.leader.filter(|id| *id != one)).await;
    let next = world.leader(next).await;
    let more = values(10, 10);
    append(&world.partition(next).unwrap(), &more).await.unwrap();
    kept.extend(more);

    disk.set_faults(Faults::default());
    world.in_sync(two, 3).await;
    world.holds_everywhere(&kept).await;
    world.until("the preferred leader", |world| world.state(two)?.leader.filter(|id| *id == one)).await;
}

//! Services beside partitions' leaders: who led before writes nothing more.

use forebay_log::Epoch;

use super::*;
use crate::fence::Claim;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn who_wrote_as_a_leader_writes_nothing_more_once_its_successor_has_begun_whoever_leads_what_is_written() {
    let mut world = World::start(3).await;
    let (one, two, three) = (NodeId(1), NodeId(2), NodeId(3));
    let config = [("min.insync.replicas", "2")];
    world.create(two, vec![nodes(&[1, 2, 3]), nodes(&[3, 2, 1])], &config).await;
    world.leader(two).await;
    let led = |world: &World, index: u32| -> Option<(NodeId, Epoch)> {
        let state = world.cluster(two).metadata().borrow().image.partition(TOPIC, index).cloned()?;
        Some((state.leader?, state.leader_epoch))
    };
    let (_, epoch) = led(&world, 0).unwrap();
    let mut old = Claim::new(1, TOPIC, BTreeMap::from([(0, epoch)]));
    let late = old.clone();
    let log =
        crate::Log::of_cluster(world.members[&two].running.as_ref().unwrap().1.clone(), world.cluster(two).clone(), 3);
    let state = log.topic("t").unwrap().partitions[1].clone();
    write(&state, &old, "first").await.unwrap();
    // It begins again: what was sent before and comes late does not count.
    old.renew();
    let end = settled(&state, &old).await;
    assert_eq!(end, Offset(1));
    assert_eq!(write(&state, &late, "late").await, Err(AppendError::ProducerFenced));
    write(&state, &old, "second").await.unwrap();

    world.kill(one).await;
    let next = world.until("another leader", |world| led(world, 0).filter(|(id, _)| *id != one)).await;
    let new = Claim::new(1, TOPIC, BTreeMap::from([(0, next.1)]));
    assert_eq!(settled(&state, &new).await, Offset(2), "all that the old one wrote lies below");
    assert_eq!(write(&state, &old, "zombie").await, Err(AppendError::ProducerFenced));
    // A later beginning of an earlier leadership is none.
    old.renew();
    assert_eq!(write(&state, &old, "zombie").await, Err(AppendError::ProducerFenced));
    let other = Claim::new(2, TOPIC, BTreeMap::from([(0, next.1)]));
    write(&state, &other, "of another service").await.unwrap();

    // Who leads the state next remembers nothing, and needs not to.
    world.restart(one).await;
    let all = |world: &World| world.cluster(two).metadata().borrow().image.partition(TOPIC, 1)?.isr.get(2).copied();
    world.until("all replicas of the state in sync", all).await;
    world.kill(three).await;
    world.until("another leader of the state", |world| led(world, 1).filter(|(id, _)| *id != three)).await;
    let refused = world.until("an answer", |_| {
        let refused = tokio::task::block_in_place(|| {
            tokio::runtime::Handle::current().block_on(async { write(&state, &old, "zombie").await.unwrap_err() })
        });
        Some(refused).filter(|refused| !matches!(refused, AppendError::NotLeader | AppendError::Offline(_)))
    });
    assert_eq!(refused.await, AppendError::ProducerFenced);
    let now = led(&world, 0).unwrap();
    let new = Claim::new(1, TOPIC, BTreeMap::from([(0, now.1)]));
    assert_eq!(settled(&state, &new).await, Offset(3));
    let claim = Claim::new(1, TOPIC, BTreeMap::from([(0, now.1.next())]));
    assert_eq!(write(&state, &claim, "too early").await, Err(AppendError::NotLeader));
    write(&state, &new, "third").await.unwrap();
    let mut values = Vec::new();
    let fetched = state.fetch_from_leader(Offset(0), 1 << 20).await.unwrap();
    for batch in Batches::new(fetched.batches) {
        let (header, batch) = batch.unwrap();
        let records = RecordReader::new(&header, &batch).unwrap().map(Result::unwrap);
        values.extend(records.map(|record| String::from_utf8(record.value.unwrap().to_vec()).unwrap()));
    }
    assert_eq!(values, ["first", "second", "of another service", "third"]);
}

async fn write(to: &crate::Partition, claim: &Claim, value: &str) -> Result<(), AppendError> {
    let mut chunk = RecordChunk::new();
    chunk.push(Millis(1_767_225_600_000), Some(b"k"), Some(value.as_bytes()), &[]);
    to.submit_as(claim, AppendData::Chunk(chunk)).await?.await.map(drop)
}

/// Where all that came before ends; tried again while the leader has not heard of the claim, or there is none.
async fn settled(state: &crate::Partition, claim: &Claim) -> Offset {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        match state.fence(claim).await {
            Ok(end) => return end,
            Err(error) => {
                assert!(tokio::time::Instant::now() < deadline && error != AppendError::ProducerFenced, "{error}")
            }
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

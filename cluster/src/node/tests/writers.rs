//! Writers that have a successor: what they sent before comes before its question, or never.

use forebay_log::ReadError;

use super::*;
use crate::{Writer, Written};

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_a_fenced_writer_sent_is_refused_wherever_it_was_and_by_every_later_leader() {
    let mut world = World::start(3).await;
    let (one, two, three) = (NodeId(1), NodeId(2), NodeId(3));
    world.create(one, vec![nodes(&[1, 2, 3])], &[("min.insync.replicas", "2")]).await;
    let mut logs = [one, two, three].map(|id| {
        let (cluster, local) = world.members[&id].running.as_ref().unwrap();
        Some(crate::Log::of_cluster(local.clone(), cluster.clone(), 3))
    });
    let handle = |at: usize| Some(logs[at].as_ref()?.topic("t")?.partitions[0].clone());
    let handles = |_: &World| Some([handle(0)?, handle(1)?, handle(2)?]);
    let [leader, follower, asker] = world.until("the topic", handles).await;
    let epoch = world.until("the leader", |_| leader.led_in()).await;
    let both = |_: &World| [&follower, &asker].iter().all(|handle| handle.leader_epoch() == epoch).then_some(());
    world.until("it is known", both).await;
    let writer = |number| Writer { node: two, incarnation: 1, number };
    let [old, new] = [1, 2].map(|number| Written { by: writer(number), epoch });
    write(&follower, old, "first").await.unwrap();
    write(&leader, new, "second").await.unwrap();

    asker.fence_writers(&[writer(1), writer(9)], epoch).await.unwrap();
    assert_eq!(write(&follower, old, "late").await, Err(AppendError::ProducerFenced));
    assert_eq!(write(&leader, old, "late").await, Err(AppendError::ProducerFenced), "at the leader itself too");
    write(&follower, new, "third").await.unwrap();
    let ahead = asker.fence_writers(&[writer(1)], epoch.next()).await;
    assert!(matches!(ahead, Err(ReadError::Offline(_))), "it may be meant for a leader that this one has not heard of");

    drop((leader, logs[0].take()));
    world.kill(one).await;
    world.until("another leader", |world| world.state(two)?.leader.filter(|leader| *leader != one)).await;
    let late = world.until("an answer", |_| {
        let asked = tokio::task::block_in_place(|| {
            tokio::runtime::Handle::current().block_on(async { write(&follower, old, "late").await.unwrap_err() })
        });
        Some(asked).filter(|error| !matches!(error, AppendError::Offline(_) | AppendError::Unknown(_)))
    });
    assert_eq!(late.await, AppendError::NotLeader, "it was meant for the leader before");
    world.until("the next leader", |_| Some(()).filter(|()| follower.leader() != Some(one))).await;
    let now = follower.leader_epoch();
    assert!(now > epoch);
    write(&follower, Written { epoch: now, ..new }, "fourth").await.unwrap();
    let mut values = Vec::new();
    let all = follower.fetch_from_leader(Offset(0), 1 << 20).await.unwrap();
    for batch in Batches::new(all.batches) {
        let (header, batch) = batch.unwrap();
        let records = RecordReader::new(&header, &batch).unwrap().map(Result::unwrap);
        values.extend(records.map(|record| String::from_utf8(record.value.unwrap().to_vec()).unwrap()));
    }
    assert_eq!(values, ["first", "second", "third", "fourth"]);
}

async fn write(to: &crate::Partition, written: Written, value: &str) -> Result<(), AppendError> {
    let mut chunk = RecordChunk::new();
    chunk.push(Millis(1_767_225_600_000), Some(b"k"), Some(value.as_bytes()), &[]);
    to.submit_written(written, None, true, AppendData::Chunk(chunk)).await?.await.map(drop)
}

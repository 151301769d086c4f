//! What a deleted topic leaves in the object store, and whom that concerns.

use super::*;

impl TestNode {
    /// A new topic `readings` gets a table of its own.
    async fn expect_room_for_a_new_one(&self) {
        self.readings(0..7).await;
        self.flush_when_free().await;
        assert_eq!(self.verified().await, (1, 7, Vec::new()));
    }

    /// Flushes a topic whose name may still belong to one that is being removed.
    async fn flush_when_free(&self) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while let Err(error) = self.lake.flush("readings").await {
            assert!(error.to_string().contains("is still being removed"), "{error}");
            assert!(Instant::now() < deadline, "{error}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    async fn verified(&self) -> (u64, u64, Vec<String>) {
        let report = self.lake.verify("readings").await.expect("verified");
        (report.files, report.rows, report.problems)
    }
}

/// Parquet files of the topic's table, checkpoints left out.
fn objects(folder: &FsPath) -> usize {
    let days = std::fs::read_dir(folder.join("lake/readings")).into_iter().flatten();
    let days = days.filter_map(|day| Some(day.ok()?.path())).filter(|day| !day.ends_with("_delta_log"));
    days.map(|day| std::fs::read_dir(day).into_iter().flatten().count()).sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deleted_topic_takes_its_table_along_and_makes_room_for_a_new_one() {
    let folder = tempfile::tempdir().expect("a folder");
    let node = start(folder.path(), &url(folder.path())).await;
    node.readings(0..50).await;
    node.lake.flush("readings").await.expect("flushed");
    assert!(folder.path().join("lake/readings/_delta_log/00000000000000000000.json").exists());
    node.log.delete_topic("readings").await.expect("deleted");
    node.expect_room_for_a_new_one().await;
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_deleted_just_before_the_node_was_killed_makes_room_too() {
    let folder = tempfile::tempdir().expect("a folder");
    let node = start(folder.path(), &url(folder.path())).await;
    node.readings(0..50).await;
    node.lake.flush("readings").await.expect("flushed");
    node.stop().await;
    // The log's part of the deletion is done, the lake's has not begun.
    let log = open_log(folder.path()).await;
    log.delete_topic("readings").await.expect("deleted");
    tokio::task::spawn_blocking(move || log.shutdown()).await.expect("no panic");

    let node = start(folder.path(), &url(folder.path())).await;
    node.expect_room_for_a_new_one().await;
    assert_eq!(objects(folder.path()), 1, "nothing of the old topic is left");
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_of_which_retention_left_nothing_takes_its_empty_table_along() {
    let folder = tempfile::tempdir().expect("a folder");
    let node = start(folder.path(), &url(folder.path())).await;
    let topic = node.readings(0..50).await;
    node.lake.flush("readings").await.expect("flushed");
    // As retention leaves it: the table's log is there, its files and their entries are not.
    let manifest = node.lake.shared.manifest.of(&topic);
    let forgotten = node
        .lake
        .shared
        .manifest
        .all(topic.id)
        .into_iter()
        .map(|entry| Change::Forget(Box::new(entry.as_ref().clone())));
    let leads = crate::leadership::of_topic(&node.log, &topic);
    manifest.persist(topic.id, &leads, &forgotten.collect::<Vec<_>>()).await.expect("forgotten");
    node.log.delete_topic("readings").await.expect("deleted");
    node.expect_room_for_a_new_one().await;
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deleting_a_topic_leaves_the_table_of_another_node_at_the_same_place_alone() {
    let (old, new) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
    let node = start(old.path(), &url(old.path())).await;
    node.readings(0..50).await;
    node.lake.flush("readings").await.expect("flushed");
    node.stop().await;

    // The node was set up anew with an empty data directory, and the same object store.
    let node = start(new.path(), &url(old.path())).await;
    let topic = node.readings(0..7).await;
    let error = node.lake.flush("readings").await.expect_err("another's table").to_string();
    assert!(error.contains("belongs to another topic"), "{error}");
    assert_eq!(objects(old.path()), 2);
    node.log.delete_topic("readings").await.expect("deleted");
    eventually("the end of the topic", || node.lake.shared.manifest.all(topic.id).is_empty()).await;
    assert_eq!(objects(old.path()), 1, "only the deleted topic's own object is gone");
    node.stop().await;

    let node = start(old.path(), &url(old.path())).await;
    assert_eq!(node.verified().await, (1, 50, Vec::new()));
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_under_way_when_its_topic_is_deleted_leaves_no_object() {
    let folder = tempfile::tempdir().expect("a folder");
    let node = start(folder.path(), &url(folder.path())).await;
    // Deleted at another moment of the copy each time.
    for round in 0..12 {
        let topic = node.log.create_topic("readings", 1, config()).await.expect("created");
        for chunk in 0..5 {
            node.append("readings", 0, chunk * 2000..(chunk + 1) * 2000).await;
        }
        topic.partitions[0].roll().await.expect("rolled");
        let retiring = || node.lake.retiring.lock().expect("no panic").len();
        eventually("the copy", || !node.lake.shared.manifest.all(topic.id).is_empty()).await;
        tokio::time::sleep(Duration::from_millis(round * 40)).await;
        node.log.delete_topic("readings").await.expect("deleted");
        eventually("the deletion", || retiring() > 0 || node.lake.shared.manifest.topic(topic.id).is_none()).await;
        eventually("the end of the deletion", || retiring() == 0).await;
        drop(node.lake.shared.copies.acquire().await.expect("the end of the copy"));
        assert_eq!(objects(folder.path()), 0, "round {round}");
    }
    node.stop().await;
}

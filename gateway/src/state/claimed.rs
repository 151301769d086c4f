//! Changes of a state topic in the name of leaders of other partitions: refused once those have successors.

use std::time::Duration;

use forebay_cluster::Claim;
use forebay_log::AppendError;
use tokio::time::Instant;

use super::{Change, StateTopic};

/// How long a change is tried again until the topic has a leader, and that one has heard of the claim's leaderships.
const HEAR_PATIENCE: Duration = Duration::from_secs(5);
/// Pause between two tries.
const HEAR_AGAIN: Duration = Duration::from_millis(20);

impl StateTopic {
    /// As [`StateTopic::put_all`] in the name of a claim, one at a time. When it returns, nothing that leaders before have written can
    /// follow.
    ///
    /// # Errors
    /// [`AppendError::ProducerFenced`] once another leader, or a later beginning of this one, has claimed: nothing was changed. After any
    /// other error the changes may be there or still come, until the claim is renewed and its next change is made.
    pub(crate) async fn put_as(&self, claim: &Claim, changes: Vec<Change>) -> Result<(), AppendError> {
        if changes.is_empty() {
            return Ok(());
        }
        let deadline = Instant::now() + HEAR_PATIENCE;
        loop {
            self.mending.ended().await;
            let put = self.submit_for(Some(claim), changes.clone()).await;
            match put.await.unwrap_or(Err(AppendError::Closed)) {
                // An answer: it does not come late. Made twice in a row, the changes are what they are.
                Err(AppendError::NotLeader) if Instant::now() < deadline => tokio::time::sleep(HEAR_AGAIN).await,
                result => return result,
            }
        }
    }
}

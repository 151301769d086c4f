//! A state partition as its leader has it: loaded when this node begins to lead, written only while it does.

use std::sync::Arc;
use std::time::SystemTime;

use forebay_cluster::{AppendData, LogError, Partition, Term};
use forebay_log::record::RecordChunk;
use forebay_log::{AppendError, Millis, Offset};

use super::StateTopic;

impl StateTopic {
    /// Loads a partition that this node leads in the term's epoch, and writes to it in that term alone. What the leaders of before
    /// have written is all there: this waits until every record below the log end is on all in-sync replicas.
    ///
    /// `after`: another term of this process came before, and what it had handed over may still be on its way into the log. A
    /// removal of this key, which nothing is kept under, then follows it in; what is loaded reaches up to there.
    ///
    /// # Errors
    /// This node does not lead, or not in that epoch; the partition cannot be read.
    pub async fn lead(
        partition: Arc<Partition>,
        term: Term,
        after: Option<&'static [u8]>,
    ) -> Result<Arc<StateTopic>, LogError> {
        let end = match after {
            None => partition.watermarks().log_end,
            Some(key) => follow_in(&partition, &term, key).await.map_err(not_led)?,
        };
        let mut marks = partition.watch();
        // Closed where there is no replica any more.
        marks.wait_for(|marks| marks.high_watermark >= end).await.map_err(|_| not_led(AppendError::NotLeader))?;
        if partition.led_in() != Some(term.epoch()) || term.is_ended() {
            return Err(not_led(AppendError::FencedLeaderEpoch));
        }
        let alone = partition.placement().replicas.len() <= 1;
        StateTopic::begin(partition, alone, Some(term)).await
    }
}

/// The offset behind all that was handed over before.
async fn follow_in(partition: &Partition, term: &Term, key: &'static [u8]) -> Result<Offset, AppendError> {
    let mut chunk = RecordChunk::new();
    chunk.push(Millis::from_system(SystemTime::now()), Some(key), None, &[]);
    let appended = partition.submit_in(term, AppendData::Chunk(chunk)).await?.await?;
    Ok(appended.last_offset.next())
}

fn not_led(error: AppendError) -> LogError {
    LogError::Unavailable(error.to_string())
}

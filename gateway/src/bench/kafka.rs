//! stub
use forebay_log::record::Compression;
use super::{Load, Payload, Report, Show};
pub(crate) enum KafkaAcks { None, Leader, All }
pub(crate) struct KafkaBench { pub(crate) bootstrap: String, pub(crate) topic: String, pub(crate) acks: KafkaAcks, pub(crate) batch_bytes: usize, pub(crate) compression: Compression, pub(crate) load: Load, pub(crate) payload: Payload, pub(crate) verify: bool, pub(crate) show: Show }
impl KafkaBench { pub(crate) async fn run(self) -> anyhow::Result<Report> { anyhow::bail!("no") } }

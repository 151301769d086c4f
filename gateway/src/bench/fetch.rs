//! stub
use super::{Load, Report, Show};
pub(crate) struct FetchBench { pub(crate) bootstrap: String, pub(crate) topic: String, pub(crate) load: Load, pub(crate) show: Show }
impl FetchBench { pub(crate) async fn run(self) -> anyhow::Result<Report> { anyhow::bail!("no") } }

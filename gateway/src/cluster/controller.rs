//! Whether there is a controller that decides: without one nothing in the cluster's metadata changes, so that nothing there tells it.

use std::time::Duration;

use forebay_cluster::Cluster;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// How often the controller is looked for.
pub(crate) const LOOK: Duration = Duration::from_secs(10);
/// Without a controller for longer a node says so.
pub(crate) const SILENT: Duration = Duration::from_secs(30);

/// When a controller was last reached.
#[derive(Debug, Clone)]
pub(crate) struct Controller(watch::Receiver<Instant>);

impl Controller {
    /// Looks for the controller until `shutdown`. A node in no cluster needs none.
    pub(crate) fn follow(cluster: Option<&Cluster>, every: Duration, shutdown: CancellationToken) -> Controller {
        let (seen, last) = watch::channel(Instant::now());
        if let Some(cluster) = cluster.cloned() {
            tokio::spawn(async move {
                let look = async {
                    loop {
                        // A leader that a majority does not answer says that it is none.
                        if cluster.quorum_at_leader().await.is_some() {
                            seen.send_replace(Instant::now());
                        }
                        tokio::time::sleep(every).await;
                    }
                };
                tokio::select! {
                    () = look => {}
                    () = shutdown.cancelled() => {}
                }
            });
        }
        Controller(last)
    }

    /// For how long none has been reached.
    pub(crate) fn silent_for(&self) -> Duration {
        // Whoever has stopped to look says nothing.
        if self.0.has_changed().is_err() { Duration::ZERO } else { self.0.borrow().elapsed() }
    }
}

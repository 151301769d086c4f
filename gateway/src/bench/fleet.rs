//! Runs the clients of any protocol: threads with an event loop each, all connected before any begins, all counts gathered.

use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, bail};
use forebay_log::Millis;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use super::Load;
use super::payload::TimeText;
use super::progress::Progress;
use super::tally::{Span, Tally};
use crate::node::descriptors::raise_to;

/// Clients of one thread that connect at a time.
const CONNECTING: usize = 64;
/// How long the last acks may take.
const DRAIN: Duration = Duration::from_secs(10);
/// What one read takes at most.
const SCRATCH_BYTES: usize = 64 << 10;
/// Open files besides the clients' sockets.
const DESCRIPTORS: usize = 64;
/// How often the threads are looked at.
const LOOK: Duration = Duration::from_millis(200);
/// From the last connection to the first message, so that every thread has woken up.
const LEAD: Duration = Duration::from_millis(5);

/// What a protocol does.
pub(super) trait Generator: Send + Sync + 'static {
    /// What the clients of one thread share to connect.
    type Road: Send + Sync + 'static;
    type Client: Send + 'static;
    /// Made within the thread's runtime.
    fn road(&self) -> anyhow::Result<Self::Road>;
    fn connect(&self, road: &Self::Road, number: usize) -> impl Future<Output = anyhow::Result<Self::Client>> + Send;
    /// Sends until the schedule is over and all is acknowledged, or `times.give_up`.
    fn drive(
        &self,
        client: Self::Client,
        number: usize,
        times: Times,
        tally: Shared,
    ) -> impl Future<Output = Account> + Send;
}

/// What became of one client's messages, which are numbered from 0.
#[derive(Debug, Clone, Default)]
pub(super) struct Account {
    pub(super) sent: u64,
    /// Those that were not acknowledged, rising.
    pub(super) unacked: Vec<u64>,
}

/// The clock of a run.
#[derive(Debug, Clone, Copy)]
pub(super) struct Times {
    start: Instant,
    /// Wall time at the start.
    wall: Millis,
    /// nanoseconds since the start; `u64::MAX`: by count alone
    pub(super) end: u64,
    /// nanoseconds; how long an answer may take
    pub(super) drain: u64,
}

impl Times {
    fn new(start: Instant, end: u64) -> Times {
        let ahead = start.saturating_duration_since(Instant::now());
        Times { start, wall: Millis::from_system(SystemTime::now() + ahead), end, drain: nanos(DRAIN) }
    }

    /// Wall time so many nanoseconds after the start.
    pub(super) fn wall(&self, nanos: u64) -> Millis {
        Millis(self.wall.0.saturating_add(i64::try_from(nanos / 1_000_000).unwrap_or(i64::MAX)))
    }

    /// Nanoseconds since the start.
    pub(super) fn now(&self) -> u64 {
        nanos(self.start.elapsed())
    }

    pub(super) fn at(&self, nanos: u64) -> tokio::time::Instant {
        (self.start + Duration::from_nanos(nanos)).into()
    }
}

pub(super) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// The counts of one thread, and what its clients lend each other.
pub(super) struct Counts {
    pub(super) tally: Tally,
    /// Where a client reads to; nothing stays in it between two turns.
    pub(super) scratch: Box<[u8]>,
    pub(super) time: TimeText,
}

/// Locked for a client's turn, never across a wait: nobody but the progress line ever contends for it.
#[derive(Clone)]
pub(super) struct Shared(Arc<Mutex<Counts>>);

impl Shared {
    fn new(span: Span) -> Shared {
        let scratch = vec![0; SCRATCH_BYTES].into();
        Shared(Arc::new(Mutex::new(Counts { tally: Tally::new(span), scratch, time: TimeText::default() })))
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Counts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The end of a run.
pub(super) struct Done {
    pub(super) tally: Tally,
    /// By client.
    pub(super) accounts: Vec<Account>,
}

/// Connects all clients, lets them run, and gathers what they counted.
///
/// # Errors
/// A client could not connect.
pub(super) async fn run<G: Generator>(generator: G, load: &Load, mut progress: Progress) -> anyhow::Result<Done> {
    let descriptors = raise_to(load.clients + DESCRIPTORS);
    if descriptors < load.clients + DESCRIPTORS {
        bail!(
            "{} clients need as many open files, and the system allows {descriptors}\nraise the hard limit (ulimit -Hn)",
            load.clients
        );
    }
    let warmup = nanos(load.warmup);
    let end = load.duration.map_or(u64::MAX, |duration| warmup.saturating_add(nanos(duration)));
    let span = Span { from: warmup, to: end };
    let generator = Arc::new(generator);
    let threads = load.threads.clamp(1, load.clients.max(1));
    let (ready, mut connected) = mpsc::channel(threads);
    let (go, start) = watch::channel(None);
    let (finish, mut finished) = mpsc::channel(threads);
    let mut counts = Vec::new();
    for thread in 0..threads {
        let shared = Shared::new(span);
        counts.push(shared.clone());
        let numbers: Vec<usize> = (thread..load.clients).step_by(threads).collect();
        let (generator, ready, start, finish) = (generator.clone(), ready.clone(), start.clone(), finish.clone());
        let work = move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let done = runtime
                .context("cannot start a thread's runtime")
                .and_then(|runtime| runtime.block_on(one_thread(&generator, numbers, end, shared, &ready, start)));
            let _ = finish.blocking_send(done);
        };
        std::thread::Builder::new().name(format!("bench-{thread}")).spawn(work).context("cannot start a thread")?;
    }
    drop((ready, finish));
    let mut waiting = threads;
    while waiting > 0 {
        tokio::select! {
            biased;
            // Before the start a thread ends only when it cannot go on.
            Some(done) = finished.recv() => { done?; bail!("a thread ended early"); }
            one = connected.recv() => { one.context("a thread ended early")?; waiting -= 1; }
        }
    }
    let _ = go.send(Some(Instant::now() + LEAD));
    progress.begin(load);
    let mut accounts = vec![Account::default(); load.clients];
    let mut running = threads;
    while running > 0 {
        tokio::select! {
            done = finished.recv() => {
                for (number, account) in done.context("a thread ended early")?? {
                    accounts[number] = account;
                }
                running -= 1;
            }
            () = tokio::time::sleep(LOOK) => progress.look(&counts),
        }
    }
    progress.end();
    let mut tally = Tally::new(span);
    for shared in counts {
        tally.merge(&shared.lock().tally);
    }
    if load.count.is_some_and(|count| tally.sent >= count) {
        // The count was reached before the time was over.
        tally.span.to = tally.span.to.min(tally.last_done);
    }
    Ok(Done { tally, accounts })
}

async fn one_thread<G: Generator>(
    generator: &Arc<G>,
    numbers: Vec<usize>,
    end: u64,
    shared: Shared,
    ready: &mpsc::Sender<()>,
    mut start: watch::Receiver<Option<Instant>>,
) -> anyhow::Result<Vec<(usize, Account)>> {
    let road = Arc::new(generator.road()?);
    let mut clients = Vec::with_capacity(numbers.len());
    let mut connecting = JoinSet::new();
    for number in numbers {
        if connecting.len() >= CONNECTING {
            clients.extend(joined(&mut connecting).await?);
        }
        let (generator, road) = (generator.clone(), road.clone());
        connecting.spawn(async move {
            let client = generator.connect(&road, number).await;
            client.map(|client| (number, client)).with_context(|| format!("client {} could not connect", number + 1))
        });
    }
    while let Some(client) = joined(&mut connecting).await? {
        clients.push(client);
    }
    let _ = ready.send(()).await;
    let Ok(start) = start.wait_for(Option::is_some).await.map(|start| *start) else { return Ok(Vec::new()) };
    let times = Times::new(start.unwrap_or_else(Instant::now), end);
    tokio::time::sleep_until(times.at(0)).await;
    let mut driving = JoinSet::new();
    for (number, client) in clients {
        let (generator, shared) = (generator.clone(), shared.clone());
        driving.spawn(async move { (number, generator.drive(client, number, times, shared).await) });
    }
    let mut accounts = Vec::new();
    while let Some(account) = driving.join_next().await {
        accounts.push(account?);
    }
    Ok(accounts)
}

async fn joined<T: 'static>(tasks: &mut JoinSet<anyhow::Result<T>>) -> anyhow::Result<Option<T>> {
    tasks.join_next().await.map_or(Ok(None), |task| task?.map(Some))
}

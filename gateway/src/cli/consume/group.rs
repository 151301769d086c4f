//! `forebay consume --group`: a member of a consumer group, by the classic protocol, so that it works against any Kafka.
//!
//! Offsets are committed once what they stand for has been written out: whoever reads our output may get records twice after a
//! crash, and misses none.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::time::{Duration, Instant};

use anyhow::Context;
use forebay_log::Offset;
use kafka_protocol::ResponseError;
use tokio::sync::watch;

use super::super::place::Place;
use super::{Args, Consumer, Position, WAIT};
use crate::client::kafka::{Client, Membership, Refused};

/// Less than a third of the session.
const HEARTBEAT: Duration = Duration::from_secs(3);
/// How often offsets are committed while records come.
const COMMIT: Duration = Duration::from_secs(1);
/// How long a cluster that cannot be reached is tried again, and the pause between two tries.
const PATIENCE: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(500);

/// What ends a round of reading.
enum End {
    /// All that was asked for is done.
    Done,
    /// The group rebalances: join again.
    Rejoin,
}

pub(super) async fn run(group: &str, args: &Args) -> anyhow::Result<()> {
    let (interrupt, interrupted) = watch::channel(false);
    // A call that is under way is not broken off: it ends soon.
    tokio::spawn(async move {
        let _ = tokio::signal::ctrl_c().await;
        let _ = interrupt.send(true);
    });
    let client = Client::connect(&args.bootstrap.read()?).await?;
    let consumer = Consumer { topic: args.topic.clone(), positions: BTreeMap::new(), left: args.max };
    let membership = Membership { group: group.to_owned(), ..Membership::default() };
    let now = Instant::now();
    let mut member = Member {
        client,
        membership,
        consumer,
        interrupted,
        joined: false,
        out: io::BufWriter::new(io::stdout()),
        committed: BTreeMap::new(),
        beat_at: now,
        commit_at: now,
        well_at: now,
    };
    let done = member.live(args).await;
    if !member.membership.id.is_empty()
        && let Err(error) = member.leave(args).await
    {
        tracing::warn!("the group waits for the end of this member's session: {error:#}");
    }
    done
}

struct Member {
    client: Client,
    membership: Membership,
    consumer: Consumer,
    interrupted: watch::Receiver<bool>,
    /// It has its share, and keeps it while the connection is lost: what is printed and not committed yet must not come again.
    joined: bool,
    out: io::BufWriter<io::Stdout>,
    /// As far as is committed.
    committed: BTreeMap<i32, Offset>,
    beat_at: Instant,
    commit_at: Instant,
    /// When the cluster was well last.
    well_at: Instant,
}

impl Member {
    async fn live(&mut self, args: &Args) -> anyhow::Result<()> {
        loop {
            let error = match self.round(args).await {
                Ok(End::Done) => return Ok(()),
                Ok(End::Rejoin) => {
                    self.joined = false;
                    continue;
                }
                Err(error) => error,
            };
            match error.downcast_ref::<Refused>().map(|refused| (refused.code, refused.is_retriable())) {
                Some((code, _)) if rejoins(code) => self.joined = false,
                Some((code, _)) if forgotten(code) => {
                    self.joined = false;
                    self.membership.id.clear();
                }
                Some((_, false)) => return Err(error),
                // Output that cannot be written is nothing that passes; lost connections are.
                _ if error.downcast_ref::<Unwritten>().is_some() || self.well_at.elapsed() > PATIENCE => {
                    return Err(error);
                }
                _ => self.connect_again(args).await,
            }
            if *self.interrupted.borrow() {
                return Ok(());
            }
        }
    }

    /// One generation: joins, reads what is its share, until the group rebalances or all is done.
    async fn round(&mut self, args: &Args) -> anyhow::Result<End> {
        if !self.joined
            && let Some(end) = self.join(args).await?
        {
            return Ok(end);
        }
        self.read(args).await
    }

    /// Gets its share; or the end, if that is asked for meanwhile.
    async fn join(&mut self, args: &Args) -> anyhow::Result<Option<End>> {
        let mut interrupted = self.interrupted.clone();
        let joining = async {
            let joined = self.client.join(&mut self.membership, &args.topic).await?;
            self.client.sync(&self.membership, joined).await
        };
        let share = tokio::select! {
            share = joining => share?,
            // The others may take long, and this member is none yet.
            _ = interrupted.wait_for(|interrupted| *interrupted) => {
                self.connect_again(args).await;
                return Ok(Some(End::Done));
            }
        };
        self.take(share, args).await?;
        self.joined = true;
        self.beat_at = Instant::now() + HEARTBEAT;
        Ok(None)
    }

    async fn read(&mut self, args: &Args) -> anyhow::Result<End> {
        loop {
            self.well_at = Instant::now();
            let done = self.consumer.left == Some(0) || *self.interrupted.borrow();
            if done || self.commit_at <= Instant::now() {
                self.commit().await?;
            }
            if done {
                return Ok(End::Done);
            }
            if self.beat_at <= Instant::now() {
                match self.client.heartbeat(&self.membership).await {
                    Ok(()) => self.beat_at = Instant::now() + HEARTBEAT,
                    Err(error) if error.downcast_ref::<Refused>().is_some_and(|refused| rejoins(refused.code)) => {
                        // Those who must join again still store how far they have come.
                        self.commit().await?;
                        return Ok(End::Rejoin);
                    }
                    Err(error) => return Err(error),
                }
            }
            if self.consumer.positions.is_empty() {
                tokio::time::sleep(WAIT).await;
                continue;
            }
            match self.consumer.fetch(&mut self.client).await {
                Ok(fetched) => {
                    for part in fetched {
                        self.consumer.print(part, args, &mut self.out).map_err(unwritten)?;
                    }
                    self.out.flush().map_err(Unwritten)?;
                }
                Err(error) if has_code(&error, ResponseError::OffsetOutOfRange) => self.find_again().await?,
                Err(error) => return Err(error),
            }
        }
    }

    /// Begins with its share where the group is, or where `--from` says.
    async fn take(&mut self, share: Vec<(String, i32)>, args: &Args) -> anyhow::Result<()> {
        let offsets = self.client.group_offsets(&self.membership.group).await?;
        let topic = self.client.topic(&args.topic, false).await?;
        let (mut positions, mut committed) = (BTreeMap::new(), BTreeMap::new());
        for (name, index) in share.into_iter().filter(|(name, _)| *name == args.topic) {
            let leader = topic.partitions.iter().find(|part| part.index == index).map(|part| part.leader);
            let leader = leader.with_context(|| format!("topic {name} has no partition {index}"))?;
            let next = match offsets.get(&(name, index)) {
                Some(offset) => {
                    committed.insert(index, *offset);
                    *offset
                }
                None => args.from.find(&mut self.client, leader, &args.topic, index).await?,
            };
            positions.insert(index, Position { leader, next, end: None });
        }
        tracing::debug!(partitions = ?positions.keys(), generation = self.membership.generation, "share of the topic");
        self.consumer.positions = positions;
        self.committed = committed;
        Ok(())
    }

    /// Stores how far is written out. Where nothing was committed yet, also where this began: the next member goes on there.
    async fn commit(&mut self) -> anyhow::Result<()> {
        self.commit_at = Instant::now() + COMMIT;
        let differs = |(index, at): &(&i32, &Position)| self.committed.get(*index) != Some(&at.next);
        let next: Vec<(i32, Offset)> =
            self.consumer.positions.iter().filter(differs).map(|(index, at)| (*index, at.next)).collect();
        if !next.is_empty() {
            self.client.commit(&self.membership, &self.consumer.topic, &next).await?;
            self.committed.extend(next);
        }
        Ok(())
    }

    /// Retention has let the records go that come next, or the log is another one: the nearest that there are.
    async fn find_again(&mut self) -> anyhow::Result<()> {
        for (index, at) in &mut self.consumer.positions {
            let place = Place::Offset(at.next.0);
            at.next = place.find(&mut self.client, at.leader, &self.consumer.topic, *index).await?;
        }
        Ok(())
    }

    /// Connects again, and learns who leads what. If it fails, so does the next call.
    async fn connect_again(&mut self, args: &Args) {
        tokio::time::sleep(PAUSE).await;
        let Ok(bootstrap) = args.bootstrap.read() else { return };
        let Ok(client) = Client::connect(&bootstrap).await else { return };
        self.client = client;
        let Ok(topic) = self.client.topic(&args.topic, false).await else { return };
        for part in topic.partitions {
            if let Some(at) = self.consumer.positions.get_mut(&part.index) {
                at.leader = part.leader;
            }
        }
    }

    async fn leave(&mut self, args: &Args) -> anyhow::Result<()> {
        if self.client.leave(&self.membership).await.is_err() {
            self.client = Client::connect(&args.bootstrap.read()?).await?;
            self.client.leave(&self.membership).await?;
        }
        Ok(())
    }
}

/// Our output could not be written.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub(super) struct Unwritten(pub(super) io::Error);

fn unwritten(error: anyhow::Error) -> anyhow::Error {
    match error.downcast::<io::Error>() {
        Ok(error) => Unwritten(error).into(),
        Err(other) => other,
    }
}

fn has_code(error: &anyhow::Error, code: ResponseError) -> bool {
    error.downcast_ref::<Refused>().is_some_and(|refused| refused.code == code.code())
}

/// The member has to join again under its id.
fn rejoins(code: i16) -> bool {
    [ResponseError::RebalanceInProgress, ResponseError::IllegalGeneration].iter().any(|error| error.code() == code)
}

/// The group does not know the member any more.
fn forgotten(code: i16) -> bool {
    [ResponseError::UnknownMemberId, ResponseError::FencedInstanceId].iter().any(|error| error.code() == code)
}

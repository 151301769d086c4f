//! Replication over the simulated network: one session with each leader, one feed for each follower.

use bytes::Bytes;
use forebay_disk::EpochCache;
use forebay_log::partition::{Anew, Starts, Truncation, agreement};
use forebay_log::replication::{Answer, Effect, End, Feed, Part, PartitionId, Pull, Source, View};
use forebay_log::{Incarnation, Offset, ReadError};

use super::{Done, Fed, Live};
use crate::message::{Message, Peer};
use crate::quorum::id_of;
use crate::world::World;

/// How long a leader holds a pull that nothing is there for, and how long a follower waits for its answer, in milliseconds.
const HOLD_MS: i64 = 500;
const PULL_MS: i64 = 1500;

/// The partitions of a node as a feed sees them.
struct Parts<'a> {
    live: &'a Live,
    image: &'a forebay_log::cluster::Image,
    follower: usize,
}

impl Source for Parts<'_> {
    fn view(&self, partition: PartitionId) -> Option<View> {
        let handle = self.live.partitions.get(&partition)?;
        let follower = id_of(self.follower);
        // A replica that knows of itself before its leader does is to ask again: the machine takes no report of a stranger.
        let state = self.image.partition(partition.topic, partition.index);
        let state = state.filter(|state| state.replicas.contains(&follower))?;
        Some(View {
            leads: handle.leads(),
            epoch: handle.leader_epoch(),
            marks: handle.watermarks(),
            tiered: handle.starts().tiered,
            in_sync: state.isr.contains(&follower),
        })
    }

    fn epochs(&self, partition: PartitionId) -> EpochCache {
        self.live.partitions.get(&partition).map(|handle| EpochCache::clone(&handle.epochs())).unwrap_or_default()
    }

    fn anew(&self, partition: PartitionId) -> Anew {
        let starts = self.live.partitions.get(&partition).map(|handle| Starts::clone(&handle.starts()));
        Anew { starts: starts.unwrap_or_default(), epochs: self.epochs(partition) }
    }

    fn read(&self, partition: PartitionId, from: Offset, max_bytes: usize) -> Result<Bytes, ReadError> {
        let gone = || ReadError::Offline("not here any more".to_owned());
        let handle = self.live.partitions.get(&partition).ok_or_else(gone)?;
        handle.read_to_end(from, max_bytes).map(|fetched| fetched.batches)
    }
}

impl World {
    pub(crate) fn pull_effects(&mut self, place: usize, leader: usize, effects: Vec<Effect>) {
        for effect in effects {
            let Some(live) = self.nodes[place].live.as_deref_mut() else { return };
            let incarnation = live.incarnation;
            match effect {
                Effect::Pull(pull) => {
                    if let Some(pulls) = live.pullers.get_mut(&leader) {
                        pulls.waiting.insert((pull.session, pull.sequence), (self.now + PULL_MS, false));
                    }
                    self.send(Peer::Node(place), Peer::Node(leader), Message::Pull { incarnation, pull });
                }
                Effect::Ends(ends) => {
                    self.send(Peer::Node(place), Peer::Node(leader), Message::Ends { incarnation, ends });
                }
                Effect::Copy { partition, epoch, from, marks, batches } => {
                    let handle = live.partitions.get(&partition).cloned();
                    let bytes = batches.len();
                    self.spawn(place, async move {
                        let result = match handle {
                            Some(handle) => match handle.copy(epoch, from, batches, marks).await {
                                Ok(copying) => copying.await,
                                Err(error) => Err(error),
                            },
                            None => Err(forebay_log::AppendError::Closed),
                        };
                        Done::Copied { leader, partition, epoch, bytes, result }
                    });
                }
                Effect::Agree { partition, epoch, leader: theirs } => {
                    let Some(handle) = live.partitions.get(&partition) else { continue };
                    let to = agreement(&handle.epochs(), handle.watermarks().log_end, theirs);
                    self.cut(place, leader, partition, Truncation { epoch, to, anew: None });
                }
                Effect::Anew { partition, epoch, at, anew } => {
                    self.cut(place, leader, partition, Truncation { epoch, to: at, anew: Some(anew) });
                }
            }
        }
    }

    fn cut(&mut self, place: usize, leader: usize, partition: PartitionId, cut: Truncation) {
        let Some(handle) = self.live(place).and_then(|live| live.partitions.get(&partition).cloned()) else { return };
        let (now, epoch) = (self.now, cut.epoch);
        self.trace.tell(now, || format!("node {place} cuts {}-{} to {}", partition.topic, partition.index, cut.to));
        self.spawn(place, async move {
            let result = handle.truncate(cut).await;
            Done::Cut { leader, partition, epoch, result }
        });
    }

    /// Something that this node waited for is done.
    pub(crate) fn task_done(&mut self, place: usize, done: Done) {
        let now = self.steady(place);
        let mut effects = Vec::new();
        match done {
            Done::Quietly => {}
            Done::Followed { partition, epoch, result } => {
                if let Err(error) = &result {
                    let at = self.now;
                    self.trace.tell(at, || format!("node {place} cannot follow in epoch {epoch}: {error}"));
                }
                self.followed(place, partition, epoch, result.is_ok());
            }
            Done::Copied { leader, partition, epoch, bytes, result } => {
                if let Err(error) = &result {
                    let at = self.now;
                    self.trace.tell(at, || format!("node {place} refuses a copy of epoch {epoch}: {error}"));
                }
                let Some(live) = self.live(place) else { return };
                let Some(tail) = live.tail(partition) else { return };
                let Some(pulls) = live.pullers.get_mut(&leader) else { return };
                pulls.puller.copied(now, (partition, epoch), bytes, result.is_ok(), Some(tail), &mut effects);
                self.pull_effects(place, leader, effects);
            }
            Done::Cut { leader, partition, epoch, result } => {
                if let Err(error) = &result {
                    self.check_cut(place, &error.to_string());
                }
                let Some(live) = self.live(place) else { return };
                let Some(tail) = live.tail(partition) else { return };
                let Some(pulls) = live.pullers.get_mut(&leader) else { return };
                pulls.puller.cut(now, (partition, epoch), result.is_ok(), tail, &mut effects);
                self.pull_effects(place, leader, effects);
            }
            Done::Coordinated { epoch, storing, result } => self.coordinated(place, epoch, storing, result),
            appended @ Done::Appended { .. } => self.appended(place, appended),
        }
    }

    pub(crate) fn tick_pulls(&mut self, place: usize) {
        let (now, steady) = (self.now, self.steady(place));
        let Some(live) = self.live(place) else { return };
        let leaders: Vec<usize> = live.pullers.keys().copied().collect();
        for leader in leaders {
            let Some(pulls) = self.live(place).and_then(|live| live.pullers.get_mut(&leader)) else { continue };
            let mut effects = Vec::new();
            let late: Vec<(u64, u32)> =
                pulls.waiting.iter().filter(|(_, (until, _))| *until <= now).map(|(pull, _)| *pull).collect();
            for pull in late {
                pulls.waiting.remove(&pull);
                pulls.puller.pulled(steady, pull.0, None, &mut effects);
            }
            pulls.puller.tick(steady, &mut effects);
            self.pull_effects(place, leader, effects);
        }
        self.answer_pulls(place);
    }

    /// The connection to a leader is gone: pulls on it get no answer.
    pub(crate) fn lose_pulls(&mut self, place: usize, leader: usize) {
        let soon = self.now + 100;
        let Some(pulls) = self.live(place).and_then(|live| live.pullers.get_mut(&leader)) else { return };
        pulls.waiting.values_mut().for_each(|waits| *waits = (soon, true));
    }

    /// The leader has answered.
    pub(crate) fn pulled(
        &mut self,
        place: usize,
        leader: usize,
        (session, sequence): (u64, u32),
        parts: Option<Vec<Part>>,
    ) {
        let steady = self.steady(place);
        let Some(pulls) = self.live(place).and_then(|live| live.pullers.get_mut(&leader)) else { return };
        let Some((_, is_lost)) = pulls.waiting.get(&(session, sequence)).copied() else { return };
        if is_lost {
            return;
        }
        pulls.waiting.remove(&(session, sequence));
        let mut effects = Vec::new();
        pulls.puller.pulled(steady, session, parts, &mut effects);
        self.pull_effects(place, leader, effects);
    }

    /// A follower asks for more.
    pub(crate) fn pull(&mut self, place: usize, follower: usize, incarnation: Incarnation, pull: &Pull) {
        let hold = self.now + HOLD_MS;
        let Some(live) = self.live(place) else { return };
        let fresh = || Fed { incarnation, feed: Feed::default(), waiting: Default::default() };
        let fed = live.feeds.entry(follower).or_insert_with(fresh);
        if incarnation < fed.incarnation {
            return;
        }
        if incarnation > fed.incarnation {
            *fed = fresh();
        }
        let taken = fed.feed.pull(pull);
        let (session, sequence) = (pull.session, pull.sequence);
        if taken.is_err() {
            let lost = Message::Pulled { session, sequence, parts: None };
            return self.send(Peer::Node(place), Peer::Node(follower), lost);
        }
        // One that waits is answered, so that at most one does.
        let overtaken: Vec<_> = fed.waiting.drain(..).collect();
        fed.waiting.push_back((session, sequence, hold));
        for (session, sequence, _) in overtaken {
            let empty = Message::Pulled { session, sequence, parts: Some(Vec::new()) };
            self.send(Peer::Node(place), Peer::Node(follower), empty);
        }
        self.answer_pulls(place);
    }

    /// Answers the pulls for which there is something, or that have waited long enough.
    pub(crate) fn answer_pulls(&mut self, place: usize) {
        let now = self.now;
        let Some(live) = self.live(place) else { return };
        let followers: Vec<usize> =
            live.feeds.iter().filter(|(_, fed)| !fed.waiting.is_empty()).map(|(follower, _)| *follower).collect();
        for follower in followers {
            let most = usize::try_from(self.profile.answer_bytes).unwrap_or(2000);
            let node = &mut self.nodes[place];
            let Some(live) = node.live.as_deref_mut() else { return };
            let Some(mut fed) = live.feeds.remove(&follower) else { continue };
            let ready = fed.feed.is_ready();
            let Answer { parts, agreed } = if ready {
                fed.feed.answer(&Parts { live, image: &node.image, follower }, most, most)
            } else {
                Answer::default()
            };
            let incarnation = fed.incarnation;
            let due = fed.waiting.front().is_some_and(|(_, _, until)| *until <= now);
            let answered = if !parts.is_empty() || due { fed.waiting.pop_front() } else { None };
            live.feeds.insert(follower, fed);
            self.report_ends(place, follower, incarnation, agreed);
            if let Some((session, sequence, _)) = answered {
                let answer = Message::Pulled { session, sequence, parts: Some(parts) };
                self.send(Peer::Node(place), Peer::Node(follower), answer);
            }
        }
    }

    /// A follower has these ends durably.
    pub(crate) fn report_ends(&mut self, place: usize, follower: usize, incarnation: Incarnation, ends: Vec<End>) {
        for End { partition, epoch, end } in ends {
            let Some(handle) = self.live(place).and_then(|live| live.partitions.get(&partition).cloned()) else {
                continue;
            };
            self.spawn(place, async move {
                let _ = handle.replicated(epoch, id_of(follower), incarnation, end).await;
                Done::Quietly
            });
        }
    }
}

//! The state of the simulated disk: what programs see, what is durable, and what is on its way.

use std::collections::BTreeMap;
use std::io;
use std::path::{Component, Path, PathBuf};

use super::{Faults, Random};

pub(super) type NodeId = u64;

/// Bytes that reach the medium together or not at all.
const SECTOR: usize = 512;
const ROOT: NodeId = 0;
const EIO: i32 = 5;

enum Node {
    Dir {
        names: BTreeMap<String, NodeId>,
        durable: BTreeMap<String, NodeId>,
    },
    File {
        bytes: Vec<u8>,
        durable: Vec<u8>,
        /// Changes that no sync has covered, in order.
        unsynced: Vec<Change>,
        modified: i64,
    },
}

enum Change {
    Write(usize, Vec<u8>),
    Len(usize),
}

impl Change {
    fn apply(&self, bytes: &mut Vec<u8>) {
        match self {
            Change::Write(position, data) => put(bytes, *position, data),
            Change::Len(len) => bytes.resize(*len, 0),
        }
    }
}

fn put(bytes: &mut Vec<u8>, position: usize, data: &[u8]) {
    let end = position + data.len();
    if bytes.len() < end {
        bytes.resize(end, 0);
    }
    bytes[position..end].copy_from_slice(data);
}

pub(super) struct Disk {
    nodes: BTreeMap<NodeId, Node>,
    next: NodeId,
    random: Random,
    boot: u64,
    operations: u64,
    pub(super) faults: Faults,
    pub(super) syncs: u64,
    pub(super) clock: i64,
}

fn not_found(path: &Path) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, format!("{} is not there", path.display()))
}

fn eio() -> io::Error {
    io::Error::from_raw_os_error(EIO)
}

fn at(position: u64) -> io::Result<usize> {
    usize::try_from(position).map_err(io::Error::other)
}

impl Disk {
    pub(super) fn new(seed: u64) -> Disk {
        let root = Node::Dir { names: BTreeMap::new(), durable: BTreeMap::new() };
        Disk {
            nodes: BTreeMap::from([(ROOT, root)]),
            next: ROOT + 1,
            random: Random::new(seed),
            boot: 0,
            operations: 0,
            faults: Faults::default(),
            syncs: 0,
            clock: 0,
        }
    }

    pub(super) fn check_boot(&self, boot: u64) -> io::Result<()> {
        if boot == self.boot { Ok(()) } else { Err(eio()) }
    }

    /// Counts an operation; fails once the machine has stopped.
    fn operation(&mut self) -> io::Result<()> {
        self.operations += 1;
        match &mut self.faults.stop_after {
            Some(0) => Err(eio()),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn names(&mut self, dir: NodeId) -> io::Result<&mut BTreeMap<String, NodeId>> {
        match self.nodes.get_mut(&dir) {
            Some(Node::Dir { names, .. }) => Ok(names),
            _ => Err(io::Error::from(io::ErrorKind::NotADirectory)),
        }
    }

    fn find(&mut self, path: &Path) -> io::Result<NodeId> {
        let mut node = ROOT;
        for part in path.components() {
            if let Component::Normal(name) = part {
                let name = name.to_string_lossy().into_owned();
                node = self.names(node)?.get(&name).copied().ok_or_else(|| not_found(path))?;
            }
        }
        Ok(node)
    }

    fn parent(&mut self, path: &Path) -> io::Result<(NodeId, String)> {
        let name = path.file_name().ok_or_else(|| not_found(path))?.to_string_lossy().into_owned();
        Ok((self.find(path.parent().unwrap_or(Path::new("")))?, name))
    }

    fn add(&mut self, dir: NodeId, name: String, node: Node) -> io::Result<NodeId> {
        let id = self.next;
        self.names(dir)?.insert(name, id);
        self.next += 1;
        self.nodes.insert(id, node);
        Ok(id)
    }

    pub(super) fn open(&mut self, path: &Path, create: bool) -> io::Result<(NodeId, u64)> {
        self.operation()?;
        let node = match self.find(path) {
            Err(error) if create && error.kind() == io::ErrorKind::NotFound => {
                let (dir, name) = self.parent(path)?;
                let modified = self.clock;
                let file = Node::File { bytes: Vec::new(), durable: Vec::new(), unsynced: Vec::new(), modified };
                self.add(dir, name, file)?
            }
            found => found?,
        };
        Ok((node, self.boot))
    }

    pub(super) fn remove(&mut self, path: &Path) -> io::Result<()> {
        self.operation()?;
        let (dir, name) = self.parent(path)?;
        self.names(dir)?.remove(&name).map(drop).ok_or_else(|| not_found(path))
    }

    pub(super) fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        self.operation()?;
        let (old_dir, old_name) = self.parent(from)?;
        let (new_dir, new_name) = self.parent(to)?;
        let node = self.names(old_dir)?.remove(&old_name).ok_or_else(|| not_found(from))?;
        self.names(new_dir)?.insert(new_name, node);
        Ok(())
    }

    pub(super) fn create_dir_all(&mut self, path: &Path) -> io::Result<()> {
        self.operation()?;
        let mut dir = ROOT;
        for part in path.components() {
            if let Component::Normal(name) = part {
                let name = name.to_string_lossy().into_owned();
                dir = match self.names(dir)?.get(&name) {
                    Some(&there) => there,
                    None => self.add(dir, name, Node::Dir { names: BTreeMap::new(), durable: BTreeMap::new() })?,
                };
            }
        }
        self.names(dir).map(drop)
    }

    pub(super) fn remove_dir_all(&mut self, path: &Path) -> io::Result<()> {
        self.remove(path)
    }

    pub(super) fn list(&mut self, path: &Path) -> io::Result<Vec<PathBuf>> {
        self.operation()?;
        let dir = self.find(path)?;
        Ok(self.names(dir)?.keys().map(PathBuf::from).collect())
    }

    pub(super) fn sync_dir(&mut self, path: &Path) -> io::Result<()> {
        self.operation()?;
        if self.random.chance(self.faults.sync_per_mille) {
            return Err(eio());
        }
        let dir = self.find(path)?;
        match self.nodes.get_mut(&dir) {
            Some(Node::Dir { names, durable }) => {
                durable.clone_from(names);
                Ok(())
            }
            _ => Err(io::Error::from(io::ErrorKind::NotADirectory)),
        }
    }

    fn file(&mut self, node: NodeId) -> io::Result<(&mut Vec<u8>, &mut Vec<Change>, &mut i64)> {
        match self.nodes.get_mut(&node) {
            Some(Node::File { bytes, unsynced, modified, .. }) => Ok((bytes, unsynced, modified)),
            _ => Err(io::Error::from(io::ErrorKind::IsADirectory)),
        }
    }

    pub(super) fn read(&mut self, node: NodeId, position: u64, buffer: &mut [u8]) -> io::Result<usize> {
        self.operation()?;
        let (bytes, ..) = self.file(node)?;
        let rest = bytes.get(at(position)?..).unwrap_or_default();
        let count = rest.len().min(buffer.len());
        buffer[..count].copy_from_slice(&rest[..count]);
        Ok(count)
    }

    pub(super) fn write(&mut self, node: NodeId, position: u64, data: &[u8]) -> io::Result<()> {
        self.operation()?;
        let position = at(position)?;
        let room = self.room();
        let (broken, part) =
            (self.random.chance(self.faults.write_per_mille), self.random.below(data.len() as u64 + 1));
        let (bytes, ..) = self.file(node)?;
        let growth = (position + data.len()).saturating_sub(bytes.len());
        let full = room.is_some_and(|room| growth as u64 > room);
        let taken = match (full, broken) {
            (true, _) => data.len().min(at(room.unwrap_or_default())? + data.len() - growth),
            (_, true) => at(part)?,
            _ => data.len(),
        };
        self.change(node, Change::Write(position, data[..taken].to_vec()))?;
        if full {
            return Err(io::Error::from(io::ErrorKind::StorageFull));
        }
        if broken { Err(eio()) } else { Ok(()) }
    }

    /// Bytes that still fit on the disk.
    fn room(&self) -> Option<u64> {
        let used = |id: &NodeId| match self.nodes.get(id) {
            Some(Node::File { bytes, .. }) => bytes.len() as u64,
            _ => 0,
        };
        self.faults.capacity.map(|all| all.saturating_sub(self.reachable().iter().map(|(_, id)| used(id)).sum()))
    }

    fn change(&mut self, node: NodeId, change: Change) -> io::Result<()> {
        let clock = self.clock;
        let (bytes, unsynced, modified) = self.file(node)?;
        change.apply(bytes);
        unsynced.push(change);
        *modified = clock;
        Ok(())
    }

    pub(super) fn set_len(&mut self, node: NodeId, len: u64) -> io::Result<()> {
        self.operation()?;
        self.change(node, Change::Len(at(len)?))
    }

    pub(super) fn sync(&mut self, node: NodeId) -> io::Result<()> {
        self.operation()?;
        let broken = self.random.chance(self.faults.sync_per_mille);
        let Some(Node::File { durable, unsynced, .. }) = self.nodes.get_mut(&node) else {
            return Err(io::Error::from(io::ErrorKind::IsADirectory));
        };
        let changes = std::mem::take(unsynced);
        if broken {
            // What did not reach the medium counts as clean from now on: no later sync writes it.
            tear(durable, &changes, &mut self.random);
            return Err(eio());
        }
        changes.iter().for_each(|change| change.apply(durable));
        self.syncs += 1;
        Ok(())
    }

    pub(super) fn len(&mut self, node: NodeId) -> io::Result<u64> {
        Ok(self.file(node)?.0.len() as u64)
    }

    pub(super) fn modified(&mut self, node: NodeId) -> io::Result<i64> {
        Ok(*self.file(node)?.2)
    }

    pub(super) fn set_modified(&mut self, node: NodeId, millis: i64) -> io::Result<()> {
        *self.file(node)?.2 = millis;
        Ok(())
    }

    pub(super) fn crash(&mut self) {
        self.boot += 1;
        self.faults = Faults::default();
        for node in self.nodes.values_mut() {
            match node {
                Node::Dir { names, durable } => names.clone_from(durable),
                Node::File { bytes, durable, unsynced, .. } => {
                    tear(durable, &std::mem::take(unsynced), &mut self.random);
                    bytes.clone_from(durable);
                }
            }
        }
        let reachable: Vec<NodeId> = self.reachable().into_iter().map(|(_, id)| id).collect();
        self.nodes.retain(|id, node| matches!(node, Node::Dir { .. }) || reachable.contains(id));
    }

    pub(super) fn flip(&mut self, path: &Path, position: u64, mask: u8) -> io::Result<()> {
        let node = self.find(path)?;
        let Some(Node::File { bytes, durable, .. }) = self.nodes.get_mut(&node) else { return Err(not_found(path)) };
        for copy in [bytes, durable] {
            *copy.get_mut(at(position)?).ok_or_else(|| not_found(path))? ^= mask;
        }
        Ok(())
    }

    pub(super) fn contents(&self) -> Vec<(PathBuf, Vec<u8>)> {
        let bytes = |(path, id)| match self.nodes.get(&id) {
            Some(Node::File { bytes, .. }) => Some((path, bytes.clone())),
            _ => None,
        };
        self.reachable().into_iter().filter_map(bytes).collect()
    }

    /// Every file that has a name.
    fn reachable(&self) -> Vec<(PathBuf, NodeId)> {
        let mut found = Vec::new();
        let mut dirs = vec![(PathBuf::new(), ROOT)];
        while let Some((path, dir)) = dirs.pop() {
            if let Some(Node::Dir { names, .. }) = self.nodes.get(&dir) {
                for (name, &id) in names {
                    let inner = path.join(name);
                    match self.nodes.get(&id) {
                        Some(Node::Dir { .. }) => dirs.push((inner, id)),
                        _ => found.push((inner, id)),
                    }
                }
            }
        }
        found
    }
}

/// Applies changes as a power loss leaves them: each sector of each change is there or not.
fn tear(durable: &mut Vec<u8>, changes: &[Change], random: &mut Random) {
    for change in changes {
        match change {
            Change::Write(position, data) => {
                let mut from = 0;
                while from < data.len() {
                    let to = data.len().min(from + SECTOR - (position + from) % SECTOR);
                    if random.chance(500) {
                        put(durable, position + from, &data[from..to]);
                    }
                    from = to;
                }
            }
            Change::Len(_) if random.chance(500) => change.apply(durable),
            Change::Len(_) => {}
        }
    }
}

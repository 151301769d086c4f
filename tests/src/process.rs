//! Runs the built `forebay` binary as users do: spawn, wait for the ready line, kill, restart.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// How long a node may take from exec to its ready line, recovery included, on a busy machine.
const READY_TIMEOUT: Duration = Duration::from_secs(60);

/// The binary that `cargo test` built beside this test.
pub fn binary() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("FOREBAY_BIN") {
        return Ok(path.into());
    }
    let test = std::env::current_exe()?;
    let profile = test.ancestors().nth(2).context("the test runs outside a target directory")?;
    let binary = profile.join("forebay");
    if !binary.exists() {
        bail!("{} is missing: run `cargo test --workspace`, which builds it", binary.display());
    }
    Ok(binary)
}

/// A command of the binary, ready for arguments.
pub fn forebay() -> Result<Command> {
    let mut command = Command::new(binary()?);
    command.stdin(Stdio::null());
    Ok(command)
}

/// A running node in a data directory of its own.
pub struct Node {
    child: Child,
    dir: PathBuf,
    args: Vec<String>,
    addresses: BTreeMap<String, SocketAddr>,
}

impl Node {
    /// Starts a node in `dir` with every listener on a port that stays the same over restarts. `args` are further
    /// arguments of `forebay serve`.
    pub fn start(dir: &Path, args: &[&str]) -> Result<Node> {
        fs::create_dir_all(dir)?;
        let mut all = vec!["serve".to_owned(), "--data-dir".to_owned(), dir.join("data").display().to_string()];
        let mut set = |key: &str, value: String| all.extend(["--set".to_owned(), format!("{key}={value}")]);
        for listener in ["mqtt", "kafka", "http", "quic"] {
            set(&format!("listeners.{listener}"), format!("127.0.0.1:{}", free_port()?));
        }
        set("object_store.url", format!("file:{}", dir.join("lake").display()));
        all.extend(args.iter().map(|&arg| arg.to_owned()));
        let (child, addresses) = spawn(&all, dir)?;
        Ok(Node { child, dir: dir.to_owned(), args: all, addresses })
    }

    /// The address of a listener named in the ready line.
    pub fn address(&self, listener: &str) -> SocketAddr {
        match self.addresses.get(listener) {
            Some(address) => *address,
            None => panic!("the ready line names no {listener} listener: {:?}", self.addresses),
        }
    }

    pub fn data_dir(&self) -> PathBuf {
        self.dir.join("data")
    }

    pub fn lake_dir(&self) -> PathBuf {
        self.dir.join("lake")
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// kill -9
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Starts again with the arguments of the first start, after `kill` or `terminate`.
    pub fn restart(&mut self) -> Result<()> {
        (self.child, self.addresses) = spawn(&self.args, &self.dir)?;
        Ok(())
    }

    /// SIGTERM; waits for the exit.
    pub fn terminate(&mut self) -> Result<ExitStatus> {
        self.signal("TERM")?;
        wait(&mut self.child, Duration::from_secs(20))
    }

    pub fn signal(&self, name: &str) -> Result<()> {
        let done = Command::new("kill").arg(format!("-{name}")).arg(self.child.id().to_string()).status()?;
        anyhow::ensure!(done.success(), "kill -{name} failed");
        Ok(())
    }

    /// Everything the node wrote to stderr since its first start.
    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.join("stderr.log")).unwrap_or_default()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // Both fail only when the process is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let log = self.log();
            let tail: Vec<&str> = log.lines().rev().take(40).collect();
            eprintln!("last lines of the node's log:");
            tail.iter().rev().for_each(|line| eprintln!("  {line}"));
        }
    }
}

fn spawn(args: &[String], dir: &Path) -> Result<(Child, BTreeMap<String, SocketAddr>)> {
    let log = File::options().create(true).append(true).open(dir.join("stderr.log"))?;
    let mut child =
        forebay()?.args(args).stdout(Stdio::piped()).stderr(log).spawn().context("forebay does not start")?;
    let stdout = child.stdout.take().context("stdout is piped")?;
    let (send, receive) = std::sync::mpsc::sync_channel(1);
    // The thread ends with the process, whose stdout it keeps drained.
    std::thread::spawn(move || {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            if line.starts_with("forebay ready ") {
                let _ = send.send(line);
            }
        }
    });
    match receive.recv_timeout(READY_TIMEOUT) {
        Ok(line) => Ok((child, parse_ready(&line)?)),
        Err(_) => {
            let _ = child.kill();
            let status = child.wait()?;
            let log = fs::read_to_string(dir.join("stderr.log")).unwrap_or_default();
            bail!("no ready line ({status}); stderr:\n{log}")
        }
    }
}

/// Parses `forebay ready node=1 mqtt=127.0.0.1:1883 ...`.
pub fn parse_ready(line: &str) -> Result<BTreeMap<String, SocketAddr>> {
    let fields = line.strip_prefix("forebay ready ").context("not a ready line")?;
    let mut addresses = BTreeMap::new();
    for field in fields.split_whitespace() {
        let (name, value) = field.split_once('=').with_context(|| format!("{field:?} in the ready line"))?;
        if name != "node" {
            addresses.insert(name.to_owned(), value.parse().with_context(|| format!("{field:?} in the ready line"))?);
        }
    }
    Ok(addresses)
}

/// Waits for the end of a process.
pub fn wait(child: &mut Child, limit: Duration) -> Result<ExitStatus> {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        if Instant::now() > deadline {
            let _ = child.kill();
            bail!("the process did not end within {limit:?}");
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Asks again until `probe` answers, or fails with its last error.
pub fn eventually<T>(limit: Duration, mut probe: impl FnMut() -> Result<T>) -> Result<T> {
    let deadline = Instant::now() + limit;
    loop {
        match probe() {
            Ok(found) => return Ok(found),
            Err(error) if Instant::now() > deadline => return Err(error.context(format!("not within {limit:?}"))),
            Err(_) => std::thread::sleep(Duration::from_millis(50)),
        }
    }
}

/// A TCP port that was free a moment ago, outside the range from which outgoing connections take theirs.
fn free_port() -> Result<u16> {
    static NEXT: std::sync::atomic::AtomicU16 = std::sync::atomic::AtomicU16::new(0);
    let start = 10_000 + (std::process::id() % 20_000) as u16;
    for _ in 0..2_000 {
        let step = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let port = 10_000 + (start - 10_000 + step) % 22_000;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return Ok(port);
        }
    }
    bail!("no free port")
}

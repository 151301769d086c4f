//! Tells what happens, when somebody replays a seed.

/// Told line by line on standard output, or not at all.
#[derive(Default)]
pub struct Trace {
    pub on: bool,
}

impl Trace {
    pub fn tell(&self, now: i64, what: impl FnOnce() -> String) {
        if self.on {
            println!("{now:>7} {}", what());
        }
    }
}

//! One hot piece of the program, as divan times it and callgrind counts its instructions: what each crate's `benches/pieces.rs` is made of.
//!
//! `cargo bench -p CRATE` runs divan over all pieces of a crate. `check.py`, next to this file, runs the same binary as
//! `pieces count NAME TIMES` under callgrind.

/// One piece of work that is done over and over.
#[derive(Debug)]
pub(crate) struct Piece {
    pub(crate) name: &'static str,
    /// How many items (readings, packets, batches: see the name) one run deals with.
    pub(crate) items: usize,
    /// Bytes that one run deals with, for a figure in bytes per second; 0 for none.
    pub(crate) bytes: usize,
    /// Whether its instructions are counted and compared: threads and system calls make those of some pieces differ from run to run.
    pub(crate) counted: bool,
    /// Makes everything ready; what it returns is one run.
    pub(crate) make: fn() -> Box<dyn FnMut()>,
}

/// What the binary was asked for: divan's timing, or one of the two that `check.py` needs.
pub(crate) fn main(pieces: &[Piece]) {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["list"] => pieces.iter().filter(|piece| piece.counted).for_each(|p| println!("{} {}", p.name, p.items)),
        ["count", name, times] => {
            let piece = pieces.iter().find(|piece| piece.name == name);
            let mut run = (piece.unwrap_or_else(|| panic!("no piece is called {name}")).make)();
            (0..times.parse::<usize>().expect("how many times")).for_each(|_| run());
        }
        _ => divan::main(),
    }
}

/// Times one piece.
pub(crate) fn time(bencher: divan::Bencher<'_, '_>, piece: &Piece) {
    let mut run = (piece.make)();
    let bencher = bencher.counter(divan::counter::ItemsCount::new(piece.items));
    match piece.bytes {
        0 => bencher.bench_local(&mut run),
        bytes => bencher.counter(divan::counter::BytesCount::new(bytes)).bench_local(&mut run),
    }
}

impl std::fmt::Display for Piece {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

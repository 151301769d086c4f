//! The program `forebay`: its allocator and its exit code; everything else is in the library.

use std::process::ExitCode;

/// Without huge pages: they would double what a node has resident and make it no faster (BENCHMARKS.md).
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // Where the system gives them unasked. Where it cannot be told not to, only memory is lost.
    #[cfg(target_os = "linux")]
    let _ = rustix::thread::disable_transparent_huge_pages(true);
    forebay::cli::main()
}

//! The program `forebay`: its exit code; everything else is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    forebay::cli::main()
}

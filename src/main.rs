//! The `isolith` command. Everything is in the library; here only the process's own things meet it.

use std::process::ExitCode;

fn main() -> ExitCode {
    isolith::cli::main(std::env::args_os(), isolith::cli::Surroundings::of_process())
}

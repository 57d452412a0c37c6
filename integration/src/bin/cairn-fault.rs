//! `cairn` with numbered fault points on every system call, under a name of its own so that it can
//! stand beside the ordinary one.

fn main() -> std::process::ExitCode {
    cairn_cli::main()
}

//! `cairnd` with numbered fault points on every system call, as `cairn-fault` is `cairn`.

fn main() -> std::process::ExitCode {
    cairnd::run::main()
}
